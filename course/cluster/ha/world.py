"""What the two daemons of a node see: their clock, the others, locks, files and the guests of their node.

`simulation` provides it with a virtual clock, a live node with its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from .placement import Group
from .states import Command, Resource, Result

MANAGER_LOCK = "ha_manager_lock"


def agent_lock(node: str) -> str:
    """Return the name of the lock that a node's local resource manager holds while it may run services."""
    return f"ha_agent_{node}_lock"


class Unreachable(Exception):  # noqa: N818 - a state, as in FileNotFound
    """The shared files cannot be read or written now."""


class World(Protocol):
    """One node, seen by one of its daemons."""

    node: str

    def now(self) -> int:
        """Return the time in seconds."""

    def log(self, level: str, text: str) -> None:
        """Write a line to the node's log; the level ``email`` also tells the administrator."""

    def refresh(self) -> bool:
        """Bring the view of the shared files up to date; False where they are inconsistent for a while."""

    def quorate(self) -> bool:
        """Return whether this node sees a majority."""

    def online_nodes(self) -> dict[str, bool]:
        """Return every node of the cluster and whether this one sees it."""

    def try_lock(self, name: str) -> bool:
        """Take or keep a lock that the whole cluster knows."""

    def release_lock(self, name: str) -> None:
        """Give a lock back."""

    def read_manager(self) -> dict[str, Any]:
        """Return ``manager_status``."""

    def write_manager(self, document: Mapping[str, Any]) -> None:
        """Replace ``manager_status``."""

    def read_local(self, node: str) -> dict[str, Any]:
        """Return a node's ``lrm_status``."""

    def write_local(self, document: Mapping[str, Any]) -> None:
        """Replace this node's ``lrm_status``."""

    def resources(self) -> dict[str, Resource]:
        """Return what is configured, by service."""

    def groups(self) -> dict[str, Group]:
        """Return the groups that are configured."""

    def take_commands(self) -> list[str]:
        """Return, and forget, what people asked of the manager."""

    def shutdown_policy(self) -> str:
        """Return ``shutdown_policy`` of ``datacenter.cfg``."""

    def move_config(self, sid: str, source: str, target: str) -> None:
        """Give a service's configuration to another node."""

    def remove_lock(self, sid: str, kinds: Collection[str]) -> str | None:
        """Take one of these locks off a service's configuration; return which."""

    def set_watchdog(self, armed: bool) -> None:
        """Arm the watchdog anew, or switch it off. An armed one that nobody renews turns the node's power off."""

    def begin(self, sid: str, uid: str, command: Command) -> None:
        """Start working on a service; a second call for one that is being worked on is ignored."""

    def busy(self, sid: str) -> bool:
        """Return whether a service is being worked on, or an end of that was not told yet."""

    def finished(self) -> dict[str, Result]:
        """Return, and forget, what ended since the last call, by `uid`."""

    def local_running(self, sid: str) -> bool:
        """Return whether a service runs on this node."""
