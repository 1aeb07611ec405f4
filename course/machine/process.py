"""Child processes that cannot outlive their parent.

A notebook's kernel is killed without ceremony; the machines it started must end with it. Linux can send a child a
signal when its parent dies (PR_SET_PDEATHSIG), with two catches:

* "parent" is the *thread* that forked. Started from a pool's thread, a child dies when that thread ends. So one
  permanent thread per process starts them all.
* the signal is not sent when the parent died before it was asked for. So the child looks at its parent's pid after
  asking, and gives up when it is not the one expected::

      setpriv --pdeathsig KILL        asks, then becomes
        sh: [ $PPID = expected ]      looks, then becomes
          qemu-system-…               (exec keeps the pid, and the death signal)

Where setpriv is missing, the same is done between fork and exec. Other systems than Linux have no such signal: there
a machine ends with its `with` block or at interpreter exit.

Children run in their own session: Ctrl-C at the keyboard, or a notebook's interrupt, is for Python to handle.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1
_GUARD = '[ "$PPID" = "$0" ] && exec "$@"'

_spawners: dict[int, _Spawner] = {}


class Process:
    """A started child: its pid, its exit code, what it wrote on stdout and stderr.

    Attributes:
        command: the child's own command line.
        owner: pid of the process that started it. In a forked copy of that process, this object only tells what was
            known; it never signals the child.
    """

    def __init__(self, command: Sequence[str], popen: subprocess.Popen[bytes], output_fd: int) -> None:
        self.command = list(command)
        self.owner = os.getpid()
        self._popen = popen
        self._output_fd = output_fd
        self._final_output: str | None = None

    def __repr__(self) -> str:
        state = "running" if self.exitcode is None else f"exit code {self.exitcode}"
        return f"<Process {self.pid} {self.command[0]}: {state}>"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._popen.pid

    @property
    def owned(self) -> bool:
        """True in the process that started the child, False in a forked copy of it."""
        return os.getpid() == self.owner

    @property
    def exitcode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.poll() if self.owned else self._popen.returncode

    @property
    def output(self) -> str:
        """All that the child wrote so far on stdout and stderr."""
        if self._final_output is not None:
            return self._final_output
        size = os.fstat(self._output_fd).st_size
        return os.pread(self._output_fd, size, 0).decode(errors="replace")

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end and return the exit code, or None when it still runs after `timeout_s` seconds."""
        if self.owned and self.exitcode is None and timeout_s:
            self._await_end(timeout_s)
        elif self.owned and timeout_s is None:
            self._popen.wait()
        return self.exitcode

    def _await_end(self, timeout_s: float) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or a sandbox without it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout_s)
            return
        try:
            poll = select.poll()  # select() cannot watch file descriptors over 1023
            poll.register(fd, select.POLLIN)
            ended = poll.poll(timeout_s * 1000)
        finally:
            os.close(fd)
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(5)  # another thread may be reaping it at this moment

    def kill(self) -> None:
        """End the child with SIGKILL and reap it; does nothing when it has ended or belongs to another process."""
        if not self.owned:
            return
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()

    def close(self) -> None:
        """Kill the child, keep what it wrote, and let go of the file that it wrote to."""
        if not self.owned or self._final_output is not None:
            return
        self.kill()
        self._final_output = self.output
        os.close(self._output_fd)


class _Order:
    """One request to the spawner. Whoever comes second, the spawner or an interrupted caller, ends the child."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._abandoned = False
        self.done = threading.Event()
        self.process: Process | None = None
        self.error: BaseException | None = None

    def fulfil(self) -> None:
        try:
            process = self._start()
        except BaseException as error:  # handed to the caller, whose thread it concerns
            self.error = error
        else:
            with self._lock:
                self.process = process
                if self._abandoned:
                    process.close()
        self.done.set()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self.process is not None:
                self.process.close()


class _Spawner:
    """The permanent thread from which this process starts its children."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def _work(self) -> None:
        while True:
            self._orders.get().fulfil()

    def start(self, make: Callable[[], Process]) -> Process:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="course-machine-spawner", daemon=True)
                self._thread.start()
        order = _Order(make)
        self._orders.put(order)
        try:
            order.done.wait()
        except BaseException:
            order.abandon()
            raise
        if order.error is not None:
            raise order.error
        if order.process is None:
            raise RuntimeError("the spawner finished without a process")
        return order.process


def spawn(command: Sequence[str], *, pass_fds: Sequence[int] = (), directly: bool = False) -> Process:
    """Start a child that dies with this process.

    Args:
        command: program and arguments.
        pass_fds: file descriptors that the child inherits under the same numbers.
        directly: from this thread, which has to be the main one: a program that is to fork has no other thread then.

    Raises:
        OSError: when the program cannot be started.
    """
    if directly:
        return _start(list(command), tuple(pass_fds))
    spawner = _spawners.setdefault(os.getpid(), _Spawner())
    return spawner.start(functools.partial(_start, list(command), tuple(pass_fds)))


def _start(command: list[str], pass_fds: tuple[int, ...]) -> Process:
    parent = os.getpid()
    wrapped, preexec = _mortal(command, parent)
    output_fd = _unnamed_file()
    try:
        popen = subprocess.Popen(
            wrapped,
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=pass_fds,
            start_new_session=True,
            restore_signals=False,  # Python ignores SIGXFSZ: so does the child, and survives a file size limit
            preexec_fn=preexec,  # noqa: PLW1509 - only where setpriv is missing
        )
    except BaseException:
        os.close(output_fd)
        raise
    return Process(command, popen, output_fd)


def _unnamed_file() -> int:
    """Return a file without a name, in memory where possible: a full disk must not hide QEMU's last words."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return _appending(os.memfd_create("qemu-output"))
    with tempfile.TemporaryFile() as file:
        return _appending(os.dup(file.fileno()))


def _appending(fd: int) -> int:
    import fcntl  # noqa: PLC0415 - POSIX only

    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


def _mortal(command: list[str], parent: int) -> tuple[list[str], Callable[[], None] | None]:
    """Return how to start `command` so that it dies with `parent`: a wrapped command, or what to run before exec."""
    if not sys.platform.startswith("linux"):
        return command, None
    if setpriv := _setpriv():
        return [setpriv, "--pdeathsig", "KILL", "/bin/sh", "-c", _GUARD, str(parent), *command], None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_for_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)

    return command, ask_for_death_signal


@functools.lru_cache(maxsize=1)
def _setpriv() -> str | None:
    """Return the path of a setpriv that knows --pdeathsig (busybox's does not), or None."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    done = subprocess.run([path, "--pdeathsig", "KILL", "true"], capture_output=True, check=False)
    return path if done.returncode == 0 else None


def alive(pid: int) -> bool:
    """Tell whether a process with this id exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - not a real file
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        if sys.platform.startswith("linux"):
            return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def await_end_of(pid: int, timeout_s: float) -> bool:
    """Wait until a process that is not our child is gone; returns whether it is."""
    end = time.monotonic() + timeout_s
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
