"""Whether a machine can go to another node, and what keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..config.guest import GuestConfig
from ..storage import of_volume, storage_of
from ..storage.seen import is_on
from . import hardware

if TYPE_CHECKING:
    from ..node import Node

_HOST_DEVICES = ("usb", "hostpci", "parallel", "serial")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another node, as its storages see it."""

    name: str
    state: Any


@dataclass(frozen=True, slots=True)
class LocalVolume:
    """A volume that only one node has.

    Attributes:
        volume: its id.
        key: the drive, empty for one that only a snapshot uses.
        is_cdrom: whether it is an image in a CD drive.
        is_cloudinit: whether it is cloud-init's CD.
        is_unused: whether no drive uses it.
        in_snapshots: whether a snapshot uses it.
        size: in bytes.
    """

    volume: str
    key: str = ""
    is_cdrom: bool = False
    is_cloudinit: bool = False
    is_unused: bool = False
    in_snapshots: bool = False
    size: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether no drive of a running machine uses it."""
        return self.is_unused or not self.key

    def record(self) -> dict[str, Any]:
        """Return it as the call answers."""
        return {
            "volid": self.volume,
            "size": self.size,
            "cdrom": int(self.is_cdrom),
            "is_unused": int(self.is_unused),
            "drivename": self.key,
            "referenced_in_config": int(bool(self.key)),
            "referenced_in_snapshot": int(self.in_snapshots),
        }


def local_resources(values: Mapping[str, str]) -> list[str]:
    """Return the devices of this node that a machine uses."""
    found = []
    for key, value in sorted(values.items()):
        bare = key.rstrip("0123456789")
        if bare not in _HOST_DEVICES or bare == key:
            continue
        if (bare == "usb" and value.startswith("spice")) or (bare == "serial" and value == "socket"):
            continue
        found.append(key)
    return found


def local_volumes(node: Node, config: GuestConfig) -> list[LocalVolume]:
    """Return the volumes of a machine that are not on a shared storage."""
    found: dict[str, LocalVolume] = {}
    frozen = {
        drive.volume
        for section in config.snapshots.values()
        for drive in hardware.drives(section.values)
        if drive.has_volume and not drive.is_cdrom
    } | {section.values["vmstate"] for section in config.snapshots.values() if "vmstate" in section.values}
    for drive in hardware.drives(config.current.values, unused=True):
        if drive.has_volume and not _shared(node, drive.volume):
            found[drive.volume] = LocalVolume(
                drive.volume,
                drive.key,
                drive.is_cdrom and not drive.is_cloudinit,
                drive.is_cloudinit,
                drive.bus == "unused",
                drive.volume in frozen,
                _size(node, drive.volume),
            )
    for volume in sorted(frozen - found.keys()):
        if not _shared(node, volume):
            found[volume] = LocalVolume(volume, in_snapshots=True, size=_size(node, volume))
    return list(found.values())


def _size(node: Node, volume: str) -> int:
    storage = of_volume(node, volume)
    return storage.size(volume) if storage.exists(volume) else 0


def _shared(node: Node, volume: str) -> bool:
    return of_volume(node, volume).shared


def storages_used(config: GuestConfig) -> list[str]:
    """Return the storages that a machine needs, in order."""
    drives = hardware.drives(config.current.values)
    return sorted({drive.volume.partition(":")[0] for drive in drives if drive.has_volume})


def missing_storages(node: Node, config: GuestConfig, target: str) -> list[str]:
    """Return the storages that a machine needs and another node has not."""
    sections = node.state.storages()
    return [
        name
        for name in storages_used(config)
        if name not in sections or sections[name].flag("disable") or not is_on(sections[name], target)
    ]


def assert_storages(node: Node, config: GuestConfig, target: str) -> None:
    """Refuse a node that lacks a storage.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    for name in missing_storages(node, config, target):
        raise ClusterError(f"storage '{name}' is not available on node '{target}'")


def overview(node: Node, vmid: int, target: str | None = None) -> dict[str, Any]:
    """Return the answer of ``GET …/migrate``."""
    config = node.state.load_guest(vmid, node.name, "qemu")
    running = node.guests.is_running(vmid)
    answer: dict[str, Any] = {
        "running": int(running),
        "local_disks": [each.record() for each in local_volumes(node, config)],
        "local_resources": local_resources(config.current.values),
        "mapped-resources": [],
    }
    if not running:
        others = [target] if target else [name for name in node.state.nodes if name != node.name]
        missing = {name: missing_storages(node, config, name) for name in others}
        answer["allowed_nodes"] = [name for name in others if not missing[name] and node.members.online(name)]
        answer["not_allowed_nodes"] = {
            name: {"unavailable_storages": lacks} for name, lacks in missing.items() if lacks
        }
    return answer


def place_for(node: Node, target: str, storage: str) -> Any:
    """Return a storage as another node sees it."""
    return storage_of(Elsewhere(target, node.state), storage)
