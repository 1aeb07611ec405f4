"""A real node's way to its guests: the tasks that a person would have started, as root."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .store import vmid_of

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task, Work

ROOT = "root@pam"
SHUTDOWN_S = 60


def _layer(sid: str, module: str) -> Any:
    """Return a module of the layer that a guest belongs to; both layers offer the same functions."""
    layer = "vm" if sid.startswith("vm:") else "ct"
    return importlib.import_module(f"...{layer}.{module}", __name__)


class NodeAgent:
    """Starts, stops and moves the guests of a node.

    Args:
        node: whose.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    def running(self, sid: str) -> bool:
        """Return whether a guest runs here."""
        registry = self.node.guests if sid.startswith("vm:") else self.node.containers
        return registry is not None and bool(registry.is_running(vmid_of(sid)))

    def start(self, sid: str) -> None:
        """Start it; its task says what went wrong."""

        def work(task: Task) -> None:
            _layer(sid, "lifecycle").start(self.node, vmid_of(sid), task.log)

        self._run("start", sid, work)

    def stop(self, sid: str, timeout_s: int | None) -> None:
        """Stop it: gently, or at once with a timeout of 0; what does not end in time is made to."""

        def work(task: Task) -> None:
            if timeout_s == 0:
                _layer(sid, "lifecycle").stop(self.node, vmid_of(sid), task.log)
            else:
                within = float(timeout_s or SHUTDOWN_S)
                _layer(sid, "lifecycle").shutdown(self.node, vmid_of(sid), task, timeout_s=within, force=True)

        self._run("stop" if timeout_s == 0 else "shutdown", sid, work)

    def may_move(self, sid: str) -> bool:
        """Every guest may be tried."""
        return True

    def move(self, sid: str, target: str, *, online: bool) -> bool:
        """Move it to another node; return whether its configuration is there now."""

        def work(task: Task) -> None:
            _layer(sid, "migrate").migrate(self.node, vmid_of(sid), target, task, online=online)

        self._run("migrate", sid, work)
        place = self.node.state.guests().get(vmid_of(sid))
        return place is not None and place.node == target

    def _run(self, action: str, sid: str, work: Work) -> None:
        prefix = "qm" if sid.startswith("vm:") else "vz"
        self.node.tasks.run(f"{prefix}{action}", str(vmid_of(sid)), ROOT, work)
