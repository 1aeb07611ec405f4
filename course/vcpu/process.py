"""A child process that runs one engine and dies with its parent.

The parent and the child share the guest's memory file and speak over a socket, one packet each way: the parent sends
an order with the registers, the child answers with a trap and the registers. Whatever machine code or an emulator does
to the child, the parent sees a closed socket or a late answer, kills the child and reports the engine as gone.

The child is killed when the thread that made it ends (a parent-death signal belongs to a thread).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import time
import warnings
from collections.abc import Callable
from typing import NoReturn, Protocol

from .registers import NAMES
from .trap import GONE, GRACE_S, Trap

_PR_SET_PDEATHSIG = 1
_ORDER = struct.Struct(f"<cqd{len(NAMES)}Q")
_ANSWER = struct.Struct(f"<qQ{len(NAMES)}Q")
_CHANGE = struct.Struct("<cQQQ4s")
_SIZE = 4096
START_S = 20.0


class Runner(Protocol):
    """What runs in the child."""

    def resume(self, registers: list[int], instructions: int | None, deadline: float, fresh: bool) -> Trap:
        """Run up to a trap; `fresh` when the VMM has written to memory since."""

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Follow a change of the memory map."""


def fork_child(work: Callable[[], NoReturn]) -> int:
    """Fork a child that dies with this thread and calls `work`, which must not return."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    with warnings.catch_warnings():
        # Python >= 3.12 warns about fork in a threaded process; the child uses nothing that a thread could hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        work()
    finally:
        os._exit(1)


def keep_only(*wanted: int) -> None:
    """Close every file of a child but these; its standard input, output and error become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    low = 3
    for fd in sorted({*wanted, 1 << 20}):
        os.closerange(low, fd)
        low = fd + 1


def end(pid: int) -> None:
    """Kill and reap a child."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


class Child:
    """The parent's side."""

    def __init__(self, make: Callable[[], Runner], *fds: int) -> None:
        """Start a child that makes a runner, keeping `fds` open.

        Raises:
            RuntimeError: the runner could not be made; the text says why.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> NoReturn:
            keep_only(theirs.fileno(), *fds)
            _serve(theirs, make)

        self.pid = fork_child(work)
        theirs.close()
        answer = self._receive(START_S)
        if answer != b"ready":
            self.close()
            raise RuntimeError(answer.decode(errors="replace") if answer else "its process ended at once")

    def resume(self, registers: list[int], instructions: int | None, seconds: float, *, fresh: bool) -> Trap:
        """Let the child run; the registers are changed."""
        limit = -1 if instructions is None else instructions
        answer = b""
        try:
            self._socket.send(_ORDER.pack(b"F" if fresh else b"R", limit, seconds, *registers))
            answer = self._receive(seconds + GRACE_S)
        except OSError:
            pass  # the child is gone: there is no answer
        except BaseException:  # Ctrl-C: the answer to this order must not be taken for the next one's
            self.close()
            raise
        if len(answer) != _ANSWER.size:
            self.close()
            return Trap(GONE, why="the engine's process did not answer in time, or ended, and was removed")
        vector, address, *registers[:] = _ANSWER.unpack(answer)
        return Trap(vector, address, why="the engine met something that it cannot execute" if vector == GONE else "")

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Tell the child of a change of the memory map."""
        with contextlib.suppress(OSError):
            self._socket.send(_CHANGE.pack(b"M", address, size, offset, permissions.encode()))

    def _receive(self, seconds: float) -> bytes:
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(_SIZE)
        except OSError:
            return b""

    def close(self) -> None:
        """End the child; may be called twice."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            end(self.pid)


def _serve(connection: socket.socket, make: Callable[[], Runner]) -> NoReturn:
    """The child's side: make the runner, then take orders until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        runner = make()
    except Exception as error:  # whatever it is, the parent shall say it
        connection.send(f"{type(error).__name__}: {error}".encode()[:_SIZE])
        os._exit(1)
    connection.send(b"ready")
    while packet := connection.recv(_SIZE):
        if packet[:1] == b"M":
            _, address, size, offset, permissions = _CHANGE.unpack(packet)
            runner.remap(address, size, offset, permissions.rstrip(b"\0").decode())
            continue
        kind, limit, seconds, *registers = _ORDER.unpack(packet)
        deadline = time.monotonic() + seconds
        trap = runner.resume(registers, None if limit < 0 else limit, deadline, kind == b"F")
        connection.send(_ANSWER.pack(trap.vector, trap.address, *registers))
    os._exit(0)
