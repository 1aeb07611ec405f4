"""One QEMU process as a `with`: launch it, talk to it, end it.

::

    NEW ──launch()──▶ RUNNING ──kill(), shutdown(), or QEMU's own end──▶ ENDED

A machine belongs to the process that launched it. A forked copy of it (an answer runs in a forked child) can look at
what is known, but neither talks to QEMU nor ends it: two processes on one socket would read each other's replies.
Such a child connects to `qmp_path`, or makes machines of its own.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shlex
import socket
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qemu.qmp import QMPError

from ..error import EventTimeout, LaunchError, MachineError, MachineGone, UsageError
from . import jobs, launch, migration
from .console import Console
from .directory import PrivateDirectory
from .events import Event, EventLog, Recording
from .monitor import Monitor, MonitorClosed
from .process import Process, spawn
from .scratch import Scratch
from .screenshot import Screenshot, take_screenshot


class State(enum.Enum):
    """Where a machine is in its life."""

    NEW = "not launched"
    RUNNING = "running"
    ENDED = "ended"


class Machine:
    """One QEMU process.

    Every machine gets ``-nodefaults -display none``, a QMP monitor and a serial console (over inherited socket
    pairs: no path, no port, nothing to collide with) and a sandbox that forbids QEMU to start programs. All else is in
    the arguments.

    Args:
        *arguments: QEMU's, one string each: ``"-M", "q35", "-m", "128"``.
        name: the guest's name, shown by ``query-name`` and in messages.
        binary: QEMU program, a name on PATH or a path.
        accel: accelerator. The default emulates (TCG), which works everywhere.
        console: give the guest a first serial port and watch it.
        qmp_sockets: number of further QMP monitors, each a Unix socket in a private directory (`qmp_paths`). A
            monitor serves one client at a time.
        pass_fds: file descriptors that QEMU inherits under the same numbers.
        sandbox: forbid QEMU to start programs (``-sandbox on,spawn=deny``), where it is able to.
        launch_timeout_s: seconds until QEMU must answer.
        incoming: wait for a state (`restore`, or `migrate` of another machine) instead of booting.

    Raises:
        CapabilityError: on launch, when QEMU is missing or too old.
        LaunchError: on launch, when QEMU does not start.
        UsageError: for arguments that cannot be meant.
    """

    def __init__(
        self,
        *arguments: str | Path | int,
        name: str = "vm",
        binary: str = "qemu-system-x86_64",
        accel: str = "tcg",
        console: bool = True,
        qmp_sockets: int = 0,
        pass_fds: Sequence[int] = (),
        sandbox: bool = True,
        launch_timeout_s: float = 15,
        incoming: bool = False,
    ) -> None:
        self.arguments = list(arguments)
        self.name = name
        self.binary = binary
        self.accel = accel
        self.incoming = incoming
        self.pass_fds = tuple(pass_fds)
        self.sandbox = sandbox
        self.launch_timeout_s = launch_timeout_s
        self.qmp_paths: list[str] = []
        self._wants_console = console
        self._qmp_sockets = qmp_sockets
        self._directory: PrivateDirectory | None = None
        self._scratch: Scratch | None = None
        self._process: Process | None = None
        self._killed = False
        self._monitor: Monitor | None = None
        self._console: Console | None = None
        self._fd_lock = threading.Lock()
        # The loop's thread holds the event log and the console. They must not hold the machine: one that is dropped
        # without having been ended is to be collected, and its finalizer ends QEMU.
        this = weakref.ref(self)

        def fault(kind: type[MachineError], message: str) -> MachineError:
            vm = this()
            return kind(message) if vm is None else vm.fault(kind, message)

        self._fault = fault
        self._log = EventLog(fault)
        self._resources = contextlib.ExitStack()
        weakref.finalize(self, self._resources.close)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> State:
        """Where this machine is in its life."""
        if self._process is None:
            return State.NEW
        return State.RUNNING if self._process.exitcode is None else State.ENDED

    def __repr__(self) -> str:
        what = {State.RUNNING: f"pid {self.pid}", State.ENDED: f"exit code {self.exitcode}"}.get(self.state, "")
        return f"<Machine {self.name}: {self.state.value}{', ' + what if what else ''}>"

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def launch(self) -> None:
        """Start QEMU and connect to it; a machine is launched once.

        Raises:
            CapabilityError: when QEMU is missing or too old.
            LaunchError: when QEMU does not start; carries its command line, exit code and output.
            UsageError: when it was launched before, or an argument cannot be meant.
        """
        if self._process is not None:
            raise UsageError(f"{self!r} was launched before; a machine is launched once. Make a new one.")
        monitor, monitor_there = socket.socketpair()
        console, console_there = socket.socketpair()
        try:
            with monitor_there, console_there:  # QEMU's ends: it inherits them, and they are closed here
                self._start(monitor_there.fileno(), console_there.fileno() if self._wants_console else None)
            if self._wants_console:
                self._console = Console(console, self._fault)
            self._connect(monitor)
        except BaseException:
            self.kill()
            monitor.close()
            raise
        finally:
            if self._console is None:
                console.close()

    def _start(self, monitor_fd: int, console_fd: int | None) -> None:
        if self._qmp_sockets:
            directory = self.private_directory()
            self.qmp_paths = [directory.socket(f"qmp{number}") for number in range(self._qmp_sockets)]
        line = launch.command(
            self.arguments,
            binary=self.binary,
            name=self.name,
            accel=self.accel,
            sandbox=self.sandbox,
            incoming=self.incoming,
            monitor_fd=monitor_fd,
            console_fd=console_fd,
            qmp_paths=self.qmp_paths,
        )
        self._scratch = Scratch()
        self._resources.callback(self._scratch.close)
        inherited = [fd for fd in (monitor_fd, console_fd, self._scratch.fd, *self.pass_fds) if fd is not None]
        self._process = spawn(line, pass_fds=inherited)
        self._resources.callback(self._process.close)

    def _connect(self, sock: socket.socket) -> None:
        self._monitor = Monitor(self.name, self._log.put, self._log.end)
        try:
            self._monitor.connect(sock, self.launch_timeout_s)
        except (TimeoutError, QMPError, OSError) as error:
            assert self._process is not None
            self._process.wait(2 if not isinstance(error, TimeoutError) else 0)
            exitcode = self._process.exitcode
            if exitcode is None:
                what = f"it gave no sign of life within {self.launch_timeout_s:g} s and was killed. Is the host busy?"
            else:
                what = launch.hint(self.output) or "Its own words, below, name the argument that it refuses."
            fault = self.fault(LaunchError, f"QEMU did not start {self.name}: {what}")
            fault.exitcode = exitcode
            raise fault from error

    def kill(self) -> None:
        """End QEMU at once, as if its power cord were pulled; safe at any time, any number of times.

        Does nothing in a forked copy of the process that launched it.
        """
        if self._process is not None:
            if not self._process.owned:
                return
            self._killed |= self._process.exitcode is None
            self._process.kill()
        if self._monitor is not None:
            self._monitor.close()
        self._log.end()
        if self._console is not None:
            self._console.close()
        self._resources.close()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until QEMU has ended by itself, and return its exit code.

        Raises:
            EventTimeout: when it still runs after `timeout_s` seconds.
        """
        exitcode = self._owned_process().wait(timeout_s)
        if exitcode is None:
            raise self.fault(EventTimeout, f"{self.name} still ran after {timeout_s:g} s. kill() ends it.")
        return exitcode

    def shutdown(self, timeout_s: float = 15) -> int:
        """Press the power button (ACPI), wait until the guest has switched itself off; returns QEMU's exit code.

        Raises:
            EventTimeout: when the guest did not power off in time; it goes on running.
            MachineGone: when QEMU had ended before.
            UsageError: when the guest is paused and cannot react.
        """
        if (status := self.runstate) != "running":
            raise UsageError(
                f"{self.name} is {status!r}: only a running guest reacts to the power button. resume() it, or kill()."
            )
        end = time.monotonic() + timeout_s
        with self.record("SHUTDOWN") as events:
            self.execute("system_powerdown")
            try:
                events.wait("SHUTDOWN", timeout_s)
            except MachineGone:
                pass
            except EventTimeout as error:
                raise self._ignored_power_button(timeout_s) from error
        return self._leave(max(2.0, end - time.monotonic()))

    def _ignored_power_button(self, timeout_s: float) -> MachineError:
        shown = f" Its console ended with {self._console.tail(80)!r}." if self._console is not None else ""
        return self.fault(
            EventTimeout,
            f"{self.name} did not power off within {timeout_s:g} s of the power button. A guest without an operating "
            f"system ignores it, one that is busy needs a longer timeout_s; kill() always works.{shown}",
        )

    def _leave(self, timeout_s: float) -> int:
        """Wait for the end of a QEMU whose guest has powered off; with -no-shutdown it stays, so tell it to quit."""
        process = self._owned_process()
        if process.wait(0.5) is None:
            with contextlib.suppress(MachineGone):
                self.execute("quit")
        return self.wait(timeout_s)

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def running(self) -> bool:
        """True while the QEMU process exists (its guest may be paused: see `runstate`)."""
        return self.state is State.RUNNING

    @property
    def pid(self) -> int | None:
        """QEMU's process id; None before launch."""
        return None if self._process is None else self._process.pid

    @property
    def command(self) -> list[str]:
        """QEMU's whole command line; empty before launch."""
        return [] if self._process is None else self._process.command

    @property
    def exitcode(self) -> int | None:
        """QEMU's exit code, negative for a signal; None until it ended."""
        return None if self._process is None else self._process.exitcode

    @property
    def output(self) -> str:
        """What QEMU itself wrote on stdout and stderr (the guest's words are in `console.text`)."""
        return "" if self._process is None else self._process.output

    @property
    def qmp_path(self) -> str:
        """Path of the first further monitor.

        Raises:
            UsageError: when the machine was made without `qmp_sockets`, or is not launched.
        """
        if not self.qmp_paths:
            raise UsageError(f"{self!r} has no monitor of its own for you: make it with qmp_sockets=1 and launch it.")
        return self.qmp_paths[0]

    @property
    def console(self) -> Console:
        """The first serial port.

        Raises:
            UsageError: when it was made without, or is not launched.
        """
        if self._console is None:
            raise UsageError(f"{self!r} has no console: make it with console=True and launch it.")
        return self._console

    def private_directory(self) -> PrivateDirectory:
        """Return a directory for this machine's sockets, removed when it ends."""
        if self._directory is None:
            self._directory = PrivateDirectory()
            self._resources.callback(self._directory.remove)
        return self._directory

    def fault(self, kind: type[MachineError], message: str) -> MachineError:
        """Return an error of this machine with all its evidence: command line, exit code, output."""
        if kind is MachineGone and self._process is not None:
            self._process.wait(2)  # its sockets close a moment before it can be reaped
            message = f"{message} {self._end()}"
        return kind(message, command=self.command, exitcode=self.exitcode, output=self.output)

    def _end(self) -> str:
        if self.exitcode is None:
            return "Its monitor was closed although the process still runs."
        if self._killed:
            return "It was ended by kill(), or because its `with` block ended. Make a new machine."
        return f"{launch.end_of(self.exitcode)} Make a new machine."

    def _owned_process(self) -> Process:
        if self._process is None:
            raise UsageError(f"{self!r} is not launched: use it in a with block, or call launch().")
        if not self._process.owned:
            raise UsageError(
                f"{self!r} belongs to process {self._process.owner}, this is its forked copy {os.getpid()}. "
                "Connect to its qmp_path, or launch a machine here."
            )
        return self._process

    # ── QMP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, /, *, timeout_s: float = 30, **keywords: Any
    ) -> Any:
        """Execute a QMP command and return its value.

        Args:
            command: such as ``"query-status"``.
            arguments: its arguments under their exact names.
            timeout_s: seconds until the reply must have come.
            **keywords: further arguments; ``_`` in a name becomes ``-``.

        Raises:
            qemu.qmp.ExecuteError: when QEMU refuses; `error_class` tells the kind.
            MachineGone: when QEMU ended before or during the command.
            MachineError: when it did not reply in time.
        """
        self._owned_process()
        assert self._monitor is not None
        merged = {**(arguments or {}), **{key.replace("_", "-"): value for key, value in keywords.items()}}
        try:
            return self._monitor.execute(command, merged, timeout_s)
        except MonitorClosed as error:
            raise self.fault(MachineGone, f"{self.name} was to execute {command}, but QEMU has ended.") from error
        except TimeoutError as error:
            raise self.fault(
                MachineError,
                f"{self.name} did not reply to {command} within {timeout_s:g} s. "
                "QEMU may be stopped or busy: give it a longer timeout_s, or kill() it.",
            ) from error

    def hmp(self, line: str) -> str:
        """Execute a command of QEMU's human monitor, such as ``"info registers"``, and return what it prints."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a copy of a file descriptor under `name`, for ``fd:name`` addresses."""
        self._owned_process()
        assert self._monitor is not None
        with self._fd_lock:  # QEMU pairs the descriptor with the next getfd
            try:
                self._monitor.send_fd(fd)
            except (MonitorClosed, TimeoutError) as error:
                raise self.fault(MachineGone, f"{self.name} was to receive a file, but QEMU has ended.") from error
            self.execute("getfd", fdname=name)

    @property
    def runstate(self) -> str:
        """The guest's state: ``"running"``, ``"paused"``, ``"inmigrate"`` and so on."""
        return str(self.execute("query-status")["status"])

    def pause(self) -> None:
        """Stop the guest's CPUs (QMP ``stop``)."""
        self.execute("stop")
        self._log.discard("STOP")

    def resume(self) -> None:
        """Let the guest's CPUs run (QMP ``cont``)."""
        self.execute("cont")
        self._log.discard("RESUME")

    def wait_event(self, name: str, timeout_s: float = 10, **match: Any) -> Event:
        """Take the oldest event of this name that nobody took, waiting for it if need be.

        Events since launch are kept (the latest 1000), so one that came before this call is not lost; nor is it fresh.
        To see only what comes from here on, use `record`.

        Args:
            name: such as ``"STOP"``.
            timeout_s: seconds to wait.
            **match: values that the event's data must have; ``_`` stands for ``-``.

        Raises:
            EventTimeout: when it did not come in time.
            MachineGone: when QEMU ended first.
        """
        self._owned_process()
        return self._log.wait(name, timeout_s, **match)

    def record(self, *names: str) -> Recording:
        """Return a `with` block that records the events of these names (all, without names)."""
        self._owned_process()
        return Recording(self._log, names)

    # ── devices and state ───────────────────────────────────────────────────────────────────────────────────────────

    def run_job(self, command: str, *, timeout_s: float = 60, **arguments: Any) -> dict[str, Any]:
        """Start a job, wait until it has concluded, dismiss it; see `course.machine.jobs.run`."""
        return jobs.run(self, command, timeout_s=timeout_s, **arguments)

    def screenshot(self) -> Screenshot:
        """Return a picture of the guest's screen (needs a display device, such as ``-vga std``)."""
        return take_screenshot(self)

    def read_memory(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes of guest-physical memory from address `gpa`."""
        return self.collect("pmemsave", {"val": gpa, "size": size})

    def collect(self, command: str, arguments: Mapping[str, Any]) -> bytes:
        """Execute a command that writes to a file (its argument ``filename``) and return what it wrote."""
        self._owned_process()
        assert self._scratch is not None
        return self._scratch.collect(lambda name: self.execute(command, {**arguments, "filename": name}))

    def save(
        self, path: str | Path, *, capabilities: Sequence[str] = (), resume: bool = True, timeout_s: float = 60
    ) -> None:
        """Write RAM and device state to a file; the guest then goes on. See `course.machine.migration.save`."""
        migration.save(self, Path(path), capabilities=capabilities, resume=resume, timeout_s=timeout_s)

    def restore(
        self, path: str | Path, *, capabilities: Sequence[str] = (), resume: bool = True, timeout_s: float = 60
    ) -> None:
        """Take up a state that `save` wrote, in a machine made with incoming=True.

        See `course.machine.migration.restore`.
        """
        migration.restore(self, Path(path), capabilities=capabilities, resume=resume, timeout_s=timeout_s)

    def migrate(
        self,
        destination: Machine,
        *,
        timeout_s: float = 30,
        bandwidth_mib_s: float | None = None,
        downtime_limit_ms: int | None = None,
        capabilities: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Move the running guest to `destination`, made with incoming=True; see `course.machine.migration.migrate`."""
        return migration.migrate(
            self,
            destination,
            timeout_s=timeout_s,
            bandwidth_mib_s=bandwidth_mib_s,
            downtime_limit_ms=downtime_limit_ms,
            capabilities=capabilities,
        )

    def snapshot(self, tag: str, *, timeout_s: float = 60) -> None:
        """Keep disks and RAM under `tag`, inside the guest's qcow2 disks."""
        jobs.save_snapshot(self, tag, timeout_s)

    def rollback(self, tag: str, *, timeout_s: float = 60) -> None:
        """Return disks and RAM to what `snapshot` kept under `tag`."""
        jobs.load_snapshot(self, tag, timeout_s)

    def delete_snapshot(self, tag: str, *, timeout_s: float = 60) -> None:
        """Remove a snapshot."""
        jobs.delete_snapshot(self, tag, timeout_s)

    @property
    def command_line(self) -> str:
        """The command line as a shell would take it."""
        return shlex.join(self.command)
