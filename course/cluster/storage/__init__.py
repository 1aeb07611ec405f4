"""Storages: what ``storage.cfg`` says there is, as one node sees it.

A path in ``storage.cfg`` is a path on a node of the lab. The nodes have disks of their own below the state directory,
and nothing outside of it is touched::

    dir: local, path /var/lib/vz         <state>/nodes/<node>/vz
    dir: x, path /mnt/x                  <state>/nodes/<node>/disks/mnt/x
    dir: shared, path /mnt/pve/shared    <state>/shared                      the same for all nodes
    other shared ones, path /mnt/y       <state>/mounts/mnt/y                the same for all nodes
    lvmthin: local-lvm, pool pve/data    <state>/nodes/<node>/lvm
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ...error import ClusterError
from .base import Storage
from .directory import DirectoryStorage
from .room import CAPACITY_FILE, Status, set_capacity
from .seen import of_volume, storage_of, storages
from .thin import ThinStorage

if TYPE_CHECKING:
    from ..node import Node

__all__ = [
    "DirectoryStorage",
    "Status",
    "Storage",
    "ThinStorage",
    "of_volume",
    "set_capacity",
    "storage_of",
    "storages",
]

LIMITS_S = 5.0
"""How often running machines are told how far they may write."""


def attach(node: Node) -> None:
    """Make the disks of a node that comes to life, sweep what it left unfinished, and say how full they are."""
    for storage in storages(node).values():
        storage.root.mkdir(parents=True, exist_ok=True)
        for path in storage.sweep():
            node.log(f"storage '{storage.name}': removed '{path.name}', which was never finished", "warning")
    pool = node.disk / "lvm"
    if not (pool / CAPACITY_FILE).exists():
        set_capacity(pool, node.settings.thin_pool_bytes)
    node.statistics.sources.append(lambda: resources(node))
    node.every(LIMITS_S, lambda: keep_limits(node), "storage-limits")


def keep_limits(node: Node) -> None:
    """Tell the running machines where their storages end now; those that something works on are left alone."""
    from ..vm import lifecycle  # noqa: PLC0415 - both packages know of each other

    for running in list(node.guests or ()):
        place = node.state.guests().get(running.vmid)
        if place is None or running.incoming or node.state.view_guest(place).current.values.get("lock"):
            continue
        with contextlib.suppress(ClusterError):  # it may have ended just now
            if running.qmpstatus in ("running", "paused", "io-error"):
                lifecycle.widen(node, running)


def resources(node: Node) -> list[dict[str, object]]:
    """Return the node's storages as ``/cluster/resources`` shows them."""
    found: list[dict[str, object]] = []
    for storage in storages(node).values():
        status = storage.status(fresh=False)
        found.append(
            {
                "type": "storage",
                "id": f"storage/{node.name}/{storage.name}",
                "node": node.name,
                "storage": storage.name,
                "status": "available" if status.active else "unknown",
                "plugintype": storage.kind,
                "content": ",".join(sorted(storage.content)),
                "shared": int(storage.shared),
                "disk": status.used,
                "maxdisk": status.total,
            }
        )
    return found
