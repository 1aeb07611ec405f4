"""Snapshots of containers: the settings, and a copy of the disk on storages that can make one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..config.guest import GuestConfig
from . import lifecycle, settings

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

KEPT = ("snaptime", "snapstate", "description")
RESERVED = ("current", "pending", "vzdump")

Log = Callable[[str], None]


def listing(node: Node, vmid: int) -> list[dict[str, Any]]:
    """Return the snapshots, and at the end the container as it is now."""
    config = node.state.load_guest(vmid, node.name, "lxc")
    found = []
    for name, section in config.snapshots.items():
        entry: dict[str, Any] = {
            "name": name,
            "snaptime": int(section.values.get("snaptime", 0)),
            "description": (section.description or "").removesuffix("\n"),
        }
        if "parent" in section.values:
            entry["parent"] = section.values["parent"]
        found.append(entry)
    now: dict[str, Any] = {
        "name": "current",
        "description": "You are here!",
        "running": int(node.containers.is_running(vmid)),
        "digest": config.digest,
    }
    if "parent" in config.current.values:
        now["parent"] = config.current.values["parent"]
    return [*found, now]


def require(config: GuestConfig, name: str) -> None:
    """Refuse the name of a snapshot that is not there.

    Raises:
        ClusterError: it is not.
    """
    if name not in config.snapshots:
        raise ClusterError(f"snapshot '{name}' does not exist")


def create(node: Node, vmid: int, name: str, description: str = "") -> None:
    """Take a snapshot; a running container stands still meanwhile.

    Raises:
        ClusterError: the name is taken, or the storage cannot do it.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        settings.assert_unlocked(config)
        values = config.current.values
        if name in RESERVED or name in config.snapshots:
            raise ClusterError(f"snapshot name '{name}' already used")
        if settings.flag(values, "template"):
            raise ClusterError("you can't take a snapshot if it's a template")
        storage, volume = settings.storage_of_root(node, values)
        if not storage.has_feature("snapshot", volume):
            raise ClusterError("snapshot feature is not available")
        section = config.current.copy()
        section.description = description + "\n" if description else None
        section.values |= {"snaptime": str(int(time.time()))}
        running = node.containers.get(vmid)
        try:
            if running:
                running.freeze(True)
            storage.snapshot(volume, name)
        finally:
            if running:
                running.freeze(False)
        config.snapshots[name] = section
        values["parent"] = name


def rollback(node: Node, vmid: int, name: str, task: Task, *, start: bool = False) -> None:
    """Bring a container back to a snapshot; one that runs is ended before.

    Raises:
        ClusterError: there is no such snapshot.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        settings.assert_unlocked(config)
        require(config, name)
        running = node.containers.get(vmid)
        if running is not None:
            running.kill()
        section = config.snapshots[name].copy()
        storage, volume = settings.storage_of_root(node, section.values)
        storage.rollback(volume, name)
        for key in KEPT:
            section.values.pop(key, None)
        section.values["parent"] = name
        section.description = config.current.description
        config.current = section
    if start:
        lifecycle.start(node, vmid, task.log)
    node.statistics.changed()


def delete(node: Node, vmid: int, name: str, *, force: bool = False) -> None:
    """Remove a snapshot; those that came after it follow the one before it.

    Raises:
        ClusterError: there is no such snapshot.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        settings.assert_unlocked(config)
        require(config, name)
        section = config.snapshots[name]
        storage, volume = settings.storage_of_root(node, section.values)
        try:
            storage.delete_snapshot(volume, name)
        except ClusterError:
            if not force:
                raise
        parent = section.values.get("parent")
        del config.snapshots[name]
        for other in (config.current, *config.snapshots.values()):
            if other.values.get("parent") == name:
                del other.values["parent"]
                if parent:
                    other.values["parent"] = parent


def describe(node: Node, vmid: int, name: str, description: str) -> None:
    """Change a snapshot's description.

    Raises:
        ClusterError: there is no such snapshot.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        require(config, name)
        config.snapshots[name].description = description + "\n" if description else None
