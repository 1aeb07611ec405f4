"""Giving a disk to another machine: the volume gets the other one's number in its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..config.guest import GuestConfig
from ..storage import of_volume
from . import hardware

if TYPE_CHECKING:
    from ..node import Node

Log = Callable[[str], None]


def check(node: Node, values: Mapping[str, Any]) -> tuple[GuestConfig, GuestConfig]:
    """Return both configurations if a disk can be given away.

    Raises:
        ClusterError: it cannot; the words are Proxmox VE's.
    """
    vmid, target, disk = values["vmid"], values["target-vmid"], values["disk"]
    goal = values.get("target-disk", disk)
    if vmid == target:
        raise ClusterError("must be different than source VMID to reassign disk")
    source, other = node.state.load_guest(vmid, node.name, "qemu"), node.state.load_guest(target, None, "qemu")
    if node.state.guest(target).node != node.name:
        raise ClusterError("Both VMs need to be on the same node")
    source.assert_unlocked()
    other.assert_unlocked()
    source.assert_unchanged(values.get("digest"))
    other.assert_unchanged(values.get("target-digest"))
    if disk not in source.current.values:
        raise ClusterError(f"disk '{disk}' for VM {vmid} does not exist")
    drive = hardware.drive(disk, source.current.values[disk])
    if drive.is_cdrom or not drive.has_volume:
        raise ClusterError(f"Can't move CD ROM disk '{disk}' to another VM")
    if goal in other.current.values:
        raise ClusterError(f"Target disk key '{goal}' is already in use for VM '{target}'")
    if not of_volume(node, drive.volume).has_feature("rename", drive.volume):
        raise ClusterError(f"Storage does not support moving of this disk to another VM: '{drive.volume}'")
    if node.guests.is_running(vmid) and not disk.startswith("unused"):
        raise ClusterError("Can't move disk of running VM to another VM")
    for name, snapshot in source.snapshots.items():
        if drive.volume in {each.volume for each in hardware.drives(snapshot.values)}:
            raise ClusterError(f"Can't move disk used by snapshot '{name}' to another VM")
    return source, other


def reassign(node: Node, values: Mapping[str, Any], log: Log) -> None:
    """Give a disk to another machine.

    Raises:
        ClusterError: it cannot be given.
    """
    vmid, target, disk = values["vmid"], values["target-vmid"], values["disk"]
    goal = values.get("target-disk", disk)
    first, second = sorted((vmid, target))
    with node.state.lock(f"lock-{first}.conf"), node.state.lock(f"lock-{second}.conf"):
        source, other = check(node, values)
        drive = hardware.drive(disk, source.current.values[disk])
        log(f"moving disk '{disk}' from VM '{vmid}' to '{target}'")
        volume = of_volume(node, drive.volume).rename(drive.volume, target)
        del source.current.values[disk]
        node.state.save_guest(node.name, "qemu", vmid, source)
        log(f"removing disk '{disk}' from VM '{vmid}' config")
        kept = drive.but(file=volume)
        other.current.values[goal] = volume if goal.startswith("unused") else kept.text()
        node.state.save_guest(node.name, "qemu", target, other)
    log(f"added disk '{goal}: {other.current.values[goal]}' to VM '{target}' config")
