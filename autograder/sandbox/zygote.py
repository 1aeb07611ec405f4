"""The grader's side: a zygote, and the boxes that come out of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from course.error import CapabilityError, CourseError, UsageError
from course.guest.cache import cache_dir
from course.machine.directory import SOCKET_PATH_LIMIT, PrivateDirectory
from course.machine.process import Process, spawn

from . import linux
from .keeper import Order
from .level import Isolation, Level, Limits
from .probing import closed, probe
from .usage import Usage, usage

MODULES = (
    "course", "course.check", "course.machine", "course.guest", "course.isa", "course.kernel", "course.container",
    "course.vcpu", "course.plot", "course.capability",
)  # fmt: skip
"""What kernels have imported before a student's first line."""
PLOTTING = ("matplotlib_inline.config", "matplotlib.figure", "matplotlib.backends.backend_svg")
"""The same where notebooks draw plots: half a second, and twice the memory to be copied by each fork."""

_FIRST_UID, _UIDS = 61_200, 3000
_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_START_S = 120
_END_S = 30


class SandboxError(CourseError):
    """A box could not be made, or ended before its kernel ran: says why."""


class Box:
    """A student's kernel, shut in; made by `Zygote.box`, ended by `kill` or the end of its ``with`` block.

    Attributes:
        pid: host pid of the first process of the box; with it ends all that is in the box.
        connection_file: of the kernel, for any Jupyter client.
        level: how it is shut in.
        run_dir: shared with the judge: the same path on both sides.
        uid: the user that the student's processes have on the host.
        namespaces: open descriptors of its namespaces, by kind ("pid", "user", "mnt" …), as far as it has its
            own and the grader could not open them itself.
    """

    def __init__(self, order: Order, level: Level, channel: socket.socket, said: Mapping[str, Any]) -> None:
        """Take over what a keeper has made; for `Zygote.box`.

        Args:
            order: what was asked for.
            level: how boxes are shut in.
            channel: to its keeper.
            said: its first message, with "fds" and "lease" beside what it told.
        """
        self.pid = int(said["pid"])
        self.namespaces: dict[str, int] = dict(zip(said["namespaces"], said["fds"], strict=True))
        self.connection_file = order.connection_file
        self.level = level
        self.run_dir = Path(order.run_dir)
        self.uid = order.uid or os.getuid()
        self._channel = channel
        self._lease: socket.socket | None = said["lease"]
        self._lock = threading.Lock()
        self._last = Usage(0.0, 0, 0)
        self._end: dict[str, Any] | None = None

    def __repr__(self) -> str:
        state = "alive" if self.alive() else f"ended, exit code {self.exitcode}"
        return f"<Box {self.pid}: {self.level.level}, {state}>"

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def alive(self) -> bool:
        """Tell whether the kernel still runs."""
        return not self.wait(0)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the box has ended, at most `timeout_s` seconds; return whether it has."""
        with self._lock:
            if self._end is None and _readable(self._channel, timeout_s):
                said = _received(self._channel)
                self._end = said or {"exit": -int(signal.SIGKILL), "why": "its keeper was killed"}
                self._release()
            return self._end is not None

    def _release(self) -> None:
        self._channel.close()
        if self._lease is not None:
            self._lease.close()
        while self.namespaces:
            os.close(self.namespaces.popitem()[1])

    @property
    def exitcode(self) -> int | None:
        """Exit status of the kernel, above 128 or negative for a signal; None while it runs."""
        return int(self._end.get("exit", 1)) if self.wait(0) and self._end else None

    @property
    def why(self) -> str:
        """Why the box was ended from outside, such as "memory: 2100 MiB, …"; empty if it was not."""
        return str(self._end.get("why", "")) if self.wait(0) and self._end else ""

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time, of all processes that were ever in the box."""
        if self.alive():
            self._last = usage(self.pid)
        elif self._end and "cpu_s" in self._end:
            return float(self._end["cpu_s"])
        return self._last.cpu_s

    @property
    def memory(self) -> int:
        """Bytes of memory that its processes have of their own; 0 after its end."""
        return usage(self.pid).memory if self.alive() else 0

    def interrupt(self) -> None:
        """Send SIGINT to the kernel: a running cell gets KeyboardInterrupt."""
        if self.alive():
            target = self.pid
            if self.level.level is Isolation.BUBBLEWRAP:  # whose own first process hands no signal on
                target = next(iter(linux.children(self.pid)), self.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal.SIGINT)

    def kill(self) -> None:
        """End all its processes and wait until they are gone; does nothing when they are."""
        with self._lock, contextlib.suppress(OSError):
            if self._end is None:
                self._channel.shutdown(socket.SHUT_WR)
        if not self.wait(_END_S):
            raise SandboxError(f"the box of process {self.pid} did not end within {_END_S} s of SIGKILL")


class Zygote:
    """A process with everything imported, from which boxes are forked; one per grader. A context manager.

    Attributes:
        level: how its boxes are shut in.
        missing: what could not be imported beforehand: "name: why", by line.
    """

    def __init__(
        self, level: Level | None = None, modules: Sequence[str] = MODULES + PLOTTING, *, wait: bool = True
    ) -> None:
        """Start it.

        Args:
            level: as `probe` returned it; None to ask it.
            modules: to import beforehand, beside IPython's kernel.
            wait: until it has imported them; else the first boxes do.
        """
        if level is None:
            level = probe()
        if not sys.platform.startswith("linux"):
            raise CapabilityError("a sandbox", f"{sys.platform} is not Linux", "Grade on Linux, or in a container.")
        self.level = level
        self.missing = ""
        self._modules = modules
        self._folder = PrivateDirectory()  # the next one removes it, should we be killed
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._orders: socket.socket | None = None
        self._owner = os.getpid()
        try:
            self._start(wait=wait)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Zygote {self._process.pid if self._process else 'closed'}: {self.level.level}>"

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote, and with it all boxes."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._orders is not None:
                self._orders.close()
                self._orders = None
            if self._process is not None:
                self._process.close()
        self._folder.remove()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def _start(self, *, wait: bool = True) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._orders = ours
            command = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in _environment().items())]
            command += [sys.executable, "-m", f"{__package__}.server", str(theirs.fileno()), ",".join(self._modules)]
            main = threading.current_thread() is threading.main_thread()
            self._process = spawn(command, pass_fds=(theirs.fileno(),), directly=main)
        if not wait:  # orders wait in the socket
            return
        if not _readable(ours, _START_S) or not (said := ours.recv(1 << 16).decode()):
            self._process.kill()
            raise SandboxError(f"the zygote did not start: {self._process.output.strip() or 'it said nothing'}")
        self.missing = "" if said == "ready" else said

    def box(
        self,
        workdir: Path,
        run_dir: Path,
        limits: Limits | None = None,
        *,
        forwards: Mapping[int, Path] | None = None,
        key: bytes | None = None,
    ) -> Box:
        """Start a kernel in a new box. Threads may call this at the same time.

        Args:
            workdir: the submission's folder; the kernel gets a copy of it, without notebooks.
            run_dir: an own folder for sockets and files that the box and the judge share; its path is short.
            limits: what the box may use.
            forwards: TCP port on the box's 127.0.0.1 → Unix socket in `run_dir`.
            key: signs the messages of the kernel's clients; None for a new one.

        Raises:
            SandboxError: the box could not be made.
            UsageError: a folder is missing or its path too long for sockets.
        """
        (self._folder.path / "root").mkdir(parents=True, exist_ok=True)  # who cleans /tmp may have taken it
        order = self._order(workdir, run_dir, limits or Limits(), forwards or {})
        _write_connection_file(order, key or os.urandom(16).hex().encode())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lease: socket.socket | None = None
        try:
            if os.getuid() == 0:
                uid, lease = _lease_uid()
                order = _given_to(order, uid)
            with theirs:
                self._send(order, theirs)
            if not _readable(ours, _START_S):
                raise SandboxError(f"a box said nothing within {_START_S} s; is this computer very busy?")
            data, fds, _, _ = socket.recv_fds(ours, 1 << 16, 8)
            said = json.loads(data) if data else {}
            if "pid" not in said:
                why = said.get("error") or f"its keeper was killed; the zygote said {self._output()!r}"
                raise SandboxError(f"a box could not be made at level {self.level.level}: {why}")
        except BaseException:
            ours.close()
            if lease:
                lease.close()
            raise
        return Box(order, self.level, ours, {**said, "fds": fds, "lease": lease})

    def _output(self) -> str:
        return self._process.output[-500:] if self._process else ""

    def _send(self, order: Order, channel: socket.socket) -> None:
        with self._lock:
            if self._orders is None:
                raise UsageError("this zygote is closed; make another one")
            try:
                socket.send_fds(self._orders, [order.encode()], [channel.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                self._restart()
                socket.send_fds(self._orders, [order.encode()], [channel.fileno()])

    def _restart(self) -> None:
        """Replace a zygote that was killed."""
        assert self._orders is not None
        self._orders.close()
        if self._process is not None:
            self._process.close()
        self._start()

    def _order(self, workdir: Path, run_dir: Path, limits: Limits, forwards: Mapping[int, Path]) -> Order:
        work, run = Path(workdir).absolute(), Path(run_dir).absolute()
        for folder in (work, run):
            if not folder.is_dir():
                raise UsageError(f"there is no folder {folder}; expected the submission's, and one for sockets")
        if len(os.fsencode(run)) + len("/kernel-1") > SOCKET_PATH_LIMIT:
            raise UsageError(f"{run} is too long for the paths of sockets; expected at most {SOCKET_PATH_LIMIT} bytes")
        return Order(
            isolation=self.level.level,
            userns=self.level.userns,
            root=str(self._folder.path / "root"),
            work=str(work),
            run_dir=str(run),
            connection_file=str(run / "kernel.json"),
            uid=0,
            forwards={str(port): str(path) for port, path in forwards.items()},
            limits=limits,
        )


def _environment() -> dict[str, str]:
    """Return what a zygote knows of our environment; students may read it."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG", "TMPDIR", "MPLCONFIGDIR") if name in os.environ}
    checkout = str(Path(__file__).resolve().parents[2])
    places = [checkout, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, places))),
        "COURSE_CACHE": str(cache_dir()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _write_connection_file(order: Order, key: bytes) -> None:
    """Write down where the kernel of a box is to listen, and its key."""
    from jupyter_client.connect import write_connection_file  # noqa: PLC0415 - half the time of this package's import

    ports: dict[str, Any] = {f"{name}_port": number for number, name in enumerate(_CHANNELS, start=1)}
    write_connection_file(order.connection_file, transport="ipc", ip=f"{order.run_dir}/kernel", key=key, **ports)


def sockets(run_dir: Path) -> list[Path]:
    """Return the paths of the sockets that the kernel of a box listens on once it is ready."""
    return [run_dir / f"kernel-{number}" for number in range(1, len(_CHANNELS) + 1)]


def _lease_uid() -> tuple[int, socket.socket]:
    """Return a user id that nobody has on this computer, and what keeps it ours: a bound name, freed by our death."""
    for offset in range(_UIDS):
        uid = _FIRST_UID + (os.getpid() + offset) % _UIDS
        lease = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lease.bind(f"\0course-box-uid-{uid}")
            pwd.getpwuid(uid)
        except OSError:
            lease.close()
        except KeyError:
            return uid, lease
        else:
            lease.close()
    raise SandboxError(f"all user ids from {_FIRST_UID} to {_FIRST_UID + _UIDS} are taken; end some graders")


def _given_to(order: Order, uid: int) -> Order:
    """Let a user into the run directory: it, and the connection file, become his."""
    if order.isolation != Isolation.NAMESPACES and (folder := closed(Path(order.run_dir).parent)):
        raise UsageError(f"{folder} lets nobody through to {order.run_dir}; expected a folder open to all")
    for path in (order.run_dir, order.connection_file):
        os.chown(path, uid, uid)
    return dataclasses.replace(order, uid=uid)


def _readable(channel: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _received(channel: socket.socket) -> dict[str, Any] | None:
    try:
        data = channel.recv(1 << 16)
    except OSError:
        return None
    return json.loads(data) if data else None
