"""The target's side of a live migration: a machine that waits for another node's guest.

The source starts it by a call (``stateuri=unix``) and reads in the task's log where it listens, as Proxmox VE does::

    migration listens on unix:/run/…/169.migrate
    storage migration listens on nbd:unix:/run/…/169.nbd:exportname=drive-scsi0 volume:local-lvm:vm-169-disk-0,size=4G
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..storage import of_volume, storage_of
from . import hardware, lifecycle
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

Log = Callable[[str], None]
LISTENS = "migration listens on unix:"
STORAGE_LISTENS = "storage migration listens on nbd:unix:"


def start(node: Node, values: Mapping[str, Any], task: Task) -> None:
    """Start the machine that will take a guest up.

    Args:
        node: the target.
        values: the call's: vmid, migratedfrom, targetstorage (``1`` for the same ones), machine.
        task: whose log the source reads.

    Raises:
        ClusterError: it cannot be started here; nothing of it is left.
    """
    vmid, source = values["vmid"], values["migratedfrom"]
    config = node.state.load_guest(vmid, source, "qemu")
    settings = dict(config.current.values)
    made: dict[str, str] = {}
    if values.get("targetstorage"):
        made = _volumes(node, vmid, settings, str(values["targetstorage"]), task.log)
        settings |= made
    try:
        running = _start(node, vmid, settings, values, task)
        running.source = (source, node.members.pid(source))
        if made:
            _serve(running, made, task.log)
        running.execute("migrate-incoming", uri=f"unix:{running.path('migrate')}")
        task.log(f"{LISTENS}{running.path('migrate')}")
    except BaseException:
        _forget(node, vmid, task.log)
        raise


def _start(node: Node, vmid: int, settings: dict[str, str], values: Mapping[str, Any], task: Task) -> RunningVm:
    running = lifecycle.start_incoming(node, vmid, settings, task.log, machine=values.get("machine"))
    running.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    return running


def _volumes(node: Node, vmid: int, settings: Mapping[str, str], wanted: str, log: Log) -> dict[str, str]:
    """Make empty volumes like the source's local ones; return the drives with them."""
    made: dict[str, str] = {}
    volumes = node.guests.made_for[vmid] = []
    try:
        for drive in hardware.disks(settings):
            if not drive.has_volume or (drive.is_cdrom and not drive.is_cloudinit):
                continue
            name = drive.volume.partition(":")[0]
            origin = storage_of(node, name)
            if origin.shared:
                continue
            place = storage_of(node, target_storage(wanted, name))
            size = hardware.size_bytes(drive.options["size"]) if "size" in drive.options else 4 << 20
            purpose = "cloudinit" if drive.is_cloudinit else "disk"
            volume = place.alloc(vmid, _format(origin, place, drive.volume), size, purpose=purpose)
            volumes.append(volume)
            made[drive.key] = drive.but(file=volume).text()
    except BaseException:
        _forget(node, vmid, log)
        raise
    return made


def _format(origin: Any, place: Any, volume: str) -> str:
    """Return the format of the copy of a volume: the same where the target's storage has it."""
    format_ = "qcow2" if volume.endswith(".qcow2") else "raw"
    del origin
    return format_ if format_ in place.formats else str(place.default_format)


def target_storage(wanted: str, name: str) -> str:
    """Return where a storage's volumes go: ``1`` same place, ``x`` all to x, ``a:b,c:d`` pair by pair."""
    fallback = name
    for part in wanted.replace(";", ",").split(","):
        source, colon, target = part.strip().partition(":")
        if not colon:
            fallback = name if source == "1" else source
        elif source == name:
            return target
    return fallback


def _serve(running: RunningVm, made: Mapping[str, str], log: Log) -> None:
    """Let the source write to the new volumes."""
    path = running.path("nbd")
    running.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(path)}})
    for key, text in made.items():
        node_name = f"drive-{key}"
        running.execute(
            "block-export-add", type="nbd", id=f"export-{key}", node_name=node_name, name=node_name, writable=True
        )
        drive = hardware.drive(key, text)
        log(f"{STORAGE_LISTENS}{path}:exportname={node_name} volume:{drive.text()}")


def _forget(node: Node, vmid: int, log: Log) -> None:
    """End the waiting machine, and remove its new volumes."""
    running = node.guests.get(vmid)
    if running is not None:
        if not running.incoming:
            return
        node.guests.end(running)
    for volume in node.guests.made_for.pop(vmid, []):
        try:
            of_volume(node, volume).free(volume)
        except ClusterError as error:
            log(f"unable to remove volume '{volume}' - {error.message}")


def abandon(node: Node, vmid: int, log: Log) -> None:
    """End a machine that waits for a guest that will not come, with what was made for it."""
    _forget(node, vmid, log)


def sweep(node: Node) -> None:
    """Decide about guests whose source died on the way.

    Whose configuration is here already goes on here; the others belong to their source, and nothing is left of them.
    """
    for running in node.guests:
        name, pid = running.source
        if not running.incoming or not name or node.members.pid(name) == pid:
            continue
        place = node.state.guests().get(running.vmid)
        if place is not None and place.node == node.name:
            node.log(f"VM {running.vmid}: source node '{name}' died after the migration, resuming", "warning")
            lifecycle.resume(node, running.vmid, nocheck=True)
        else:
            node.log(f"VM {running.vmid}: source node '{name}' died during the migration, cleaning up", "warning")
            abandon(node, running.vmid, node.log)
