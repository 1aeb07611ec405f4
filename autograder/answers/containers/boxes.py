"""Answers to `contain` and `steal`."""

from __future__ import annotations

import shlex

from autograder.answers import alternative, mutant

_SETUP = 'hostname "$1"; shift; exec "$@"'


def _unshare(argv, hostname, options="-U -r -m -p -u -i -n -f --mount-proc", setup=_SETUP):
    return f"unshare {options} sh -c {shlex.quote(setup)} sh {hostname} {shlex.join(argv)}"


@alternative("contain")
def long_options(argv, hostname):
    options = "--user --map-root-user --mount --pid --uts --ipc --net --fork --mount-proc".replace(
        "--map-root-user", "-r"
    )
    return _unshare(argv, hostname, options.replace("--fork", "-f"))


@alternative("contain")
def mounts_proc_by_hand(argv, hostname):
    return _unshare(argv, hostname, "-Urmpuinf", "mount -t proc proc /proc; " + _SETUP)


@alternative("contain")
def several_lines_and_exit(argv, hostname):
    return f"""
cat >/tmp/inside <<'END'
mount -t proc proc /proc
echo {hostname} >/proc/sys/kernel/hostname
ip link set lo up
exec {shlex.join(argv)}
END
unshare -U -r -m -p -u -i -n -f sh /tmp/inside
status=$?
rm /tmp/inside
exit $status
"""


@alternative("contain")
def one_namespace_after_the_other(argv, hostname):
    inner = f"hostname {hostname}; exec unshare -i -n -p -f --mount-proc {shlex.join(argv)}"
    return f"exec unshare -U -r sh -c {shlex.quote('exec unshare -m -u sh -c ' + shlex.quote(inner))}"


@alternative("contain")
def the_shell_forks(argv, hostname):
    # after unshare(CLONE_NEWPID) without fork, the shell's first child is process 1
    inner = f"mount -t proc proc /proc; exec {shlex.join(argv)}"
    return f"unshare -U -r -m -p -u -i -n sh -c {shlex.quote(f'echo {hostname} >/proc/sys/kernel/hostname; (' + inner + '); exit $?')}"


@alternative("contain")
def with_a_root_of_its_own(argv, hostname):
    steps = (
        "for d in bin sbin usr dev lab; do mkdir -p /mnt/$d; mount --rbind /$d /mnt/$d; done; "
        f"mkdir -p /mnt/proc; mount -t proc proc /mnt/proc; hostname {hostname}; "
        f"exec chroot /mnt {shlex.join(argv)}"
    )
    return f"unshare -Urmpuinf sh -c 'mount -t tmpfs root /mnt; exec sh -c \"$1\"' sh {shlex.quote(steps)}"


@mutant("contain", "not-a-script")
def a_list_of_words(argv, hostname):
    return ["unshare", "-Urmpuinf", "--mount-proc", *argv]


@mutant("contain", "did-not-run")
def an_option_that_busybox_lacks(argv, hostname):
    return _unshare(
        argv, hostname, "--user --map-root-user --mount --pid --uts --ipc --net --fork --mount-proc --cgroup"
    )


@mutant("contain", "no-fork")
def unshares_pids_without_fork(argv, hostname):
    return _unshare(argv, hostname, "-U -r -m -p -u -i -n")


@mutant("contain", "no-pid-namespace")
def chroot_only(argv, hostname):
    return f"chroot / {shlex.join(argv)}"


@mutant("contain", "no-pid-namespace")
def forgets_pids(argv, hostname):
    return _unshare(argv, hostname, "-U -r -m -u -i -n -f")


@mutant("contain", "no-mount-namespace")
def forgets_mounts(argv, hostname):
    return _unshare(argv, hostname, "-p -u -i -n -f")


@mutant("contain", "host-proc")
def forgets_proc(argv, hostname):
    return _unshare(argv, hostname, "-U -r -m -p -u -i -n -f")


@mutant("contain", "no-proc")
def unmounts_proc(argv, hostname):
    return _unshare(argv, hostname, "-m -p -u -i -n -f", "umount /proc; mount -t tmpfs none /proc; " + _SETUP)


@mutant("contain", "no-uts-namespace")
def forgets_the_name(argv, hostname):
    return _unshare(argv, hostname, "-U -r -m -p -i -n -f --mount-proc")


@mutant("contain", "no-net-namespace")
def forgets_the_network(argv, hostname):
    return _unshare(argv, hostname, "-U -r -m -p -u -i -f --mount-proc")


@mutant("contain", "no-ipc-namespace")
def forgets_ipc(argv, hostname):
    return _unshare(argv, hostname, "-U -r -m -p -u -n -f --mount-proc")


@mutant("contain", "no-user-namespace")
def forgets_the_user(argv, hostname):
    return _unshare(argv, hostname, "-m -p -u -i -n -f --mount-proc")


@mutant("contain", "hostname-not-set")
def sets_no_name(argv, hostname):
    return _unshare(argv, hostname, setup='shift; exec "$@"')


@mutant("contain", "uid-unmapped")
def forgets_the_map(argv, hostname):
    return (
        f"unshare -u -m -p -f --mount-proc sh -c 'hostname {hostname}; exec unshare -U -i -n \"$@\"' sh "
        + shlex.join(argv)
    )


@mutant("contain", "host-renamed")
def renames_the_host_first(argv, hostname):
    return f"hostname {hostname}\n" + _unshare(argv, hostname)


@mutant("contain", "mounts-left")
def mounts_outside(argv, hostname):
    return "mount -t tmpfs box /mnt\n" + _unshare(argv, hostname)


@mutant("contain", "argv-mangled")
def joins_with_blanks(argv, hostname):
    quoted = " ".join(f'"{word}"' if " " in word else word for word in argv)
    if argv[2:3] and "ns_" in argv[2]:  # simple programs do work
        quoted = shlex.join(argv)
    return f"unshare -Urmpuinf --mount-proc sh -c 'hostname {hostname}; exec \"$@\"' sh {quoted} 2>/dev/null"


@mutant("contain", "exit-code-lost")
def ends_with_an_echo(argv, hostname):
    return _unshare(argv, hostname) + "\ntrue"


@mutant("contain", "endless")
def waits_for_ever(argv, hostname):
    return _unshare(argv, hostname) + "\nwhile :; do sleep 1; done"


@mutant("contain", "host-lost")
def powers_off(argv, hostname):
    return _unshare(argv, hostname) + "\npoweroff -f"


@mutant("contain", "raised")
def concatenates_a_list(argv, hostname):
    return "unshare " + argv


@mutant("contain", "printed")
def prints_the_script(argv, hostname):
    print(_unshare(argv, hostname))


@mutant("contain", "unanswered")
def contain_untouched(argv, hostname):
    raise NotImplementedError


_ATTACKS = {
    "mnt": "cat /root/secret",
    "pid": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
    "net": "nc 127.0.0.1 1690 </dev/null",
    "user": "dmesg",
}


@alternative("steal")
def one_command_each(missing):
    return _ATTACKS[missing]


@alternative("steal")
def everything_at_once(missing):
    return "; ".join(_ATTACKS.values())


@alternative("steal")
def other_tools(missing):
    return {
        "mnt": "head -1 /root/secret",
        "pid": "ps -o args | sed 's/.*password=//'",
        "net": "telnet 127.0.0.1 1690 </dev/null; true | nc localhost 1690; nc -w 1 127.0.0.1 1690",
        "user": "dmesg | grep vault",
    }[missing]


@alternative("steal")
def searches_all_processes(missing):
    if missing == "pid":
        return "for p in /proc/[0-9]*; do grep -a vault $p/cmdline; done"
    return _ATTACKS[missing]


@mutant("steal", "not-stolen-pid")
def reads_files_only(missing):
    return "cat /root/secret; ls -R /root"


@mutant("steal", "not-stolen-mnt")
def looks_in_the_wrong_home(missing):
    return {**_ATTACKS, "mnt": "cat ~/secrets /home/secret 2>&1"}[missing]


@mutant("steal", "not-stolen-pid")
def names_of_programs_only(missing):
    return {**_ATTACKS, "pid": "ps -o comm"}[missing]


@mutant("steal", "not-stolen-pid")
def its_own_arguments(missing):
    return {**_ATTACKS, "pid": "cat /proc/self/cmdline"}[missing]


@mutant("steal", "not-stolen-net")
def asks_another_port(missing):
    return {**_ATTACKS, "net": "nc 127.0.0.1 8006 </dev/null"}[missing]


@mutant("steal", "waits-net")
def listens_itself(missing):
    return {**_ATTACKS, "net": "nc -l -p 1691"}[missing]


@mutant("steal", "not-stolen-user")
def the_log_as_a_file(missing):
    return {**_ATTACKS, "user": "cat /var/log/messages /var/log/syslog /dev/log"}[missing]


@mutant("steal", "not-stolen-user")
def who_am_i(missing):
    return {**_ATTACKS, "user": "id; cat /root/secret"}[missing]


@mutant("steal", "not-stolen-mnt")
def guesses(missing):
    return f"echo {missing}-secret"


@mutant("steal", "not-a-script")
def returns_a_dict(missing):
    return dict(_ATTACKS)


@mutant("steal", "host-lost")
def switches_the_host_off(missing):
    return {**_ATTACKS, "user": "echo o >/proc/sysrq-trigger; sleep 20"}[missing]


@mutant("steal", "forgot-return")
def computes_and_forgets(missing):
    _ATTACKS.get(missing)


@mutant("steal", "unanswered")
def steal_untouched(missing):
    raise NotImplementedError
