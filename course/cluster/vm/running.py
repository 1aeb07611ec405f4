"""A virtual machine that runs on this node: one QEMU process, and what is known of it.

The node's process owns them all (`Guests`). Each has a thread that waits for its end, whoever caused it: the guest
that switched itself off, somebody's ``kill``, or we. What ended is taken out of the registry before anything else
learns of it, so that "running" never means a process that is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecuteError

from ...error import ClusterError, MachineError, MachineGone
from ...machine import Machine

if TYPE_CHECKING:
    from ..node import Node

_LOG = logging.getLogger(__name__)
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_SOCKETS = ("qmp", "pid", "vnc", "qga", "migrate", "nbd", "serial0", "serial1", "serial2", "serial3")


class RunningVm:
    """A running virtual machine.

    Attributes:
        vmid: its number.
        machine: its QEMU process.
        values: the settings it was started with, changed by whatever was plugged since.
        started: when, in seconds since 1970.
        incoming: whether it waits for another node's guest.
        agent_s: how long its guest's agent may take to answer.
        source: the node whose guest it waits for, and that node's process.
        nodes: block nodes of drives that were moved, by the drive's key.
    """

    def __init__(self, vmid: int, machine: Machine, values: dict[str, str], run: Path) -> None:
        self.vmid = vmid
        self.machine = machine
        self.values = values
        self.run = run
        self.started = time.time()
        self.incoming = machine.incoming
        self.ended = threading.Event()
        self.machine_name: str | None = None
        self.agent_s = 10.0
        self.source: tuple[str, int | None] = ("", None)
        self.nodes: dict[str, str] = {}
        self.usage: tuple[float, float] = (0.0, 0.0)
        self.cpu = 0.0
        self._cpu_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RunningVm {self.vmid}: {self.machine!r}>"

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.machine.pid or 0

    @property
    def uptime(self) -> int:
        """Seconds since its start."""
        return max(0, int(time.time() - self.started))

    def node_of(self, key: str) -> str:
        """Return the name of the block node behind a drive; one that was moved has another."""
        return self.nodes.get(key, f"drive-{key}")

    def path(self, suffix: str) -> Path:
        """Return one of its sockets: qmp, vnc, serial0, qga, migrate, nbd."""
        return self.run / f"{self.vmid}.{suffix}"

    def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, /, *, timeout_s: float = 30, **keywords: Any
    ) -> Any:
        """Execute a QMP command; ``_`` in a keyword's name is ``-``, `arguments` are taken as they are.

        Raises:
            ClusterError: QEMU refuses it or is gone; the words are Proxmox VE's.
        """
        try:
            return self.machine.execute(command, arguments, timeout_s=timeout_s, **keywords)
        except ExecuteError as error:
            raise ClusterError(f"VM {self.vmid} qmp command '{command}' failed - {error}") from error
        except MachineGone as error:
            raise ClusterError(f"VM {self.vmid} not running") from error
        except MachineError as error:
            raise ClusterError(f"VM {self.vmid} qmp command '{command}' failed - got timeout") from error

    def hmp(self, line: str) -> str:
        """Execute a command of the human monitor."""
        return str(self.execute("human-monitor-command", command_line=line))

    @property
    def qmpstatus(self) -> str:
        """What QEMU says of itself: running, paused, prelaunch, inmigrate, io-error."""
        return str(self.execute("query-status")["status"])

    def connect(self, suffix: str, timeout_s: float = 5) -> socket.socket:
        """Connect to one of its sockets.

        Raises:
            ClusterError: it has none such.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(self.path(suffix)))
        except OSError as error:
            connection.close()
            raise ClusterError(f"unable to connect to VM {self.vmid} {suffix} socket - {error.strerror}") from error
        return connection

    def cpu_seconds(self) -> float:
        """Return the processor time that QEMU has used, in seconds."""
        fields = _stat(self.pid)
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS if fields else 0.0

    def sample_cpu(self, cpus: int) -> float:
        """Return the share of its processors that it used since the sample before, at least a second ago."""
        with self._cpu_lock:
            now, used = time.monotonic(), self.cpu_seconds()
            before, used_before = self.usage
            if not before:
                self.usage = (now, used)
            elif now - before >= 1:
                self.cpu = max(0.0, (used - used_before) / (now - before) / max(1, cpus))
                self.usage = (now, used)
            return self.cpu

    def resident_bytes(self) -> int:
        """Return how much memory QEMU occupies."""
        fields = _stat(self.pid)
        return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, empty when it is gone. Source: proc(5)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []


class Guests:
    """The virtual machines that run on this node.

    Attributes:
        made_for: volumes made for guests that have not arrived yet, by number.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.run = node.state.run / node.name / "qemu-server"
        self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._running: dict[int, RunningVm] = {}
        self._starting: set[int] = set()
        self.made_for: dict[int, list[str]] = {}
        self._lock = threading.Lock()
        self.closing = False
        for stale in self.run.iterdir():  # of a node that lost power: nothing of it runs
            stale.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[RunningVm]:
        with self._lock:
            return iter(list(self._running.values()))

    def get(self, vmid: int) -> RunningVm | None:
        """Return a running machine, or None."""
        with self._lock:
            found = self._running.get(vmid)
        return found if found is not None and found.machine.running else None

    def is_running(self, vmid: int) -> bool:
        """Say whether a machine runs here."""
        return self.get(vmid) is not None

    def require(self, vmid: int) -> RunningVm:
        """Return a running machine.

        Raises:
            ClusterError: it does not run.
        """
        found = self.get(vmid)
        if found is None:
            raise ClusterError(f"VM {vmid} not running")
        return found

    @contextlib.contextmanager
    def starting(self, vmid: int) -> Iterator[None]:
        """Keep others from starting the same machine at the same time.

        Raises:
            ClusterError: it runs, or is being started.
        """
        with self._lock:
            if self.closing:
                raise ClusterError("node is shutting down")
            running = self._running.get(vmid)
            if vmid in self._starting or (running is not None and running.machine.running):
                raise ClusterError(f"VM {vmid} already running")
            self._starting.add(vmid)
        try:
            yield
        finally:
            with self._lock:
                self._starting.discard(vmid)

    def launch(
        self,
        vmid: int,
        values: dict[str, str],
        arguments: list[str],
        *,
        name: str,
        accel: str,
        incoming: bool = False,
        log: Callable[[str], None] = _LOG.info,
    ) -> RunningVm:
        """Start QEMU.

        Raises:
            ClusterError: it does not start; its words go to `log`.
        """
        for suffix in _SOCKETS:
            (self.run / f"{vmid}.{suffix}").unlink(missing_ok=True)
        machine = Machine(*arguments, name=name, accel=accel, console=False, incoming=incoming, launch_timeout_s=60)
        try:
            machine.launch()
        except MachineError as error:
            for line in error.output.splitlines():
                log(line.replace("qemu-system-x86_64:", "kvm:"))
            code = error.exitcode if error.exitcode is not None else "?"
            raise ClusterError(f"start failed: QEMU exited with code {code}") from error
        running = RunningVm(vmid, machine, dict(values), self.run)
        running.agent_s = self.node.settings.agent_s
        with self._lock:
            self._running[vmid] = running
        threading.Thread(target=self._watch, args=(running,), name=f"vm-{vmid}", daemon=True).start()
        return running

    def _watch(self, running: RunningVm) -> None:
        """Wait for a machine's end."""
        with contextlib.suppress(MachineError):
            running.machine.wait()
        with self._lock:
            if self._running.get(running.vmid) is running:
                del self._running[running.vmid]
            replaced = running.vmid in self._running or running.vmid in self._starting
        running.machine.kill()  # lets go of its sockets
        if not replaced:
            self._clean(running)
        running.ended.set()
        with contextlib.suppress(Exception):  # a node that is going down has no log any more
            self.node.log(f"VM {running.vmid} ended (exit code {running.machine.exitcode})", "info")

    def _clean(self, running: RunningVm) -> None:
        for suffix in _SOCKETS:
            running.path(suffix).unlink(missing_ok=True)
        fabric = getattr(self.node, "fabric", None)
        if fabric is not None:
            for key in [key for key in running.values if key.startswith("net") and key[3:].isdigit()]:
                with contextlib.suppress(Exception):
                    fabric.unplug(running.vmid, int(key[3:]))

    def end(self, running: RunningVm, timeout_s: float = 15) -> None:
        """End a machine at once, and wait until it is out of the registry."""
        running.machine.kill()
        running.ended.wait(timeout_s)

    def close(self) -> None:
        """End all machines."""
        with self._lock:
            self.closing = True
        for running in self:
            running.machine.kill()
        for running in self:
            running.ended.wait(5)
