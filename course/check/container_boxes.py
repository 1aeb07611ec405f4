"""Judgements of lesson 4 on scripts: what a container, an attack or a limit really does in a fresh guest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..container import Laboratory, Ran, boxes
from ..container.cgroups import ROOT
from ..error import MachineError
from .compare import shorten
from .exercise import Trial

MARKER = "98765"  # a process of the host that nobody else starts: sleep 98765

_PROBE = r"""
echo pid=$$
echo host=$(cat /proc/sys/kernel/hostname)
echo uid=$(id -u)
for kind in mnt pid uts ipc net user; do echo ns_$kind=$(readlink /proc/self/ns/$kind); done
echo links=$(ip -o link | cut -d: -f2 | tr -d ' ' | cut -d@ -f1 | tr '\n' ' ')
echo seen=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -c -x 9876[5])
echo files=$([ -e /proc/self/status ] && echo yes)
echo end=yes
"""
_HOST = r"""
sleep 98765 >/dev/null 2>&1 &
for kind in mnt pid uts ipc net user; do echo ns_$kind=$(readlink /proc/self/ns/$kind); done
cat /proc/mounts | md5sum | sed 's/^/mounts=/'
"""
_AFTER = r"""
echo host=$(cat /proc/sys/kernel/hostname)
cat /proc/mounts | md5sum | sed 's/^/mounts=/'
echo survivors=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -c -x 4567[8])
"""


def script_of(trial: Trial, *args: Any) -> str:
    """Call the answer, which has to return a shell script."""
    got = trial.call(*args)
    trial.expect(
        isinstance(got, str) and bool(got.strip()),
        "not-a-script",
        f"{trial.exercise} returned {shorten(got)}.",
        "Return the text of a shell script, one str with one or more lines.",
    )
    return str(got)


def run(trial: Trial, lab: Laboratory, script: str, timeout_s: float = 5.0) -> Ran:
    """Run the answer's script; a guest that does not survive it, or a script without an end, ends the check."""
    try:
        ran = lab.run(script, timeout_s=timeout_s)
    except MachineError as error:
        said = str(error).splitlines()[0]
        trial.wrong(
            "host-lost",
            f"After your script {shorten(script)} the guest itself no longer answered: {said}",
            "Which of its commands concerns the whole machine?",
        )
    if ran.timed_out:
        trial.wrong(
            "endless",
            f"Your script {shorten(script)} had not ended after {timeout_s:g} s and was killed.",
            "What does it wait for?",
        )
    return ran


def values(text: str) -> dict[str, str]:
    """Return the key=value lines of a text."""
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))


# ── contain ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMESPACES = {
    "pid": (
        "no-pid-namespace",
        "its process has the host's PID namespace",
        "Which option gives it a PID 1 of its own?",
    ),
    "mnt": ("no-mount-namespace", "what it mounts, the host sees mounted", "Mounts belong to a namespace as well."),
    "uts": ("no-uts-namespace", "its name is the host's name", "The name of a system is kept in the UTS namespace."),
    "net": ("no-net-namespace", "it has the host's network", "Interfaces belong to a namespace as well."),
    "ipc": ("no-ipc-namespace", "it shares the host's semaphores and queues", "System V objects have a namespace."),
    "user": (
        "no-user-namespace",
        "root in it is root on the host",
        "Which namespace makes root inside an ordinary user outside?",
    ),
}


def judge_contain(trial: Trial, lab: Laboratory, hostname: str) -> None:
    """Run a probe in the answer's container, and look at the host before and after."""
    host = values(lab.run(_HOST).output)
    script = script_of(trial, ["sh", "-c", _PROBE], hostname)
    ran = run(trial, lab, script)
    inside = values(ran.output)
    said = ran.output.strip()[-300:]
    if "pid" not in inside:
        trial.wrong(
            "did-not-run",
            f"The program in the container never ran. Exit code {ran.exitcode}, output: {said!r}.",
            "Run your script in a laboratory and read what it says; `unshare --help` lists the options.",
        )
    if inside["pid"] != "1":
        if "can't fork" in ran.output or inside.get("ns_pid") != host["ns_pid"]:
            trial.wrong(
                "no-fork",
                f"The program's pid is {inside['pid']}, not 1; the output ends: {said[-60:]!r}.",
                "unshare moves only the children into the new PID namespace. Who has to be a child?",
            )
        misconception, what, hint = _NAMESPACES["pid"]
        trial.wrong(misconception, f"The program's pid is {inside['pid']}: {what}.", hint)
    _judge_view(trial, inside, host)
    if inside["host"] != hostname:
        trial.wrong(
            "hostname-not-set",
            f"In the container the hostname is {inside['host']!r}; expected {hostname!r}.",
            "A new UTS namespace begins with a copy of the old name. Who sets the new one, and where?",
        )
    trial.expect(
        inside["uid"] == "0",
        "uid-unmapped",
        f"The program runs as uid {inside['uid']}: nobody has said who that user is outside.",
        "A user namespace needs a map: which user inside is which outside?",
    )
    _judge_after(trial, lab, host, hostname)


def _judge_view(trial: Trial, inside: dict[str, str], host: dict[str, str]) -> None:
    """Judge the namespaces, and the /proc that is mounted."""
    for kind in ("mnt", "uts", "net", "ipc", "user"):
        misconception, what, hint = _NAMESPACES[kind]
        if inside.get(f"ns_{kind}") == host[f"ns_{kind}"]:
            shown = f" (interfaces: {inside['links'].strip()})" if kind == "net" else ""
            trial.wrong(misconception, f"In the container, the {kind} namespace is the host's: {what}{shown}.", hint)
    if inside.get("files") != "yes":
        trial.wrong("no-proc", "In the container /proc/self does not exist.", "Which file system tells of processes?")
    trial.expect(
        inside.get("seen") == "0",
        "host-proc",
        "ps in the container shows processes of the host: its /proc is still the host's.",
        "/proc shows the PID namespace of whoever mounted it.",
    )


def _judge_after(trial: Trial, lab: Laboratory, host: dict[str, str], hostname: str) -> None:
    after = values(lab.run(_AFTER).output)
    trial.expect(
        after.get("host") == "lab",
        "host-renamed",
        f"After your script the host itself is called {after.get('host')!r}; it was 'lab'.",
        f"At which moment does your script set the name {hostname!r}?",
    )
    trial.expect(
        after.get("mounts") == host["mounts"],
        "mounts-left",
        "After your script the host has other mounts than before.",
        "What was mounted outside of the container, or before it had a mount namespace of its own?",
    )


def judge_exit(trial: Trial, lab: Laboratory, argv: Sequence[str], code: int, lines: Sequence[str]) -> None:
    """Run a program with awkward arguments; its words, its exit code and its end have to come out right."""
    ran = run(trial, lab, script_of(trial, list(argv), "box"))
    got = ran.lines
    if got != list(lines):
        trial.equal(
            list(lines),
            got,
            "argv-mangled",
            f"The container ran {list(argv)}; the program wrote other lines than on the host.",
            "argv is a list, a script is text: what happens to blanks, quotes and $ on the way?",
        )
    trial.expect(
        ran.exitcode == code,
        "exit-code-lost",
        f"The program ended with {code}, your script with {ran.exitcode}.",
        "A script's exit code is that of its last command.",
    )
    after = values(lab.run(_AFTER).output)
    trial.expect(
        after.get("survivors") == "0",
        "survivors",
        "The container has ended, but a process that it started still runs on the host.",
        "What happens to a PID namespace when its process 1 ends? Is the program process 1?",
    )


# ── steal ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_WHERE = {
    "mnt": "the file /root/secret",
    "pid": "the arguments of the process vault",
    "net": "the service at 127.0.0.1, port 1690",
    "user": "the kernel's log",
}


def judge_steal(trial: Trial, lab: Laboratory, missing: str, secrets: dict[str, str]) -> None:
    """Run the attack in a box that lacks one namespace; its output has to contain what that one guards."""
    script = script_of(trial, missing)
    try:
        ran = boxes.enter(lab, script, missing=missing)
    except MachineError:
        trial.wrong("host-lost", f"Your attack {shorten(script)} ended the whole guest.", "Read; do not destroy.")
    if secrets[missing] in ran.output:
        return
    if ran.timed_out:
        trial.wrong(
            f"waits-{missing}",
            f"Without {missing}: the attack {shorten(script)} had not ended after 5 s.",
            "What does the last command wait for? Give it an empty input.",
        )
    part = secrets[missing][:4] in ran.output
    what = "only a part of the secret came out" if part else f"it said {shorten(ran.output.strip())}"
    trial.wrong(
        f"not-stolen-{missing}",
        f"In a container without a {missing} namespace of its own, your attack did not show {_WHERE[missing]}: {what}.",
        "What belongs to the host and is within reach here, but not in a whole container?",
    )


# ── limit ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_LIMITS = r"""
path=$(cut -d: -f3 /proc/self/cgroup)
echo group=$path
while [ "$path" ] && [ "$path" != / ]; do
  for name in memory.max cpu.max pids.max; do echo $name=$(cat /sys/fs/cgroup$path/$name); done
  path=${path%/*}
done
exit 21
"""


def judge_limit(trial: Trial, lab: Laboratory, memory_mib: int, cpu_percent: int, pids: int) -> None:
    """Run a probe under the answer's limits and read which limits bind it, its parents' included."""
    before = groups(lab)
    ran = run(trial, lab, script_of(trial, ["sh", "-c", _LIMITS], memory_mib, cpu_percent, pids))
    group = next((line[6:] for line in ran.lines if line.startswith("group=")), "")
    if not group:
        trial.wrong(
            "did-not-run",
            f"The program never ran. Exit code {ran.exitcode}, output: {ran.output.strip()[-300:]!r}.",
            "Run your script in a laboratory and read what it says.",
        )
    if group == "/":
        trial.wrong(
            "not-in-the-group",
            "The program ran in the root group, where nothing is limited.",
            "A group limits those whose pid was written into its cgroup.procs. When does the program begin?",
        )
    complaints = [line for line in ran.lines if not re.match(r"(group|\w+\.max)=", line)]
    complaint = f" Your script said: {complaints[0]}" if complaints else ""
    read = {name: [line.split("=")[1] for line in ran.lines if line.startswith(name + "=")] for name in _FILES}
    for name, (unit, wanted) in {
        "memory.max": ("bytes", memory_mib << 20),
        "cpu.max": ("percent of a processor", cpu_percent),
        "pids.max": ("processes", pids),
    }.items():
        _judge_value(trial, name, unit, wanted, [_FILES[name](text) for text in read[name]], complaint=complaint)
    trial.expect(
        ran.exitcode == 21,
        "exit-code-lost",
        f"The program ended with 21, your script with {ran.exitcode}.",
        "Keep the program's exit code before you clean up.",
    )
    left = groups(lab) - before
    trial.expect(
        not left,
        "group-left",
        f"After your script the group {', '.join(sorted(left))} still exists.{complaint}",
        "rmdir removes a group, once nobody is in it. Who is in it, when the program has ended?",
    )


def _cpu_percent(text: str) -> float:
    quota, period = [*text.split(), "100000"][:2]
    return float("inf") if quota == "max" else 100 * int(quota) / int(period)


def _number(text: str) -> float:
    return float("inf") if text == "max" else float(text)


_FILES: dict[str, Callable[[str], float]] = {"memory.max": _number, "cpu.max": _cpu_percent, "pids.max": _number}


def _judge_value(trial: Trial, name: str, unit: str, wanted: float, found: Sequence[float], *, complaint: str) -> None:
    strictest = min(found, default=float("inf"))
    if abs(strictest - wanted) <= 0.02 * wanted:
        return
    short = name.partition(".")[0]
    said = f"{name} lets the program have {strictest:g} {unit}; expected {wanted:g}.{complaint}"
    if strictest == float("inf"):
        trial.wrong(f"no-{short}-limit", said, f"Which file of the group limits {short}, and what is written there?")
    trial.wrong(f"wrong-{short}-unit", said, f"In which unit does {name} count?")


def groups(lab: Laboratory) -> set[str]:
    """Return the guest's groups, the root left out."""
    return set(lab.run(f"find {ROOT} -mindepth 1 -type d").lines)


def judge_hog(trial: Trial, lab: Laboratory, memory_mib: int) -> None:
    """A program that wants too much memory is killed; one that keeps to its limit is not."""
    # tail keeps a line that has no end in memory: as much of it as it is given
    for wanted, dies in ((memory_mib * 3, True), (memory_mib // 4, False)):
        argv = ["sh", "-c", f"head -c {wanted << 20} /dev/zero | tail -n 1 | wc -c; echo $? end"]
        ran = run(trial, lab, script_of(trial, argv, memory_mib, 100, 50), 20)
        whole = str(wanted << 20) in ran.output
        if dies:
            trial.expect(
                not whole,
                "hog-survives",
                f"A program that took {wanted} MiB was not stopped by a limit of {memory_mib} MiB.",
                "memory.high slows down, memory.max stops.",
            )
        else:
            trial.expect(
                whole,
                "well-behaved-dies",
                f"A program that took {wanted} MiB of {memory_mib} ended early: {ran.output!r}",
            )
