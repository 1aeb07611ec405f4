"""The two processes between the zygote and a student's kernel.

::

    zygote ── fork ──▶ keeper        on the host, trusted: reports, watches, ends
                        └─ fork ──▶ init          first process of the box's namespaces; builds them, then is nobody
                                     ├─ fork ──▶ forwarders
                                     └─ fork ──▶ the kernel, and what the student starts

Each dies with its parent, and with the init dies the whole namespace. What the keeper tells over its channel, one JSON
message each: ``{"pid", "namespaces"}`` once the kernel is about to run, with the namespaces as descriptors beside it,
or ``{"error"}``; and at the end ``{"exit", "cpu_s", "why"}``.
Whoever closes the other side of the channel, or shuts it down, ends the box.

The init waits for signals and does two things: SIGINT goes to the kernel, and dead children are collected. It runs as
the student, without rights; students cannot end it, since the kernel drops signals to the first process of a namespace.

Where there are no namespaces (level landlock), the init is an ordinary process; then the keeper, to whom all orphans
are given, ends what is left. In the place of namespaces it hands out a door (see `door`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from . import bubblewrap, cgroup, door, inside, landlock, linux, seccomp
from .level import Isolation, Limits
from .root import SYSFS, WORK, Plan, copy_submission
from .usage import disk_usage, memory_files, threads_of, usage

_WATCH_MS = 100
_SLOWLY = 5  # every so many times
_MAX_FILES = 20_000
_SPARE_MIB = 128
_IPC_LIMITS = {"shmall": 16_384, "msgmni": 64, "msgmax": 8192}
_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40


@dataclasses.dataclass(frozen=True)
class Order:
    """One box, as the grader asks for it.

    Attributes:
        isolation: how it is shut in.
        userns: namespaces are made in a user namespace.
        root: an empty folder to mount the box's root on.
        work: the submission's folder.
        run_dir: shared with the judge.
        connection_file: of the kernel, in `run_dir`.
        uid: who lives in the box, when the grader is root; else 0 for "the same as the grader".
        forwards: TCP port inside → Unix socket in `run_dir`.
        limits: what it may use.
    """

    isolation: str
    userns: bool
    root: str
    work: str
    run_dir: str
    connection_file: str
    uid: int
    forwards: Mapping[str, str]
    limits: Limits

    @classmethod
    def decode(cls, data: bytes) -> Order:
        """Read what `encode` wrote."""
        fields: dict[str, Any] = json.loads(data)
        return cls(**{**fields, "limits": Limits(**fields["limits"])})

    def encode(self) -> bytes:
        """Return it as one message."""
        return json.dumps(dataclasses.asdict(self)).encode()


def keep(order: Order, channel: socket.socket, plan: Plan) -> NoReturn:
    """Make a box, watch it, end it. Runs in a fresh fork of the zygote, and ends it."""
    try:
        linux.die_with_parent()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        linux.prctl(linux.PR_SET_DUMPABLE, 0 if os.getuid() == 0 else 1)
        if order.isolation == Isolation.NAMESPACES:
            _enter_namespaces(order)
        _Keeper(order, channel, plan).run()
    except BaseException as error:
        _send(channel, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    os._exit(0)


_HANDED = ("mnt", "net", "ipc", "uts")
"""Namespaces that only the init itself can open where a user namespace is around them."""
REHEARSED = b"as it should be"


def rehearse(order: Order, channel: socket.socket, plan: Plan) -> NoReturn:
    """Go through all steps of a box but the kernel, and say on the channel how it went."""
    try:
        os.setsid()
        if order.isolation == Isolation.NAMESPACES:
            _enter_namespaces(order)
        init = os.fork()
        if init:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(init, 0)[1]) & 0xFF)
        linux.die_with_parent()
        if order.isolation == Isolation.NAMESPACES:
            _build_namespaces(order, plan)
        else:
            _build_folders(order, plan)
        _become_nobody(order, plan)
        said = _wrong_with_nobody().encode() or REHEARSED
    except BaseException as error:
        said = f"{type(error).__name__}: {error}".encode()
    channel.send(said)
    os._exit(0)


def _wrong_with_nobody() -> str:
    """Return what this process still is that it must not be; empty when nothing."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if 0 in (os.getuid(), os.geteuid(), os.getgid()):
        return "the process inside would be root"
    if int(status["CapEff"], 16) or int(status["CapPrm"], 16):
        return f"the process inside would have capabilities: {status['CapPrm']}"
    if status.get("Seccomp") != "2" or status.get("NoNewPrivs") != "1":
        return "the process inside would have no filter of system calls"
    return ""


def _send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        channel.send(json.dumps(message).encode())


def _enter_namespaces(order: Order) -> None:
    flags = linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    if not order.userns:
        linux.unshare(flags)
        return
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        linux.unshare(flags | linux.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
            Path("/proc/self", name).write_text(text)
        return
    # Only a process outside may map more than one user; a child waits there and does it.
    me, (read, write) = os.getpid(), os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(write)
        os.read(read, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{me}", name).write_text(f"0 0 1\n{order.uid} {order.uid} 1\n")
        os._exit(0)
    linux.unshare(flags | linux.CLONE_NEWUSER)
    os.close(write)
    os.close(read)
    if os.waitpid(mapper, 0)[1] != 0:
        raise OSError("the users of a user namespace could not be mapped")


class _Keeper:
    def __init__(self, order: Order, channel: socket.socket, plan: Plan) -> None:
        self._order, self._channel, self._plan = order, channel, plan
        self._why = ""
        self._cpu_s = 0.0
        self._files = 0

    def run(self) -> None:
        said, say = os.pipe()  # closed by exec
        limits = self._order.limits
        # The spare room lets the watch, which knows the reason, come first; and files in memory count here too.
        groups = cgroup.make(os.getpid(), limits.memory_mib + limits.disk_mib + _SPARE_MIB << 20, limits.processes + 8)
        ours, theirs = socket.socketpair()
        init = os.fork()
        if init == 0:
            os.close(said)
            ours.close()
            self._channel.close()
            _enter_groups(groups)
            _become_init(self._order, self._plan, say, theirs)
        os.close(say)
        theirs.close()
        with os.fdopen(said, "rb") as pipe:
            words = pipe.read().decode(errors="replace")  # to its end: the kernel is about to run
        first = init
        if words.isdecimal():
            first = int(words)
        elif words:
            os.kill(init, signal.SIGKILL)
            raise RuntimeError(words)
        with ours:
            _, handed, *_ = socket.recv_fds(ours, 1, len(_HANDED))
        self._report(first, handed)
        self._watch(init)
        _, status, resources = os.wait4(init, 0)
        self._sweep()
        cgroup.remove(groups)
        # Of processes that were killed with their namespace nobody collects the time: what was seen last counts.
        seconds = max(resources.ru_utime + resources.ru_stime, self._cpu_s)
        _send(self._channel, {"exit": os.waitstatus_to_exitcode(status), "cpu_s": seconds, "why": self._why})

    def _report(self, init: int, handed: list[int]) -> None:
        """Tell the grader the pid, and hand it the namespaces: it could not open them itself."""
        names = ("door",) if self._order.isolation == Isolation.LANDLOCK else _HANDED
        fds: dict[str, int] = dict(zip(names, handed, strict=False))
        if self._order.isolation in (Isolation.NAMESPACES, Isolation.BUBBLEWRAP):
            own = self._order.isolation == Isolation.NAMESPACES
            path = "/proc/self/ns/pid_for_children" if own else f"/proc/{init}/ns/pid"
            fds["pid"] = os.open(path, os.O_RDONLY)
            if self._order.userns or not own:  # to enter the one takes rights in the other
                fds["user"] = fcntl.ioctl(fds["pid"], _NS_GET_USERNS)
        message = json.dumps({"pid": init, "namespaces": list(fds)}).encode()
        with contextlib.suppress(OSError):
            socket.send_fds(self._channel, [message], list(fds.values()))
        for fd in fds.values():
            os.close(fd)

    def _watch(self, init: int) -> None:
        """Return when the init has ended, whoever ended it."""
        ended = os.pidfd_open(init)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        for beat in range(sys.maxsize):
            ready = {fd for fd, _ in poll.poll(_WATCH_MS)}
            if ended in ready:
                break
            excess = self._excess(init, beat)
            self._why = "asked for" if ready else excess
            if self._why:
                os.kill(init, signal.SIGKILL)
                break
        os.close(ended)

    def _excess(self, init: int, beat: int) -> str:
        """Say what the box uses too much of; empty when nothing."""
        limits = self._order.limits
        seen = usage(init)
        self._cpu_s = max(self._cpu_s, seen.cpu_s)
        if beat % _SLOWLY == 0:
            self._files = memory_files(init)
        used = seen.memory + self._files >> 20
        if used > limits.memory_mib:
            return f"memory: {used} MiB, at most {limits.memory_mib} MiB are allowed"
        if beat % _SLOWLY == 0:
            size, files = disk_usage(self._order.run_dir, limit=_MAX_FILES)
            allowed = limits.run_mib + (0 if self._order.isolation == Isolation.NAMESPACES else limits.disk_mib)
            if size >> 20 > allowed or files >= _MAX_FILES:
                return f"disk: {size >> 20} MiB in {files} files, at most {allowed} MiB are allowed"
        return ""

    def _sweep(self) -> None:
        """End what outlived the init; only without a namespace is there anything."""
        end = time.monotonic() + 5
        while (left := linux.descendants(os.getpid())[1:]) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _enter_groups(groups: list[Path]) -> None:
    for entrance in groups:
        with contextlib.suppress(OSError):
            entrance.write_text("0")


def _become_init(order: Order, plan: Plan, say: int, keeper: socket.socket) -> NoReturn:
    """Build the box around this process, start the kernel in it, and wait for it."""
    try:
        linux.die_with_parent()
        os.umask(0o022)
        null = os.open("/dev/null", os.O_RDWR)
        if order.isolation == Isolation.NAMESPACES:
            environment, work = _build_namespaces(order, plan), WORK
            if order.userns:  # nobody else may open it; who is root outside can
                _hand_over(keeper)
        else:
            environment, work = _build_folders(order, plan)
        if order.isolation == Isolation.BUBBLEWRAP:
            keeper.close()
            _become_bubblewrap(order, plan, environment, work, say)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        _become_nobody(order, plan)
        # Becoming somebody else had cleared the death signal: a keeper that ended in between has hung up.
        if select.select([keeper], [], [], 0)[0]:
            os._exit(1)
        if order.isolation == Isolation.LANDLOCK:
            _leave_doorkeeper(keeper, environment, say)
        keeper.close()
        signals = {signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        for port, path in order.forwards.items():
            _start_forwarder(int(port), path, say)
        kernel = os.fork()
        if kernel == 0:
            _become_kernel(order.connection_file, work, environment, say)
    except BaseException as error:
        os.write(say, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os.close(say)
    os._exit(_wait_for(kernel, signals))


def _hand_over(keeper: socket.socket) -> None:
    """Send the keeper this process's namespaces, for judges to step into."""
    own = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in _HANDED]
    socket.send_fds(keeper, [b"n"], own)
    for fd in own:
        os.close(fd)


def _leave_doorkeeper(keeper: socket.socket, environment: Mapping[str, str], say: int) -> None:
    """Fork what lets judges in, and send the keeper the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(keeper, [b"n"], [theirs.fileno()])
        if os.fork() == 0:
            keeper.close()
            theirs.close()
            os.close(say)
            linux.die_with_parent()
            door.keep(ours, environment)


def _become_bubblewrap(order: Order, plan: Plan, environment: Mapping[str, str], work: str, say: int) -> NoReturn:
    """Start bubblewrap as the student, tell the pid of the first process in its box, and wait for its end."""
    _become_user(order)
    linux.die_with_parent()
    info, tell = os.pipe()
    complaints = os.memfd_create("complaints")
    fds = {"--seccomp": bubblewrap.filter_fd(), "--info-fd": tell}
    inner = bubblewrap.kernel_command(
        connection_file=order.connection_file,
        work=work,
        environment=dict(environment),
        forwards=dict(order.forwards),
        limits=order.limits.by_process(),
    )
    os.set_inheritable(tell, True)
    line = bubblewrap.command(plan, order.run_dir, environment, inner, fds)
    pid = os.fork()
    if pid == 0:
        try:
            linux.die_with_parent()
            null = os.open("/dev/null", os.O_RDWR)
            for fd, standard in ((null, 0), (null, 1), (complaints, 2)):
                os.dup2(fd, standard)
            os.execvp(line[0], line)  # noqa: S606 - a list, no shell
        finally:
            os._exit(127)
    os.close(tell)
    first = bubblewrap.child_pid(info)
    os.write(say, str(first).encode() if first else os.pread(complaints, 2000, 0) or b"bwrap ended without a word")
    os.close(say)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _become_user(order: Order) -> None:
    if order.uid:
        os.setgroups([])
        os.setresgid(order.uid, order.uid, order.uid)
        os.setresuid(order.uid, order.uid, order.uid)


def _build_namespaces(order: Order, plan: Plan) -> dict[str, str]:
    linux.unshare(linux.CLONE_NEWNS)
    limits = order.limits
    uid = order.uid or os.getuid()
    plan.build(order.root, order.work, order.run_dir, uid=uid, disk_mib=limits.disk_mib, kvm=limits.kvm)
    for name, value in _IPC_LIMITS.items():  # System V's memory is in no folder and, unless mapped, in no process
        with contextlib.suppress(OSError):
            Path("/proc/sys/kernel", name).write_text(str(value))
    socket.sethostname("box")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING))
    return plan.environment()


def _build_folders(order: Order, plan: Plan) -> tuple[dict[str, str], str]:
    """Give a kernel without a root of its own a home in the run directory."""
    home, course = Path(order.run_dir, "home"), Path(plan.course)
    for name in ("tmp", "site"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "site" / "course").symlink_to(course)
    copy_submission(order.work, str(home / "work"))
    cache = Path(plan.cache)
    if order.isolation == Isolation.LANDLOCK and cache.is_dir():  # the host's, which may only be read there
        cache = home / "cache"
        for entry, _ in plan.links():
            link = cache / Path(entry).relative_to(plan.cache)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(entry)
    if order.uid:
        for folder, folders, files in os.walk(home):
            for name in (".", *folders, *files):
                os.chown(Path(folder, name), order.uid, order.uid, follow_symlinks=False)
    environment = plan.environment()
    places = [str(home / "site"), *(p for p in sys.path if p and Path(p) != course.parent)]
    own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "IPYTHONDIR": str(home / ".ipython")}
    own["COURSE_CACHE"] = str(cache)
    return {**environment, **own, "PYTHONPATH": os.pathsep.join(places)}, str(home / "work")


def _become_nobody(order: Order, plan: Plan) -> None:
    """Give up identity, rights and system calls; from here on this process is the student's."""
    linux.bound_capabilities()
    _become_user(order)
    inside.limit(order.limits.by_process(others=_others(order)))
    linux.drop_capabilities()
    linux.no_new_privileges()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.die_with_parent()
    families: tuple[int, ...] = seccomp.FAMILIES
    if order.isolation == Isolation.LANDLOCK:
        landlock.restrict(*_folders(order, plan))
        families = (seccomp.UNIX, seccomp.NETLINK)
    try:
        seccomp.install(families)
    except OSError:
        if order.isolation != Isolation.NONE:
            raise


def _others(order: Order) -> int:
    """Return how many processes count against the box's limit and are not in it.

    The limit counts those of a user. A box has a user of its own where the grader is root, or (since Linux 5.14) where
    it has a user namespace.
    """
    new = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (5, 14)
    if order.uid or (order.isolation == Isolation.NAMESPACES and new):
        return 0
    return threads_of(os.getuid())


def _folders(order: Order, plan: Plan) -> tuple[list[str], list[str], list[str]]:
    """Return what may be read, written and listed at level landlock."""
    inner = [str(path) for path in Path(plan.course).iterdir() if path.name not in ("lessons", "locale")]
    system = ["/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache"]
    system += ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/proc", *filter(os.path.isdir, SYSFS)]
    readable = [path for path in plan.readable if path != plan.course]
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")]
    return [*readable, *inner, *system, plan.cache], [order.run_dir, *devices], [plan.course]


def _start_forwarder(port: int, path: str, say: int) -> None:
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.close(read)
            os.close(say)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            inside.forward(port, path, write)
        finally:
            os._exit(1)
    os.close(write)
    opened = os.read(read, 1)
    os.close(read)
    if not opened:
        raise OSError(f"port {port} could not be opened inside the box")


def _become_kernel(connection_file: str, work: str, environment: Mapping[str, str], say: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        os.close(say)
        inside.start_kernel(connection_file, work, environment)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(status)


def _wait_for(kernel: int, signals: set[signal.Signals]) -> int:
    """Pass on interrupts and collect the dead until the kernel is among them; return its exit status."""
    while True:
        if signal.sigwait(signals) == signal.SIGINT:
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernel, signal.SIGINT)
            continue
        with contextlib.suppress(ChildProcessError):
            while True:
                dead, how = os.waitpid(-1, os.WNOHANG)
                if dead == kernel:
                    status = os.waitstatus_to_exitcode(how)
                    return status if status >= 0 else 128 - status
                if not dead:
                    break
