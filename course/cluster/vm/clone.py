"""Copies of machines, full ones and linked ones, and templates.

A full clone has disks of its own. A linked clone's disks read from the template's, which are never written again, and
keep only what changed; so it is there at once, and the template cannot go while it lives.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from .. import userfile
from ..config.guest import GuestConfig, Section
from ..storage import of_volume, storage_of
from . import allocation, disks, hardware, preconditions
from .hardware import Drive
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

_NOT_CLONED = ("lock", "parent", "snaptime", "snapstate", "vmstate", "runningmachine", "runningcpu", "template")


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a clone is to be.

    Attributes:
        vmid: of the source.
        newid: of the clone.
        full: whether it gets disks of its own.
        snapshot: to copy from; None for the machine as it is.
        name, description, pool, storage, format, target: as given.
        drives: to copy.
        values: the source's settings.
        volumes: what was made, to be removed when the work fails.
    """

    vmid: int
    newid: int
    full: bool
    snapshot: str | None = None
    name: str | None = None
    description: str | None = None
    pool: str | None = None
    storage: str | None = None
    format: str | None = None
    target: str | None = None
    drives: list[Drive] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)


def plan(node: Node, given: Mapping[str, Any]) -> Plan:
    """Look whether a machine can be cloned as a client wants, and how.

    Raises:
        ClusterError: it cannot; the words are Proxmox VE's.
    """
    vmid = given["vmid"]
    config = node.state.load_guest(vmid, node.name, "qemu")
    config.assert_unlocked(unless="backup")
    snapshot = given.get("snapname")
    if snapshot and snapshot not in config.snapshots:
        raise ClusterError(f"snapshot '{snapshot}' does not exist")
    values = config.snapshots[snapshot].values if snapshot else config.current.values
    full = bool(given.get("full", not hardware.flag(config.current.values, "template")))
    if given.get("storage") and not full:
        raise ClusterError("parameter 'storage' not allowed for linked clones")
    if given.get("format") and not full:
        raise ClusterError("parameter 'format' not allowed for linked clones")
    found = Plan(
        vmid=vmid,
        newid=given["newid"],
        full=full,
        snapshot=snapshot,
        values=dict(values),
        name=given.get("name"),
        description=given.get("description"),
        pool=given.get("pool"),
        storage=given.get("storage"),
        format=given.get("format"),
        target=given.get("target"),
    )
    _check_drives(node, found)
    return found


def _check_drives(node: Node, found: Plan) -> None:
    for drive in hardware.drives(found.values):
        if not drive.has_volume or (drive.is_cdrom and not drive.is_cloudinit):
            continue
        storage = of_volume(node, drive.volume)
        if found.target and found.target != node.name and not storage.shared:
            raise ClusterError(f"can't clone VM to node '{found.target}' (VM uses local storage)")
        if drive.is_cloudinit or found.full:
            if not drive.is_cloudinit and not storage.has_feature("copy", drive.volume, found.snapshot):
                raise ClusterError(f"Full clone feature is not supported for '{drive.volume}' ({drive.key})")
        elif not storage.has_feature("clone", drive.volume, found.snapshot):
            raise ClusterError(f"Linked clone feature is not supported for '{drive.volume}' ({drive.key})")
        found.drives.append(drive)
    if found.target and found.target != node.name:
        missing = preconditions.missing_storages(node, GuestConfig(Section(found.values)), found.target)
        for name in missing:
            raise ClusterError(f"storage '{name}' is not available on node '{found.target}'")


def clone(node: Node, wanted: Plan, task: Task) -> None:
    """Clone a machine whose clone's number is taken already.

    Raises:
        ClusterError: it could not be cloned; nothing is left of the clone.
    """
    try:
        with node.state.lock(f"lock-{wanted.vmid}.conf"):
            values = _copied(node, wanted, task)
        _personal(values, wanted)
        description = wanted.description
        config = GuestConfig(Section(values, f"{description}\n" if description else None))
        with node.state.guest_lock(wanted.newid, node.name, "qemu") as reserved:
            reserved.current = config.current
        rules = node.state.read(f"firewall/{wanted.vmid}.fw")
        if rules:
            node.state.write(f"firewall/{wanted.newid}.fw", rules)
        if wanted.target and wanted.target != node.name:
            node.state.move_guest(wanted.newid, wanted.target)
    except BaseException as error:
        for volume in reversed(wanted.volumes):
            _forget(node, volume, task)
        node.state.delete_guest(wanted.newid)
        node.state.delete(f"firewall/{wanted.newid}.fw")
        if isinstance(error, ClusterError):
            raise ClusterError(f"clone failed: {error.message}") from error
        raise
    if wanted.pool:
        userfile.join_pool(node.state, wanted.newid, wanted.pool)
    node.statistics.changed()


def _forget(node: Node, volume: str, task: Task) -> None:
    try:
        of_volume(node, volume).free(volume)
    except ClusterError as error:
        task.log(f"unable to remove volume '{volume}' - {error.message}")


def _copied(node: Node, wanted: Plan, task: Task) -> dict[str, str]:
    """Return the clone's settings, its disks made."""
    copied = {drive.key for drive in wanted.drives}
    values = {
        key: value
        for key, value in wanted.values.items()
        if key not in _NOT_CLONED and not key.startswith("unused") and key not in copied
    }
    running: RunningVm | None = node.guests.get(wanted.vmid) if not wanted.snapshot else None
    with disks.standing_still(running if wanted.full else None):
        for drive in wanted.drives:
            task.check_stop()
            volume = _copy(node, wanted, drive, task, running)
            wanted.volumes.append(volume)
            values[drive.key] = drive.but(file=volume).text()
    return values


def _copy(node: Node, wanted: Plan, drive: Drive, task: Task, running: RunningVm | None) -> str:
    origin = of_volume(node, drive.volume)
    place = storage_of(node, wanted.storage) if wanted.storage else origin
    if drive.is_cloudinit:
        fresh: str = place.alloc(wanted.newid, _format_for(origin, place, drive), 4 << 20, purpose="cloudinit")
        return fresh
    if not wanted.full:
        task.log(f"create linked clone of drive {drive.key} ({drive.volume})")
        linked: str = origin.clone_linked(drive.volume, wanted.newid, log=task.log)
        return linked
    task.log(f"create full clone of drive {drive.key} ({drive.volume})")
    place.require("images")
    if running is not None and drive.volume in {each.volume for each in hardware.drives(running.values)}:
        return disks.copy_running(
            node,
            running,
            drive.key,
            place,
            newid=wanted.newid,
            wanted=wanted.format or origin.format(drive.volume),
            task=task,
        )
    copy: str = origin.copy(
        drive.volume,
        place,
        wanted.newid,
        format=wanted.format,
        progress=allocation.progress(task.log),
        snapshot=wanted.snapshot,
        check_stop=task.check_stop,
    )
    return copy


def _format_for(origin: Any, place: Any, drive: Drive) -> str:
    kind = str(origin.format(drive.volume))
    return kind if kind in place.formats else str(place.default_format)


def _personal(values: dict[str, str], wanted: Plan) -> None:
    """Give a clone what no two machines share."""
    values["name"] = wanted.name or f"Copy-of-VM-{values.get('name', wanted.vmid)}"
    smbios = [part for part in values.get("smbios1", "").split(",") if part and not part.startswith("uuid=")]
    values["smbios1"] = ",".join([f"uuid={uuid.uuid4()}", *smbios])
    if values.get("vmgenid", "0") != "0":
        values["vmgenid"] = str(uuid.uuid4())
    for card in hardware.nics(values):
        card.options["macaddr"] = hardware.random_mac()
        values[card.key] = card.text()


def template(node: Node, vmid: int, task: Task, disk: str | None = None) -> None:
    """Make a machine a template: its disks are never written again.

    Raises:
        ClusterError: it cannot be one.
    """
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        config.assert_unlocked()
        check_template(node, vmid, config, disk)
        values = config.current.values
        for drive in list(hardware.drives(values)):
            if not drive.is_disk or not drive.has_volume or (disk and drive.key != disk):
                continue
            storage = of_volume(node, drive.volume)
            if storage.volume(drive.volume).is_base:
                continue
            task.check_stop()
            base = storage.create_base(drive.volume)
            values[drive.key] = drive.but(file=base).text()
        values["template"] = "1"
    node.statistics.changed()


def check_template(node: Node, vmid: int, config: GuestConfig, disk: str | None = None) -> None:
    """Refuse to make a template of what cannot be one.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    values = config.current.values
    if config.snapshots:
        raise ClusterError("unable to create template, because VM contains snapshots")
    if hardware.flag(values, "template") and not disk:
        raise ClusterError("you can't convert a template to a template")
    if node.guests.is_running(vmid):
        raise ClusterError("you can't convert a VM to template if VM is running")
    if disk and disk not in values:
        raise ClusterError(f"disk '{disk}' does not exist")
    for drive in hardware.drives(values):
        if drive.is_disk and drive.has_volume and (not disk or drive.key == disk):
            storage = of_volume(node, drive.volume)
            if not storage.has_feature("template", drive.volume) and not storage.volume(drive.volume).is_base:
                raise ClusterError(f"Template feature is not available for '{drive.volume}'")
