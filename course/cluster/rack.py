"""The rack: the hardware of the lab's nodes, and nothing of what they do.

::

    rack ── franklin      forked from one warm process that has loaded everything: quick, and memory is shared
        ├── trevor        power off = SIGKILL: the node's machines are its children and die with it
        └── michael       cable out = a file that all nodes look at

This process has one thread, for only such a process may fork safely, and its nodes ask the kernel to end them when it
ends. It does not decide anything: a node that dies by itself stays off until somebody switches it on; one whose
watchdog was not kept quiet is reset, as by a real one.

States of a node: off → starting → on → off. A node that cannot start says why, through a pipe, and is off.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..error import ClusterError
from .hardware import SOCKET
from .membership import UNPLUGGED
from .settings import NODES, Settings

READY = b"ready\n"
SHUTDOWN_S = 20.0
END_S = 5.0
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Slot:
    """One node's place in the rack.

    Attributes:
        name: of the node.
        listener: a socket that holds its port while it is off, and refuses connections.
        pid: of its process, 0 while it is off.
        pipe: on which it says that it is ready, or why it is not.
        said: what it said so far.
        deadline: when its watchdog resets it, on the monotonic clock.
        on_at: when it is switched on again.
        again: whether it is switched on when it has shut down.
    """

    name: str
    listener: socket.socket
    pid: int = 0
    pipe: int = -1
    said: bytes = b""
    deadline: float | None = None
    on_at: float | None = None
    again: bool = False

    @property
    def ready(self) -> bool:
        """Whether the node's API answers."""
        return self.pid != 0 and self.said.startswith(READY)


class Rack:
    """Switches nodes on and off.

    Args:
        state: the state directory.
        run: the runtime directory.
        settings: of the cluster.
        ports: one for each node; 0 for any.
        nodes: the names.
    """

    def __init__(
        self, state: Path, run: Path, settings: Settings, ports: list[int], nodes: tuple[str, ...] = NODES
    ) -> None:
        self.state, self.run, self.settings = state, run, settings
        self._selector = selectors.DefaultSelector()
        self._ending = False
        self._lock = self._only_one()
        self.slots = {
            name: Slot(name, reserve(settings.address, port)) for name, port in zip(nodes, ports, strict=True)
        }
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = run / SOCKET
        path.unlink(missing_ok=True)
        self._control.bind(str(path))
        self._control.listen(16)
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)

    def _only_one(self) -> int:
        """Take the state directory for this rack alone."""
        folder = self.state / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "rack", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ClusterError(f"a cluster with the state directory {self.state} is running already") from None
        return handle

    # Power

    def on(self, name: str) -> None:
        """Switch a node on."""
        slot = self.slots[name]
        if slot.pid:
            return
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._become(slot, writing, parent)
        os.close(writing)
        slot.pid, slot.pipe, slot.said, slot.deadline, slot.on_at = pid, reading, b"", None, None
        self._selector.register(reading, selectors.EVENT_READ, lambda: self._hear(slot))

    def _become(self, slot: Slot, pipe: int, parent: int) -> None:
        """Be a node, in the forked process."""
        status = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            self._selector.close()
            self._control.close()
            os.close(self._lock)
            for other in self.slots.values():
                if other.pipe >= 0:
                    os.close(other.pipe)
                if other is not slot:
                    other.listener.close()
            gc.enable()
            from . import process  # noqa: PLC0415 - loaded by `main` already

            address = slot.listener.getsockname()
            process.run(slot.name, self.state, self.run, self.settings, address=address, pipe=pipe)
            status = 0
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(pipe, f"{type(error).__name__}: {error}\n".encode())
            import traceback  # noqa: PLC0415

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _hear(self, slot: Slot) -> None:
        """Take what a node says about its start."""
        words = os.read(slot.pipe, 4096)
        slot.said += words
        if not words:
            self._hang_up(slot)

    def _hang_up(self, slot: Slot) -> None:
        if slot.pipe >= 0:
            self._selector.unregister(slot.pipe)
            os.close(slot.pipe)
            slot.pipe = -1

    def off(self, name: str) -> None:
        """Cut a node's power; when this returns, its process and all that it started are gone."""
        slot = self.slots[name]
        slot.on_at = None
        if not slot.pid:
            return
        children = descendants(slot.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(slot.pid, signal.SIGKILL)
        self._bury(slot)
        await_end(children)

    def _bury(self, slot: Slot, options: int = 0) -> bool:
        """Wait for a node's process; say whether it has ended."""
        try:
            pid, _ = os.waitpid(slot.pid, options)
        except ChildProcessError:
            pid = slot.pid
        if pid == 0:
            return False
        slot.pid, slot.deadline = 0, None
        self._hang_up(slot)
        if slot.again:
            slot.again, slot.on_at = False, time.monotonic()
        return True

    def reset(self, name: str, after_s: float = 0) -> None:
        """Cut a node's power and switch it on after a while; never for a negative while."""
        self.off(name)
        if after_s == 0:
            self.on(name)
        elif after_s > 0:
            self.slots[name].on_at = time.monotonic() + after_s

    def shutdown(self, name: str, again: bool) -> None:
        """Ask a node to end; if it takes too long, its power is cut."""
        slot = self.slots[name]
        if slot.pid:
            slot.again = again
            slot.deadline = time.monotonic() + SHUTDOWN_S
            os.kill(slot.pid, signal.SIGTERM)

    def plug(self, name: str, plugged: bool) -> None:
        """Put a network cable in or out."""
        path = self.run / name / UNPLUGGED
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if plugged:
            path.unlink(missing_ok=True)
        else:
            path.touch()

    def down(self) -> None:
        """Shut all nodes down: they are asked first, and end their machines in order."""
        living = [slot for slot in self.slots.values() if slot.pid]
        for slot in living:
            os.kill(slot.pid, signal.SIGTERM)
        end = time.monotonic() + SHUTDOWN_S
        while any(slot.pid and not self._bury(slot, os.WNOHANG) for slot in living) and time.monotonic() < end:
            time.sleep(0.02)
        for slot in living:
            self.off(slot.name)
        self._ending = True

    # The loop

    def loop(self) -> None:
        """Serve until somebody asks to end."""
        waking, woken = socket.socketpair()
        for end in (waking, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.down())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(waking, selectors.EVENT_READ, lambda: self._woken(waking))
        while not self._ending:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._look_at_clocks()
        shutil.rmtree(self.run, ignore_errors=True)

    def _woken(self, waking: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            waking.recv(4096)
        self._look_for_dead()

    def _look_for_dead(self) -> None:
        """Take note of nodes that ended by themselves."""
        for slot in self.slots.values():
            if slot.pid:
                self._bury(slot, os.WNOHANG)

    def _patience(self) -> float | None:
        """Return how long nothing has to be done."""
        moments = [
            moment for slot in self.slots.values() for moment in (slot.deadline, slot.on_at) if moment is not None
        ]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        for slot in self.slots.values():
            if slot.deadline is not None and slot.deadline <= now:
                self._overdue(slot)
            if slot.on_at is not None and slot.on_at <= now:
                self.on(slot.name)

    def _overdue(self, slot: Slot) -> None:
        """Cut the power of a node whose watchdog barked, or that does not shut down."""
        again, slot.again, slot.deadline = slot.again, False, None
        self.reset(slot.name, 0.001 if again else self.settings.reboot_s or 0.001)

    def _accept(self) -> None:
        connection, _ = self._control.accept()
        with connection:
            connection.settimeout(5)
            line = bytearray()
            with contextlib.suppress(OSError):
                while not line.endswith(b"\n") and (more := connection.recv(65536)):
                    line += more
            answer = self._answer(bytes(line))
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        """Do what is asked; a node that ended a moment ago is off, though its signal may not have come yet."""
        self._look_for_dead()
        try:
            asked = json.loads(line)
            name = asked.get("node")
            if name is not None and name not in self.slots:
                return {"error": f"no such node '{name}'; there are {', '.join(self.slots)}"}
            return {"result": self._do(asked, name)}
        except Exception as error:  # the rack goes on whatever it is asked
            return {"error": f"{type(error).__name__}: {error}"}

    def _do(self, asked: dict[str, Any], name: str) -> Any:
        match asked["do"]:
            case "status":
                return {slot.name: self._status(slot) for slot in self.slots.values()}
            case "on":
                self.on(name)
            case "off":
                self.off(name)
            case "shutdown":
                self.shutdown(name, bool(asked.get("again")))
            case "reset":
                self.reset(name)
            case "plug":
                self.plug(name, bool(asked["plugged"]))
            case "watchdog":
                seconds = float(asked["timeout_s"])
                living = self.slots[name].pid != 0
                self.slots[name].deadline = time.monotonic() + seconds if living and seconds > 0 else None
            case "down":
                self.down()
            case other:
                raise ClusterError(f"the rack cannot '{other}'")
        return None

    def _status(self, slot: Slot) -> dict[str, Any]:
        said = slot.said.decode(errors="replace").strip()
        return {
            "power": slot.pid != 0,
            "pid": slot.pid,
            "ready": slot.ready,
            "plugged": not (self.run / slot.name / UNPLUGGED).exists(),
            "port": slot.listener.getsockname()[1],
            "error": "" if slot.said.startswith(READY) else said,
        }


def reserve(address: str, port: int) -> socket.socket:
    """Return a socket that holds a port without listening: connections are refused until a node listens there.

    Raises:
        ClusterError: somebody else has the port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        if port:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
                probe.listen()
        holder = socket.socket(family, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((address, port))
    except OSError as error:
        raise ClusterError(f"cannot use port {port} of {address} for the lab cluster: {error.strerror}") from error
    return holder


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started."""
    found = []
    with contextlib.suppress(OSError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in map(int, listing.read_text().split()):
                    found += [child, *descendants(child)]
    return found


def await_end(pids: list[int]) -> None:
    """Wait until processes are gone; one that stays is killed."""
    from ..machine.process import alive, await_end_of  # noqa: PLC0415

    end = time.monotonic() + END_S
    for pid in pids:
        if not await_end_of(pid, max(0.0, end - time.monotonic())) and alive(pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def main(specification: str) -> None:
    """Be the rack.

    Args:
        specification: JSON: ``state``, ``run``, ``settings``, ``ports`` and ``on``, the nodes to switch on at once.
    """
    asked = json.loads(specification)
    settings = dataclasses.replace(Settings.of(**asked["settings"]), password="")
    try:
        rack = Rack(Path(asked["state"]), Path(asked["run"]), settings, asked["ports"])
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    from . import process  # noqa: PLC0415 - what the nodes need, loaded once for all

    process.warm()
    gc.collect()
    gc.freeze()
    for name in asked["on"]:
        rack.on(name)
    rack.loop()


if __name__ == "__main__":
    main(sys.argv[1])
