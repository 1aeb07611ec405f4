"""A real node's two daemons: their world is the node's files, locks and guests, their clock is the wall's.

Why a guest never runs twice, though nodes are killed and cut off at any moment:

- A local resource manager holds a lock of its process on ``locks/ha/ha_agent_<node>_lock`` while it may run services.
  The kernel takes it away when the process dies, and nothing else does: a node without a majority keeps it.
- A node that loses the majority while it holds the lock arms its watchdog for the last time; the rack cuts its power.
- The master takes that lock before it gives away a dead node's guests, looks that no process of that node is left,
  and keeps the lock until everybody can read its decision.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from . import hooks
from .agent import NodeAgent
from .crm import ClusterManager
from .lrm import LocalManager
from .placement import Group
from .resources import execute
from .states import Command, Exit, Resource, Result, ServiceState
from .store import COMMANDS, GROUPS, MANAGER, RESOURCES, Store, local_status
from .world import MANAGER_LOCK, Unreachable, agent_lock

if TYPE_CHECKING:
    from ..node import Node

PATIENT_WATCHDOG_S = 60
"""A node that is busy, but has its majority, is given this much time."""

POLL_S = 0.5
LEAVE_S = 600.0


class Locks:
    """Locks that end with this process. POSIX locks do so, and children do not inherit them.

    Their files stay open for good: closing one would give up the lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handles: dict[str, int] = {}
        self.held: set[str] = set()

    def take(self, name: str) -> bool:
        """Take a lock, or keep it."""
        if name not in self._handles:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._handles[name] = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._handles[name], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self.held.add(name)
        return True

    def give(self, name: str) -> None:
        """Give a lock back."""
        if name in self.held:
            self.held.discard(name)
            fcntl.lockf(self._handles[name], fcntl.LOCK_UN)


def processes_of(run: Path, own: int) -> list[int]:
    """Return the processes whose command line names a node's folder of sockets: what a node leaves when it dies."""
    needle = os.fsencode(f"{run}{os.sep}")
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != own:
            with contextlib.suppress(OSError):
                if needle in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


class LiveWorld:
    """What one daemon of a real node sees.

    Args:
        live: the node's part of high availability.
        daemon: ``crm`` or ``lrm``.
    """

    def __init__(self, live: HighAvailability, daemon: str) -> None:
        self.live = live
        self.daemon = daemon
        self.node = live.node.name
        self._foreign: set[str] = set()

    def now(self) -> int:
        """Return the time in seconds."""
        return int(time.time())

    def log(self, level: str, text: str) -> None:
        """Write to the node's log, and what is urgent to the cluster's."""
        tag = f"pve-ha-{self.daemon}"
        if level == "email":
            self.live.node.cluster_log(text, "notice", tag=tag)
        else:
            self.live.node.log(text, level, tag=tag)

    def refresh(self) -> bool:
        """Files are always up to date here."""
        return True

    def quorate(self) -> bool:
        """Return whether this node sees a majority."""
        return bool(self.live.node.members.quorate())

    def online_nodes(self) -> dict[str, bool]:
        """Return every node and whether this one reaches it."""
        return {node: self.live.node.members.online(node) for node in self.live.node.state.nodes}

    def try_lock(self, name: str) -> bool:
        """Take or keep a lock; a dead node's only when nothing of it is left."""
        locks, had = self.live.locks, name in self.live.locks.held
        if not self.quorate():
            self._without_majority(name)
            return False
        if not locks.take(name):
            return False
        if name not in (MANAGER_LOCK, agent_lock(self.node)):
            dead = name.removeprefix("ha_agent_").removesuffix("_lock")
            if processes_of(self.live.node.state.run / dead, os.getpid()):
                locks.give(name)
                return False
            self._foreign.add(name)
        if not had:
            self.log("info", f"got lock '{name}'")
        return True

    def _without_majority(self, name: str) -> None:
        """Let others be the manager; but keep the node's own lock, and let the watchdog run out."""
        if name == MANAGER_LOCK:
            self.live.locks.give(name)
        elif name == agent_lock(self.node) and name in self.live.locks.held:
            self.live.last_watchdog()

    def release_lock(self, name: str) -> None:
        """Give a lock back."""
        self.live.locks.give(name)

    def read_manager(self) -> dict[str, Any]:
        """Return the manager's status."""
        return self.live.store.status(MANAGER)

    def write_manager(self, document: Mapping[str, Any]) -> None:
        """Replace the manager's status; from now on everybody knows who runs what."""
        self._write(MANAGER, document)
        for name in self._foreign:
            self.live.locks.give(name)
        self._foreign.clear()

    def read_local(self, node: str) -> dict[str, Any]:
        """Return a node's status."""
        return self.live.store.status(local_status(node))

    def write_local(self, document: Mapping[str, Any]) -> None:
        """Replace this node's status."""
        if self.quorate():
            self._write(local_status(self.node), document)

    def _write(self, relative: str, document: Mapping[str, Any]) -> None:
        try:
            self.live.store.keep_status(relative, document)
        except ClusterError as error:
            raise Unreachable(str(error)) from error

    def resources(self) -> dict[str, Resource]:
        """Return what is configured."""
        return self.live.store.resources()

    def groups(self) -> dict[str, Group]:
        """Return the groups."""
        return self.live.store.groups()

    def take_commands(self) -> list[str]:
        """Return what people asked for."""
        try:
            return self.live.store.take_commands()
        except ClusterError as error:
            raise Unreachable(str(error)) from error

    def shutdown_policy(self) -> str:
        """Return ``ha: shutdown_policy=…`` of ``datacenter.cfg``."""
        options = parse_policy(self.live.node.state.datacenter().get("ha", ""))
        return options.get("shutdown_policy", "conditional")

    def move_config(self, sid: str, source: str, target: str) -> None:
        """Give a guest to another node."""
        try:
            self.live.store.move(sid, target)
        except (ClusterError, OSError) as error:
            raise Unreachable(str(error)) from error

    def remove_lock(self, sid: str, kinds: Collection[str]) -> str | None:
        """Take a lock off a guest."""
        try:
            return self.live.store.unlock(sid, kinds)
        except (ClusterError, OSError) as error:
            raise Unreachable(str(error)) from error

    def set_watchdog(self, armed: bool) -> None:
        """Renew the node's watchdog, or switch it off."""
        self.live.watchdog(PATIENT_WATCHDOG_S if armed else 0)

    def begin(self, sid: str, uid: str, command: Command) -> None:
        """Work on a guest in a thread of its own; one that runs as it should needs none."""
        self.live.work(self, sid, uid, command)

    def busy(self, sid: str) -> bool:
        """Return whether a guest is being worked on."""
        return self.live.busy(sid)

    def finished(self) -> dict[str, Result]:
        """Return what ended since the last call."""
        return self.live.finished()

    def local_running(self, sid: str) -> bool:
        """Return whether a guest runs here."""
        return self.live.agent.running(sid)


def parse_policy(text: str) -> dict[str, str]:
    """Read a property string without looking at what it may hold."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {key.strip(): value.strip() for key, _, value in pairs}


class HighAvailability:
    """A node's part of high availability: ``node.ha``.

    Args:
        node: whose.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.store = Store(node.state)
        self.locks = Locks(node.state.root / "locks" / "ha")
        self.agent = NodeAgent(node)
        self._guard = threading.Lock()
        self._done: dict[str, Result] = {}
        self._busy: set[str] = set()
        self._turn = threading.Lock()
        self._idle, self._resigned = threading.Event(), threading.Event()
        self._next_tick = 0.0
        self._seen: tuple[object, ...] = ()
        self._last_watchdog = False
        self._watchdog_s = 0.0
        self._worlds = {daemon: LiveWorld(self, daemon) for daemon in ("crm", "lrm")}
        self.crm = ClusterManager(self._worlds["crm"], fence_delay_s=max(1, round(node.settings.fence_delay_s)))
        self.lrm = LocalManager(self._worlds["lrm"])

    def start(self) -> None:
        """Look after the services from now on."""
        self.node.every(min(POLL_S, self.node.settings.ha_tick_s), self._poll, "ha")

    def close(self) -> None:
        """Stop looking after them.

        The locks stay: they end with the process, when its guests have ended. Nor is the rack asked for anything, which
        may be waiting for this very end; it forgets the watchdog of a node that is gone.
        """
        self.node.stopping.set()

    def _poll(self) -> None:
        """Do a round when it is time for one, or when something changed."""
        seen = self._signature()
        if time.monotonic() >= self._next_tick or seen != self._seen:
            self._seen = seen
            self._next_tick = time.monotonic() + self.node.settings.ha_tick_s
            self.tick()

    def _signature(self) -> tuple[object, ...]:
        names = [RESOURCES, GROUPS, COMMANDS, MANAGER, *map(local_status, self.node.state.nodes)]
        with self._guard:
            busy = (len(self._done), len(self._busy))
        return (*(_changed(self.node.state.path(name)) for name in names), tuple(self.node.members.alive()), busy)

    def tick(self) -> None:
        """Let both daemons do a round."""
        with self._turn:
            if self.node.stopping.is_set():
                return
            if not self._resigned.is_set() and not self.crm.iterate():
                self._resigned.set()
            if not self._idle.is_set() and not self.lrm.iterate():
                self._idle.set()

    def leave(self, request: str, then: Callable[[], object]) -> None:
        """Prepare the node's end as the cluster's shutdown policy says: stop, freeze or move its services.

        Args:
            request: ``shutdown`` or ``reboot``.
            then: is called when nothing is left to do, or it takes too long.
        """
        with self._turn:
            self.lrm.stop(request)
        self._next_tick = 0.0

        def wait() -> None:
            if self._idle.wait(LEAVE_S):
                self.crm.stop()
                self._next_tick = 0.0
                self._resigned.wait(LEAVE_S)
            then()

        threading.Thread(target=wait, name="ha-leave", daemon=True).start()

    def managed(self, vmid: int) -> bool:
        """Return whether a guest is looked after."""
        return hooks.managed(self.node.state, vmid) is not None

    def request(self, sid: str, wish: str, target: str = "") -> None:
        """Ask for a service: ``start``, ``stop``, ``shutdown`` or, with a node, ``migrate``."""
        hooks.ask(self.store, sid, wish, target=target)

    # The watchdog

    def watchdog(self, timeout_s: float) -> None:
        """Arm the rack's watchdog anew; 0 switches it off."""
        self._last_watchdog = False
        if self.node.rack is not None and (timeout_s or self._watchdog_s):
            self.node.rack.watchdog(timeout_s)
        self._watchdog_s = timeout_s

    def last_watchdog(self) -> None:
        """Let the watchdog run out after the time that others wait before they fence this node."""
        if not self._last_watchdog:
            self.watchdog(self.node.settings.fence_delay_s)
            self._last_watchdog = True

    # Work on guests

    def work(self, world: LiveWorld, sid: str, uid: str, command: Command) -> None:
        """Begin to work on a guest, unless that is being done."""
        if command.kind is ServiceState.STARTED and self.agent.running(sid):
            with self._guard:
                self._done[uid] = Result(sid, Exit.SUCCESS)
            return
        with self._guard:
            if sid in self._busy:
                return
            self._busy.add(sid)

        def run() -> None:
            ended = Exit.ERROR
            try:
                ended = execute(self.agent, sid, command, world.log)
            except (ClusterError, OSError) as error:
                world.log("err", f"service {sid}: {error}")
            finally:
                with self._guard:
                    self._busy.discard(sid)
                    self._done[uid] = Result(sid, ended)

        threading.Thread(target=run, name=f"ha-{sid}", daemon=True).start()

    def busy(self, sid: str) -> bool:
        """Return whether a guest is being worked on: its configuration may be on its way to another node."""
        with self._guard:
            return sid in self._busy or any(result.sid == sid for result in self._done.values())

    def finished(self) -> dict[str, Result]:
        """Return, and forget, what ended."""
        with self._guard:
            done, self._done = self._done, {}
        return done


def _changed(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
