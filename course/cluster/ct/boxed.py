"""A running container that is a tree of processes in namespaces, seen from its node.

The node talks with the container's keeper (`box`) over a pair of sockets; this object is the node's end of it.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
import pty
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...error import CapabilityError, ClusterError
from ...machine.process import Process, spawn
from . import box

START_S = 30.0
OUTPUT_LIMIT = 1 << 20
CONSOLE_LINES = 1 << 16


class Boxed:
    """A running container.

    Args:
        vmid: its number.
        root: the directory that is its disk.
        hostname: its name.
        run: a folder of the node; its path on the keeper's command line says whose the container is.
        init: PID 1's arguments.
        nets: names of its network interfaces, such as ``eth0``.
        links: ways to make them, the first that works is taken.
        on_end: is called with PID 1's status once all processes are gone, before `ended` is set.

    Attributes:
        taps: the network interfaces that could be made, each as a file of frames.
        ended: is set when nothing of it is left.
        status: how PID 1 ended: -2 for a power off from inside, -1 for a reboot; None while it runs.

    Raises:
        CapabilityError: this system refuses namespaces.
        ClusterError: PID 1 did not start.
    """

    kind = "namespaces"

    def __init__(
        self,
        vmid: int,
        root: Path,
        *,
        hostname: str,
        run: Path,
        init: Sequence[str] = ("/sbin/init",),
        nets: Sequence[str] = (),
        links: Sequence[str] = ("tap", "veth"),
        on_end: Callable[[int], object] = lambda status: None,
    ) -> None:
        self.vmid = vmid
        self.root = root
        self.started = time.time()
        self.taps: dict[str, int] = {}
        self.ended = threading.Event()
        self.status: int | None = None
        self.console = deque[bytes](maxlen=256)
        self._on_end = on_end
        self._ids = itertools.count(1)
        self._answers: dict[int, _Answer] = {}
        self._first: dict[str, Any] | None = None
        self._ready = threading.Event()
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self._master, slave = pty.openpty()
        specification = {
            "vmid": vmid,
            "run": f"{run}{os.sep}lxc{os.sep}{vmid}",
            "root": str(root),
            "hostname": hostname,
            "init": list(init),
            "nets": list(nets),
            "links": list(links),
            "channel": theirs.fileno(),
            "console": slave,
        }
        command = [sys.executable, "-m", box.__name__, json.dumps(specification)]
        try:
            self._process: Process = spawn(command, pass_fds=(theirs.fileno(), slave))
        finally:
            theirs.close()
            os.close(slave)
        threading.Thread(target=self._listen, name=f"ct-{vmid}", daemon=True).start()
        threading.Thread(target=self._watch_console, name=f"ct-{vmid}-console", daemon=True).start()
        self._await_start()

    def _await_start(self) -> None:
        self._ready.wait(START_S)
        first = self._first or {"refused": self._process.output.strip() or "its keeper did not answer"}
        if "ready" in first:
            self.init_pid = int(first["pid"])
            return
        self.kill()
        why = str(first.get("refused", "PID 1 ended at once"))
        if self._process.wait(5) == box.REFUSED:
            raise CapabilityError("a container of namespaces", why, "A small virtual machine takes its place.")
        raise ClusterError(f"unable to start container {self.vmid}: {why}")

    # What the keeper says

    def _listen(self) -> None:
        while True:
            try:
                message, handles, _, _ = socket.recv_fds(self._channel, box.LARGEST, 1)
            except OSError:
                break
            if not message:
                break
            self._hear(json.loads(message), handles)
        self._process.wait()
        self._finish()

    def _hear(self, words: dict[str, Any], handles: Sequence[int]) -> None:
        if "tap" in words and handles:
            self.taps[words["tap"]] = handles[0]
        elif "ready" in words or "refused" in words:
            self._first = words
            self._ready.set()
        elif "ended" in words:
            self.status = int(words["ended"])
            self._ready.set()
        elif "exit" in words:
            answer = self._answers.pop(int(words["id"]), None)
            if answer:
                answer.end(int(words["exit"]))

    def _finish(self) -> None:
        status = -signal.SIGKILL if self.status is None else self.status
        self.status = status
        for answer in [*self._answers.values()]:
            answer.end(-signal.SIGKILL)
        self._answers.clear()
        self._ready.set()
        with self._lock:
            for handle in self.taps.values():
                os.close(handle)
            self.taps.clear()
        self._channel.close()
        self._process.close()
        self._on_end(status)
        self.ended.set()

    def _watch_console(self) -> None:
        """Keep what PID 1 writes: nobody may be looking, and it must not wait for somebody."""
        with contextlib.suppress(OSError):
            while content := os.read(self._master, CONSOLE_LINES):
                self.console.append(content)
        os.close(self._master)

    # What the node asks

    @property
    def pid(self) -> int:
        """PID 1's number on the node."""
        return self.init_pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.is_set()

    def _ask(self, words: Mapping[str, Any], handles: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))] if handles else []
        try:
            self._channel.sendmsg([json.dumps(words).encode()], ancillary)
        except OSError as error:
            raise ClusterError(f"CT {self.vmid} not running") from error

    def start(self, argv: Sequence[str], handles: Sequence[int], *, tty: bool = False) -> _Answer:
        """Start a program in the container.

        Args:
            argv: its arguments.
            handles: what it gets as standard input, output and error; the caller closes its own.
            tty: whether these are a terminal that becomes the program's own.

        Raises:
            ClusterError: the container does not run.
        """
        number = next(self._ids)
        answer = self._answers[number] = _Answer(number)
        if self.ended.is_set():
            raise ClusterError(f"CT {self.vmid} not running")
        self._ask({"id": number, "do": "exec", "argv": list(argv), "tty": tty}, handles)
        return answer

    def exec(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> tuple[int, bytes]:
        """Run a program in the container and wait for its end.

        Returns:
            Its exit status, and what it wrote on standard output and error, in order.

        Raises:
            ClusterError: the container does not run, or the time is over.
        """
        reading, writing = os.pipe()
        source = os.memfd_create("stdin")
        os.write(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        try:
            answer = self.start(argv, (source, writing, writing))
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
            os.close(source)
        try:
            output = _read_until(reading, answer.ended, time.monotonic() + timeout_s)
        finally:
            os.close(reading)
        if answer.status is None:
            self._ask({"id": answer.number, "do": "kill"})
            raise ClusterError(f"command '{' '.join(argv)}' in CT {self.vmid} - got timeout")
        return answer.status, output

    def shell(self) -> tuple[int, _Answer]:
        """Start a shell on a new terminal; returns the terminal's other side, which the caller closes."""
        master, slave = pty.openpty()
        try:
            return master, self.start(["/bin/sh", "-l"], (slave,) * 3, tty=True)
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)

    def signal(self, number: int) -> None:
        """Send PID 1 a signal."""
        self._ask({"id": 0, "do": "signal", "number": int(number)})

    def ask_to_end(self) -> None:
        """Ask PID 1 to shut the container down: each kind of init has its own signal for that."""
        self.signal(power_off_signal(self.root))

    def kill(self) -> None:
        """End everything in it, at once."""
        self._process.kill()
        self.ended.wait(10)

    def processes(self) -> list[int]:
        """Return the numbers that its processes have on the node."""
        return descendants(self._process.pid)

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes, or let them go on."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)


class _Answer:
    """How something that was started in the container ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ended = threading.Event()
        self.status: int | None = None

    def end(self, status: int) -> None:
        """Tell those who wait."""
        self.status = status
        self.ended.set()


def _read_until(handle: int, ended: threading.Event, deadline: float) -> bytes:
    """Read until the program has ended and its pipe is empty; what its own children write later is left."""
    output = bytearray()
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while time.monotonic() < deadline:
        over = ended.is_set()
        if poll.poll(0 if over else 20):
            content = os.read(handle, 65536)
            if len(output) < OUTPUT_LIMIT:
                output += content
            if not content:
                ended.wait(max(0.0, deadline - time.monotonic()))
                break
        elif over:
            break
    return bytes(output)


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, parents first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for listing in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(word) for word in listing.read_text().split()]
                found += children
                waiting += children
    return found


def power_off_signal(root: Path) -> int:
    """Return the signal that makes a container's init shut it down."""
    init = root / "sbin" / "init"
    target = str(init.readlink()) if init.is_symlink() else ""
    if "busybox" in target:
        return signal.SIGUSR2
    return signal.SIGRTMIN + 3 if "systemd" in target else signal.SIGPWR
