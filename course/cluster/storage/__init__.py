"""Storages: what ``storage.cfg`` says there is, as one node sees it.

A path in ``storage.cfg`` is a path on a node of the lab. The nodes have disks of their own below the state directory,
and nothing outside of it is touched::

    dir: local, path /var/lib/vz         <state>/nodes/<node>/vz
    dir: x, path /mnt/x                  <state>/nodes/<node>/disks/mnt/x
    dir or nfs: shared, shared 1         <state>/shared/mnt/pve/shared       the same for all nodes
    lvmthin: local-lvm, pool pve/data    <state>/nodes/<node>/lvm
"""

from __future__ import annotations

from .base import Storage
from .directory import DirectoryStorage
from .room import Status, set_capacity
from .seen import of_volume, storage_of, storages
from .thin import ThinStorage

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
