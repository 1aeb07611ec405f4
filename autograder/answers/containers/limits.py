"""Answers to `limit`."""

from __future__ import annotations

import shlex

from autograder.answers import alternative, mutant


def _limit(argv, memory, cpu, pids, *, join="echo 0 >$group/cgroup.procs", clean="rmdir $group", end="exit $status"):
    return f"""
group=/sys/fs/cgroup/limited
mkdir $group
echo {memory} >$group/memory.max
echo {cpu} >$group/cpu.max
echo {pids} >$group/pids.max
({join}; exec {shlex.join(argv)})
status=$?
{clean}
{end}
"""


@alternative("limit")
def a_subshell_joins(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids)


@alternative("limit")
def suffixes_and_another_period(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, f"{memory_mib}M", f'"{cpu_percent * 500} 50000"', pids)


@alternative("limit")
def a_child_shell_writes_its_pid(argv, memory_mib, cpu_percent, pids):
    inside = 'echo $$ >/sys/fs/cgroup/box/cgroup.procs; exec "$@"'
    return "\n".join(
        [
            "mkdir /sys/fs/cgroup/box && cd /sys/fs/cgroup/box",
            f"echo {memory_mib * 1024}K >memory.max",
            f"echo {cpu_percent}000 >cpu.max",
            f"echo {pids} >pids.max",
            f"sh -c {shlex.quote(inside)} sh {shlex.join(argv)}; code=$?",
            "cd /; rmdir /sys/fs/cgroup/box; exit $code",
        ]
    )


@alternative("limit")
def one_group_per_limit(argv, memory_mib, cpu_percent, pids):
    return f"""
top=/sys/fs/cgroup/top
mkdir $top; echo '+memory +cpu +pids' >$top/cgroup.subtree_control
echo {memory_mib}M >$top/memory.max
mkdir $top/leaf
echo {cpu_percent * 1000} 100000 >$top/leaf/cpu.max; echo {pids} >$top/leaf/pids.max
sh -c 'echo $$ >'$top'/leaf/cgroup.procs; exec "$@"' sh {shlex.join(argv)}
status=$?
rmdir $top/leaf $top
exit $status
"""


@mutant("limit", "not-in-the-group")
def makes_a_group_and_stays_out(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids, join="true")


@mutant("limit", "wrong-memory-unit")
def mebibytes_as_bytes(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib * 10**6, f"{cpu_percent * 1000} 100000", pids)


@mutant("limit", "no-memory-limit")
def memory_high_instead_of_max(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids).replace("memory.max", "memory.high")


@mutant("limit", "wrong-cpu-unit")
def percent_of_a_million(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 10000} 100000", pids)


@mutant("limit", "no-cpu-limit")
def weight_instead_of_max(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, cpu_percent, pids).replace("cpu.max", "cpu.weight")


@mutant("limit", "no-cpu-limit")
def percent_sign(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent}%", pids)


@mutant("limit", "no-pids-limit")
def forgets_pids(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", "max")


@mutant("limit", "wrong-pids-unit")
def one_more_for_the_shell(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids + 1)


@mutant("limit", "group-left")
def leaves_the_group(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids, clean="true")


@mutant("limit", "group-left")
def joins_itself(argv, memory_mib, cpu_percent, pids):
    script = _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids, join="true")
    return script.replace("(true; exec", "echo $$ >$group/cgroup.procs\n(exec")


@mutant("limit", "exit-code-lost")
def ends_with_rmdir(argv, memory_mib, cpu_percent, pids):
    return _limit(argv, memory_mib << 20, f"{cpu_percent * 1000} 100000", pids, end="")


@mutant("limit", "did-not-run")
def runs_a_list(argv, memory_mib, cpu_percent, pids):
    return _limit([str(argv)], memory_mib << 20, f"{cpu_percent * 1000} 100000", pids)


@mutant("limit", "not-a-script")
def returns_the_limits(argv, memory_mib, cpu_percent, pids):
    return {"memory.max": memory_mib << 20}


@mutant("limit", "unanswered")
def limit_untouched(argv, memory_mib, cpu_percent, pids):
    raise NotImplementedError
