"""Processes that judge: one that waits with everything imported, and a fork of it for each submission.

    grader ── Court ──────▶ usher (this module as a program): imports course and checks once
             fork request ▶   └─ judge of one submission: a `Session`, in the submission's run directory
             test cells  ◀─────▶ JSON lines over a socket of its own

The grader itself may be nbgrader's process, with threads, a database connection and perhaps a running event loop; it is
not forked, and no test can end or block it: a judge that takes too long is killed with all that it started. The
judge's machines and files lie in the run directory (``TMPDIR``), where the student's process finds them by their
address. The usher and its judges end when their grader does, however it does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course.check import outside
from course.error import CourseError

from . import services
from .entering import enter, place
from .session import Result, Session, Test

if TYPE_CHECKING:
    from .sandbox import Box

_START_S = 120.0
MAX_LINE_BYTES = 64 << 20
_MAX_FDS = 8


class JudgeError(CourseError):
    """The judge of a submission ended, or had not finished when its time was over."""


class Court:
    """Starts judges; a context manager. One for each grading process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            root = str(Path(__file__).parents[1])
            paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
            self._usher: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-P", "-m", "autograder.judge", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        self._wire = _Wire(ours)
        self._owner = os.getpid()

    def __enter__(self) -> Court:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the usher and every judge."""
        if os.getpid() == self._owner:
            self._wire.close()
            if self._usher is None:
                return
            try:
                self._usher.wait(5)
            except subprocess.TimeoutExpired:
                self._usher.kill()
                self._usher.wait()

    def adopt(self) -> None:
        """Get an usher of its own for a fork of the process that made this court: a fork of its usher, as warm."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, contextlib.suppress(OSError):  # an usher that has ended meanwhile shows below
            self._wire.send({"usher": True}, theirs.fileno())  # one message: it cannot mix with a sibling's
        self._wire.close()
        self._wire, self._usher, self._owner = _Wire(ours), None, os.getpid()

    @property
    def open(self) -> bool:
        """False once the usher has ended."""
        if os.getpid() != self._owner:
            return False
        return self._usher.poll() is None if self._usher else self._wire.open

    def judge(self, run_dir: Path, *, modules: Iterable[str] = (), box: Box | None = None) -> Judge:
        """Fork a judge for one submission.

        Args:
            run_dir: where its machines and files lie; it has to exist.
            modules: what its tests import, so that it is imported once for all submissions.
            box: the box of the student's kernel, to be entered before anything else.

        Raises:
            JudgeError: the usher has ended.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        order: dict[str, Any] = {"run_dir": str(run_dir), "modules": sorted(set(modules)), "where": None}
        fds: list[int] = []
        with theirs:
            try:
                if box is not None:
                    order["where"], fds = place(box)
                self._wire.send(order, theirs.fileno(), *fds)
                said = self._wire.receive(time.monotonic() + _START_S)
                if "pid" not in said:
                    raise JudgeError(str(said.get("error")))
                pid = int(said["pid"])
            except (OSError, JudgeError) as error:
                ours.close()
                raise JudgeError(f"no judge could be started: {error}") from None
            finally:
                for fd in fds:
                    os.close(fd)
        return Judge(self, pid, _Wire(ours))

    def end(self, pid: int) -> None:
        """Kill a judge and what it started."""
        with contextlib.suppress(OSError, JudgeError):
            self._wire.send({"kill": pid})
            self._wire.receive(time.monotonic() + _START_S)


class Judge:
    """The judge of one submission, seen from the grader; a context manager.

    Attributes:
        alive: False once it has ended or was ended.
    """

    def __init__(self, court: Court, pid: int, wire: _Wire) -> None:
        self._court = court
        self._pid = pid
        self._wire = wire
        self.alive = True

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, test: Test, timeout_s: float) -> Result:
        """Run a test cell.

        Raises:
            JudgeError: the judge ended or was not done in time; it is gone then.
        """
        try:
            self._wire.send(dataclasses.asdict(test))
            return Result(**self._wire.receive(time.monotonic() + timeout_s))
        except (OSError, JudgeError, TypeError) as error:
            self.close()
            raise JudgeError(str(error)) from None

    def close(self) -> None:
        """End it, with all that it started."""
        if self.alive:
            self.alive = False
            self._wire.close()
            self._court.end(self._pid)


class _Wire:
    """JSON lines over a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = bytearray()

    def send(self, value: Mapping[str, Any], *fds: int) -> None:
        """Send one line, with descriptors."""
        data = json.dumps(value).encode() + b"\n"
        self._end.settimeout(None)
        if fds:
            sent = socket.send_fds(self._end, [data], list(fds))
            data = data[sent:]
        self._end.sendall(data)

    def receive(self, deadline: float | None = None) -> dict[str, Any]:
        """Receive one line.

        Raises:
            JudgeError: the other side has ended, has not spoken by `deadline` (monotonic seconds), or is not a judge.
        """
        return self.receive_fds(deadline)[0]

    def receive_fds(self, deadline: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """Receive one line and the descriptors that came with it."""
        fds: list[int] = []
        while (at := self._rest.find(b"\n")) < 0:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise JudgeError("it was not done in time")
            self._end.settimeout(left)
            try:
                data, got, _, _ = socket.recv_fds(self._end, 1 << 16, _MAX_FDS)
            except TimeoutError:
                continue
            fds += got
            if not data or len(self._rest) > MAX_LINE_BYTES:
                raise JudgeError("it ended" if not data else "it says too much")
            self._rest += data
        line, self._rest = bytes(self._rest[:at]), self._rest[at + 1 :]
        value = json.loads(line)
        if not isinstance(value, dict):
            raise JudgeError("it says what no judge says")
        return value, fds

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    @property
    def open(self) -> bool:
        """False once the other end was closed."""
        self._end.settimeout(0)
        try:
            return bool(self._end.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False


def main(fd: int) -> None:
    """Be the usher: serve orders at the socket `fd` until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grader, which closes the socket
    _make_shell()
    _make_ready()
    wire = _Wire(socket.socket(fileno=fd))
    judges: set[int] = set()
    guests: dict[int, int] = {}  # judges that are no children of ours: pid → pidfd
    with contextlib.suppress(JudgeError, OSError):
        while True:
            order, fds = wire.receive_fds()
            if "usher" in order:
                if os.fork() == 0:
                    _dies_with_parent()
                    wire.close()
                    wire, judges, guests = _Wire(socket.socket(fileno=fds[0])), set(), {}
                else:
                    os.close(fds[0])
                continue
            judges -= {pid for pid in judges if os.waitpid(pid, os.WNOHANG)[0]}
            if "kill" in order:
                if order["kill"] in judges:
                    _kill(order["kill"])
                    judges.discard(order["kill"])
                elif order["kill"] in guests:
                    _kill_guest(order["kill"], guests.pop(order["kill"]))
                wire.send({})
                continue
            _import(order["modules"])
            if order["where"] and order["where"]["door"]:
                wire.send(_let_in(order, fds, guests))
                continue
            pid = os.fork()
            if pid == 0:
                _judge(order, fds, wire)
            for end in fds:
                os.close(end)
            judges.add(pid)
            wire.send({"pid": pid})
    for pid in judges:
        _kill(pid)
    for pid, pidfd in guests.items():
        _kill_guest(pid, pidfd)


def _let_in(order: Mapping[str, Any], fds: list[int], guests: dict[int, int]) -> dict[str, Any]:
    """Have a judge forked inside a box that cannot be entered."""
    from .sandbox import door  # noqa: PLC0415 - Linux only

    end, other = fds
    try:
        with socket.socket(fileno=other) as through:
            pid = door.through(through, order, end)
        guests[pid] = os.pidfd_open(pid)
    except OSError as error:
        return {"error": f"no judge could step into the box: {error}"}
    finally:
        os.close(end)
    return {"pid": pid}


def _kill_guest(pid: int, pidfd: int) -> None:
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, 0)  # as long as this works, the pid is nobody else's
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def behind_the_door(order: Mapping[str, Any], end: int) -> None:
    """Be the judge of one submission in a box of level landlock; never returns."""
    try:
        _dies_with_parent()
        if (gate := services.hire("landlock")) is not None:
            outside.leave_by(gate)
        os.environ["TMPDIR"] = order["run_dir"]
        tempfile.tempdir = None
        _make_shell()
        _sit(order["run_dir"], end)
    finally:
        _end(1)


def _judge(order: Mapping[str, Any], fds: list[int], usher: _Wire) -> None:
    """Be the judge of one submission; never returns."""
    try:
        os.setsid()
        _dies_with_parent()
        usher.close()
        end, *places = fds
        where = order["where"]
        gate = services.hire(where["level"] if where else "none", *fds)
        if where:
            enter(where, places)
        if gate is not None:
            outside.leave_by(gate)
        _sit(order["run_dir"], end)
    finally:
        _end(1)


def _sit(run_dir: str, end: int) -> None:
    """Judge what comes over the wire, until it is closed; then end all that was started."""
    os.environ["TMPDIR"] = run_dir
    tempfile.tempdir = None
    os.chdir(run_dir)
    wire = _Wire(socket.socket(fileno=end))
    session = Session()
    with contextlib.suppress(JudgeError, OSError):
        while True:
            result = session.run(Test(**wire.receive()))
            wire.send(dataclasses.asdict(result))
    _end(0)


def _end(status: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if status == 0:
            os.killpg(0, signal.SIGKILL)
    os._exit(status)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _import(modules: Iterable[str]) -> None:
    """Import what tests will import; what cannot be imported is their own error, told when they run."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _make_shell() -> None:
    """A shell without history or profile, so that `display` knows what to do."""
    from IPython.core.interactiveshell import InteractiveShell  # noqa: PLC0415 - only the usher needs it
    from traitlets.config import Config  # noqa: PLC0415

    config = Config()
    config.HistoryManager.enabled = False
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        before = os.environ.get("IPYTHONDIR")
        os.environ["IPYTHONDIR"] = folder
        InteractiveShell.instance(config=config)
        if before is None:
            del os.environ["IPYTHONDIR"]
        else:
            os.environ["IPYTHONDIR"] = before


def _make_ready() -> None:
    """Import what every judge needs to enter a box, and keep all that there is out of forks' garbage collections."""
    if sys.platform.startswith("linux"):
        from .sandbox import linux, root, seccomp  # noqa: F401, PLC0415 - Linux only
    gc.collect()
    gc.freeze()


def _dies_with_parent() -> None:
    if sys.platform == "linux":
        from .sandbox import linux  # noqa: PLC0415 - Linux only

        linux.die_with_parent()


if __name__ == "__main__":
    main(int(sys.argv[1]))
