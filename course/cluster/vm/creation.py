"""Making a machine, and removing it with all that belongs to it."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...error import ClusterError, CourseError
from ...machine import qemu
from .. import userfile
from ..config import files
from ..config.guest import GuestConfig, Section
from ..ha import hooks
from ..storage import of_volume, storages
from . import allocation, hardware

if TYPE_CHECKING:
    from ..node import Node

Log = Callable[[str], None]


def create(
    node: Node, vmid: int, settings: Mapping[str, str], log: Log, *, pool: str | None = None, storage: str | None = None
) -> None:
    """Make a machine whose file `reserve` made: its disks, then its configuration.

    Args:
        node: where.
        vmid: its number.
        settings: normalized ones.
        log: of the task.
        pool: that it belongs to.
        storage: for disks that name none.

    Raises:
        ClusterError: something could not be made; nothing is left of it.
    """
    values = dict(settings)
    try:
        made = allocation.make(node, vmid, values, log, storage=storage)
        values |= made.settings
        description = values.pop("description", None)
        try:
            _complete(values)
            hardware.assert_boot_order(values)
            config = GuestConfig(Section(values, None if description is None else description + "\n"))
            with node.state.guest_lock(vmid, node.name, "qemu") as reserved:
                reserved.current = config.current
        except BaseException:
            made.undo(node, log)
            raise
    except BaseException as error:
        with contextlib.suppress(ClusterError):
            node.state.delete_guest(vmid)
        if isinstance(error, CourseError):
            words = error.message if isinstance(error, ClusterError) else str(error)
            raise ClusterError(f"unable to create VM {vmid} - {words}") from error
        raise
    if pool:
        userfile.join_pool(node.state, vmid, pool)
    node.statistics.changed()


def reserve(node: Node, vmid: int, lock: str = "create") -> None:
    """Take a number for a machine that is being made.

    Raises:
        ClusterError: it is taken.
    """
    node.state.create_guest(node.name, "qemu", vmid, GuestConfig(Section({"lock": lock})))


def _complete(values: dict[str, str]) -> None:
    """Add what every machine has: identities, the boot order, addresses of network cards."""
    values.setdefault("smbios1", f"uuid={uuid.uuid4()}")
    if "uuid=" not in values["smbios1"]:
        values["smbios1"] = f"{values['smbios1']},uuid={uuid.uuid4()}"
    if values.get("vmgenid", "1") == "1":
        values["vmgenid"] = str(uuid.uuid4())
    values["meta"] = f"creation-qemu={'.'.join(map(str, qemu.version()))},ctime={int(time.time())}"
    give_macs(values)
    if "boot" not in values and "bootdisk" not in values:
        values["boot"] = "order=" + ";".join(_boot_devices(values))


def give_macs(values: dict[str, str]) -> None:
    """Give each network card that has no address one."""
    for card in hardware.nics(values):
        if not card.mac:
            card.options["macaddr"] = hardware.random_mac()
        values[card.key] = card.text()


def _boot_devices(values: Mapping[str, str]) -> list[str]:
    """Return what a machine that was told nothing boots from: its first disk, its first CD drive, its first card."""
    drives = [drive for drive in hardware.drives(values) if drive.bus in hardware.BUSES and not drive.is_cloudinit]
    disks = [drive.key for drive in drives if not drive.is_cdrom]
    cds = [drive.key for drive in drives if drive.is_cdrom]
    return [*disks[:1], *cds[:1], *[card.key for card in hardware.nics(values)][:1]]


def assert_removable(node: Node, vmid: int, config: GuestConfig, *, skiplock: bool, purge: bool) -> None:
    """Refuse to remove a machine that is in use.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    if not skiplock:
        config.assert_unlocked()
    if hardware.flag(config.current.values, "protection"):
        raise ClusterError(f"can't remove VM {vmid} - protection mode enabled")
    hooks.refuse_destroy(node, vmid, purge=purge)
    if node.guests.is_running(vmid):
        raise ClusterError(f"VM {vmid} is running - destroy failed")


def destroy(
    node: Node, vmid: int, log: Log, *, skiplock: bool = False, purge: bool = False, unreferenced: bool = False
) -> None:
    """Remove a machine, its volumes, and what names it.

    Args:
        node: that has it.
        vmid: its number.
        log: of the task.
        skiplock: whether a lock does not matter.
        purge: remove it from backup jobs and high availability too.
        unreferenced: remove volumes of its number that it does not use.

    Raises:
        ClusterError: it is in use.
    """
    with node.state.lock(f"lock-{vmid}.conf"):
        config = node.state.load_guest(vmid, node.name, "qemu")
        assert_removable(node, vmid, config, skiplock=skiplock, purge=purge)
        own = volumes_of(config)
        _check_clones(node, own)
        if purge:
            log(f"purging VM {vmid} from related configurations..")
            _purge(node, vmid)
        config.current.values["lock"] = "destroyed"
        node.state.save_guest(node.name, "qemu", vmid, config)
        for volume in own:
            remove_volume(node, vmid, volume, log)
        if unreferenced:
            for storage in storages(node, "images").values():
                for found in storage.volumes("images", vmid):
                    remove_volume(node, vmid, found["volid"], log)
        node.state.delete_guest(vmid)
        node.state.delete(f"firewall/{vmid}.fw")
    userfile.forget_guest(node.state, vmid)
    node.statistics.changed()


def _check_clones(node: Node, volumes: list[str]) -> None:
    """Refuse to remove a template that linked clones read from, before anything of it is gone."""
    for volume in volumes:
        with contextlib.suppress(KeyError):
            storage = of_volume(node, volume)
            parsed = storage.volume(volume)
            if parsed.is_base and storage.exists(volume):
                storage._check_unused(parsed)


def volumes_of(config: GuestConfig) -> list[str]:
    """Return the volumes of a machine: of its drives, of its snapshots, unused ones, saved states."""
    found: dict[str, None] = {}
    for section in (config.current, config.pending, *config.snapshots.values()):
        for drive in hardware.drives(section.values, unused=True):
            if (
                drive.has_volume
                and (not drive.is_cdrom or drive.is_cloudinit)
                and not allocation.NEW.fullmatch(drive.volume)
            ):
                found[drive.volume] = None
        if "vmstate" in section.values:
            found[section.values["vmstate"]] = None
    return list(found)


def remove_volume(node: Node, vmid: int, volume: str, log: Log) -> None:
    """Remove a volume if it is the machine's own; what cannot be removed is said, and no error."""
    try:
        storage = of_volume(node, volume)
        if storage.volume(volume).vmid == vmid and storage.exists(volume):
            storage.free(volume, log)
    except ClusterError as error:
        log(f"Could not remove disk '{volume}', check manually: {error.message}")


def _purge(node: Node, vmid: int) -> None:
    """Take a machine out of high availability and of backup jobs."""
    hooks.purge(node, vmid)
    jobs = node.state.read("jobs.cfg")

    def without(found: re.Match[str]) -> str:
        rest = [word for word in re.split(r"[,\s]+", found[2]) if word and word != str(vmid)]
        return f"{found[1]}{','.join(rest)}" if rest else ""

    changed = re.sub(r"(?m)^(\tvmid )(.*)$", without, jobs)
    if changed != jobs:
        node.state.write("jobs.cfg", changed)


def digest_of(node: Node, vmid: int) -> str:
    """Return the digest of a machine's file."""
    return files.digest(node.state.read(node.state.guest(vmid).path))
