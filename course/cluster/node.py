"""A node, as the handlers of calls reach it: its files, tasks, peers, logs, and the layers that live in it.

The layers (machines, containers, storage, network, high availability) are packages beside this module. One that has
something to set up in a node offers ``attach(node)``, which puts its part on the node, and ``detach(node)``, which ends
it; both are plain functions. The order is `LAYERS`.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import importlib.util
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..error import ClusterError
from .access import Access
from .membership import Members
from .peer import Peer
from .route import tolerant
from .settings import Settings
from .state import State
from .statistics import Statistics
from .tasks import Entry, Tasks
from .tickets import Tickets

LAYERS = ("storage", "net", "vm", "ct", "backup", "ha")
LOG_LINES = 2000
LEVELS = {"panic": 0, "alert": 1, "crit": 2, "err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}


class Node:
    """One node of the cluster.

    Args:
        name: such as ``michael``.
        state: the cluster's files, as this node sees them.
        settings: of the cluster.
        members: who is there; None makes this node's view.
        rack: asks the hardware for something; None where there is none, as in a layer's own tests.

    Attributes:
        guests, fabric, ha, storage, containers, consoles: parts that the layers attach.
    """

    guests: Any = None
    fabric: Any = None
    ha: Any = None
    storage: Any = None
    containers: Any = None
    consoles: Any = None

    def __init__(
        self,
        name: str,
        state: State,
        settings: Settings | None = None,
        *,
        members: Members | None = None,
        rack: Any = None,
    ) -> None:
        self.name = name
        self.state = state
        self.settings = settings or Settings()
        self.members = members or Members(state.run, state.nodes, name, self.settings.seen_within_s)
        self.rack = rack
        self.started = time.time()
        self.tickets = Tickets(state, self.settings.ticket_life_s)
        self.tasks = Tasks(name, state.of(name) / "tasks", self._task_ended)
        self.statistics = Statistics(self)
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._log_lock = threading.Lock()
        self._attached: list[Any] = []
        self._access: tuple[object, Access] | None = None

    @property
    def run(self) -> Path:
        """The folder of this node's sockets."""
        return self.state.run / self.name

    @property
    def disk(self) -> Path:
        """The folder that is this node's own disk."""
        return self.state.of(self.name)

    # Others

    def peer(self, name: str) -> Peer:
        """Return another node, to call it.

        Raises:
            ClusterError: the cluster has no such node.
        """
        if name not in self.state.nodes:
            raise ClusterError(
                f"hostname lookup '{name}' failed - failed to get address info for: {name}: Name or service not known"
            )
        return Peer(self, name)

    def access(self) -> Access:
        """Return everybody's rights as they are now."""
        config = self.state.users()
        if self._access is None or self._access[0] is not config:
            self._access = (config, Access(config))
        self._access[1].now = time.time()
        return self._access[1]

    # Logs

    def log(self, text: str, level: str = "info", tag: str = "pvedaemon") -> None:
        """Write to the node's log."""
        stamp = time.strftime("%b %d %H:%M:%S")
        shown = "" if LEVELS.get(level, 6) >= LEVELS["notice"] else f"{level}: "
        with self._log_lock:
            for line in text.splitlines():
                full = f"{stamp} {self.name} {tag}[{os.getpid()}]: {shown}{line}"
                self._log.append(full)
                with contextlib.suppress(OSError), self._log_file().open("a", encoding="utf-8") as file:
                    file.write(full + "\n")

    def _log_file(self) -> Path:
        path = self.disk / "log" / "syslog"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def syslog(self) -> list[str]:
        """Return the last lines of the node's log."""
        with self._log_lock:
            return list(self._log)

    def cluster_log(self, text: str, level: str = "info", user: str = "root@pam", tag: str = "pvedaemon") -> None:
        """Write to the cluster's log, and to the node's."""
        self.log(text, level, tag)
        self.statistics.cluster_log(text, LEVELS.get(level, 6), user, tag)

    def _task_ended(self, entry: Entry) -> None:
        level = "info" if entry.status == "OK" or (entry.status or "").startswith("WARNINGS") else "err"
        self.cluster_log(f"end task {entry.upid} {entry.status}", level, entry.upid.user)
        self.statistics.changed()

    # Periodic work

    def every(self, seconds: float, function: Callable[[], object], name: str = "") -> None:
        """Call a function now and then, in a thread of its own, until the node shuts down; errors go to the log."""

        def work() -> None:
            while not self.stopping.wait(seconds):
                try:
                    function()
                except ClusterError as error:
                    self.log(f"{name or function.__name__}: {error}", "err")
                except Exception:  # one failure must not end what is periodic
                    self.log(f"{name or function.__name__}: {traceback.format_exc()}", "err")

        thread = threading.Thread(target=work, name=name or f"every-{seconds}s", daemon=True)
        self._threads.append(thread)
        thread.start()

    # Life

    def attach(self) -> None:
        """Let the layers put their parts on the node."""
        for layer in LAYERS:
            package = f"{__package__}.{layer}"
            if importlib.util.find_spec(package) is None:
                continue
            with tolerant(f"layer {layer}"):
                module = importlib.import_module(package)
                if hasattr(module, "attach"):
                    module.attach(self)
                    self._attached.append(module)

    def start(self) -> None:
        """Live: join the members, take up what was left, attach the layers."""
        self.members.join()
        for entry in self.tasks.recover():
            self.log(f"task {entry.upid} did not end before the node did", "warning")
        self.attach()
        self.statistics.start()
        self.every(min(2.0, self.settings.seen_within_s / 4), self.members.beat, "beat")
        self.cluster_log(f"node '{self.name}' is up", tag="pmxcfs")

    def stop(self) -> None:
        """End tasks, layers and periodic work, in the reverse order of their beginning."""
        self.stopping.set()
        self.tasks.stop_all()
        for module in reversed(self._attached):
            if hasattr(module, "detach"):
                with contextlib.suppress(Exception):  # the others have to end as well
                    module.detach(self)
        self._attached.clear()
        self.members.leave()
