"""Restoring: an archive becomes a machine or a container again, the same one or another.

New volumes get new names beside whatever is there. Only when all of them are whole does the configuration change to
them; the volumes of a machine that was overwritten go last. So a restore that fails, or a node that dies meanwhile,
leaves the old machine's disks alone.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...error import ClusterError, ParameterError
from ..config import files
from ..config.guest import GuestConfig
from ..route import Call
from ..storage import DirectoryStorage, Storage, of_volume, rights, storage_of
from ..storage.catalogue import Log
from ..tasks import Task
from ..userfile import join_pool
from ..vm import creation, hardware, lifecycle
from ..vm import rights as vm_rights
from . import archive, containers, packing, vma

if TYPE_CHECKING:
    from ..node import Node

PROGRESS_BYTES = 256 << 20


@dataclass(slots=True)
class Order:
    """What is to be restored.

    Attributes:
        vmid: of the guest to be.
        path: the archive.
        storage: for all its disks; None for where they were.
        force: overwrite a guest that is there.
        unique: give it other addresses and identities.
        changes: settings in place of the archive's.
        pool: that it will belong to.
        start: switch it on afterwards.
    """

    vmid: int
    path: Path
    storage: str | None = None
    force: bool = False
    unique: bool = False
    changes: dict[str, str] = field(default_factory=dict)
    pool: str | None = None
    start: bool = False


def machine(call: Call, asked: Mapping[str, Any]) -> str:
    """Answer ``POST /nodes/{node}/qemu`` with an archive.

    Args:
        call: its parameters `archive`, `storage`, `force`, `unique`, `pool`, `start` are looked at.
        asked: settings of the machine that were given too.

    Returns:
        The UPID of the task.

    Raises:
        ClusterError: it cannot be restored.
        PermissionRefused: the caller may not.
    """
    values, node = call.values, call.node
    if values.get("live-restore"):
        raise ParameterError({"live-restore": "not supported by this lab"})
    changes = vm_rights.text_of(dict(asked))
    if drives := [key for key in changes if hardware.is_drive_key(key)]:
        raise ParameterError({drives[0]: "a drive cannot be given with 'archive'"})
    order = Order(
        vmid=values["vmid"],
        path=archive_of(call, values["archive"], values["vmid"], "qemu"),
        storage=values.get("storage"),
        force=bool(values.get("force")),
        unique=bool(values.get("unique")),
        changes=changes,
        pool=values.get("pool"),
        start=bool(values.get("start")),
    )
    if order.storage is not None:
        call.check(f"/storage/{order.storage}", ["Datastore.AllocateSpace"])
        storage_of(node, order.storage).require("images")
    vm_rights.check_settings(call, order.vmid, dict(changes), {}, order.pool)
    existed = reserve(node, order.vmid, force=order.force)
    return call.task("qmrestore", order.vmid, lambda task: restore(node, task, order, existed=existed))


def container(call: Call, asked: Mapping[str, str]) -> str:
    """Answer ``POST /nodes/{node}/lxc`` with a backup archive; see `containers.restore`."""
    path = archive_of(call, call.values["ostemplate"], call.values["vmid"], "lxc")
    return containers.restore(call, asked, path)


def archive_of(call: Call, name: str, vmid: int, kind: str) -> Path:
    """Return where an archive is.

    Args:
        call: whose rights are looked at.
        name: a volume id.
        vmid: the guest that it is wanted for.
        kind: qemu or lxc, that it has to be of.

    Raises:
        ClusterError: there is no such archive.
    """
    if name == "-" or name.startswith("/"):
        raise ParameterError({"archive": "only archives on a storage can be restored by this lab"})
    rights.check_volume(call, name, vmid=vmid)
    storage = of_volume(call.node, name)
    volume, path = storage.existing(name)
    if volume.content != "backup":
        raise ClusterError(f"'{name}' is no backup archive")
    if (".vma" in path.name) != (kind == "qemu"):
        raise ClusterError(f"ERROR: archive '{path.name}' is not of a {'VM' if kind == 'qemu' else 'container'}")
    return path


def reserve(node: Node, vmid: int, *, force: bool) -> bool:
    """Take the number for a restored machine; return whether there is one that will be overwritten.

    Raises:
        ClusterError: there is one, and it is not to be or cannot be overwritten.
    """
    place, words = node.state.guests().get(vmid), f"unable to restore VM {vmid} -"
    if place is None:
        creation.reserve(node, vmid)
        return False
    if not force or place.node != node.name or place.kind != "qemu":
        kind = "CT" if place.kind == "lxc" else "VM"
        raise ClusterError(f"{words} {kind} {vmid} already exists on node '{place.node}'")
    if node.guests is not None and node.guests.is_running(vmid):
        raise ClusterError(f"{words} vm is running")
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        config.assert_unlocked()
        if hardware.flag(config.current.values, "protection"):
            raise ClusterError(f"{words} protection mode enabled")
        config.current.values["lock"] = "create"
    return True


def restore(node: Node, task: Task, order: Order, *, existed: bool) -> None:
    """Restore a machine whose number `reserve` took.

    Args:
        node: where.
        task: gets the log.
        order: what.
        existed: whether there is a machine to be overwritten.

    Raises:
        ClusterError: it could not be; what was there before is as it was.
    """
    made: list[tuple[Storage, str]] = []
    try:
        task.log(f"restore vma archive: {order.path}")
        text, firewall = _disks(node, task, order, made)
        config = _configured(text, order)
        _replace(node, task, order, config, existed=existed)
    except BaseException as error:
        for storage, volid in made:
            with contextlib.suppress(ClusterError, OSError):
                storage.free(volid)
        _forget(node, order.vmid, existed=existed)
        if isinstance(error, ClusterError) and type(error) is ClusterError:
            raise ClusterError(f"unable to restore VM {order.vmid} - {error.message}") from error
        raise
    if firewall:
        node.state.write(f"firewall/{order.vmid}.fw", firewall)
    task.log("rescan volumes...")
    if order.pool:
        join_pool(node.state, order.vmid, order.pool)
    node.statistics.changed()
    if order.start:
        lifecycle.start(node, order.vmid, task.log)


def _forget(node: Node, vmid: int, *, existed: bool) -> None:
    """Take back what `reserve` did."""
    with contextlib.suppress(ClusterError):
        if not existed:
            node.state.delete_guest(vmid)
            return
        with node.state.guest_lock(vmid, node.name, "qemu") as config:
            if config.current.values.get("lock") == "create":
                del config.current.values["lock"]


def _disks(node: Node, task: Task, order: Order, made: list[tuple[Storage, str]]) -> tuple[str, str]:
    """Make volumes of an archive's disks; return the new configuration's text and the firewall's.

    Args:
        node: where.
        task: gets the log.
        order: what.
        made: gets each volume that was made.
    """
    with packing.reading(order.path) as file, _Folders(node) as folders:
        reader = vma.Reader(file)
        header = reader.header
        for name, content in header.configs.items():
            task.log(f"CFG: size: {len(content)} name: {name}")
        for device in header.devices.values():
            task.log(f"DEV: dev_id={device.id} size: {device.size} devname: {device.name}")
        task.log(f"CTIME: {time.ctime(header.ctime)}")
        if archive.CONFIG not in header.configs:
            raise ClusterError("unable to find configuration file in vma archive")
        text = header.configs[archive.CONFIG].decode("utf-8", "surrogateescape")
        targets = _targets(node, order, text, header.devices)
        raws = _extract(task, reader, {name: folders.of(storage) for name, (_, storage, _) in targets.items()})
        volumes = {}
        for name, (key, storage, format) in targets.items():
            volid = storage.import_image(raws[name], "raw", order.vmid, format=format, check_stop=task.check_stop)
            made.append((storage, volid))
            task.log(f"new volume ID is '{volid}'")
            task.log(f"map '{name}' to '{storage.path(volid)}' (write zeros = 0)")
            volumes[key] = volid
        volumes |= _cloud_init(node, order, text, made, task.log)
        firewall = header.configs.get(archive.FIREWALL, b"").decode("utf-8", "surrogateescape")
    return archive.restored(text, volumes), firewall


def _targets(
    node: Node, order: Order, text: str, devices: Mapping[int, vma.Device]
) -> dict[str, tuple[str, Storage, str]]:
    """Return by device which drive it becomes, on which storage, in which format."""
    maps, found = archive.maps_of(text), {}
    for device in devices.values():
        if device.name == "vmstate":
            continue
        if device.name not in maps:
            raise ClusterError(f"archive does not contain data for drive '{device.name.removeprefix('drive-')}'")
        place = maps[device.name]
        storage = storage_of(node, order.storage or place.storage or "local")
        storage.require("images")
        found[device.name] = (place.key, storage, place.format or storage.default_format)
    return found


def _extract(task: Task, reader: vma.Reader, folders: Mapping[str, Path]) -> dict[str, Path]:
    """Write an archive's disks to raw files; blocks of zeros become holes."""
    begun, sparse, told, read = time.monotonic(), 0, 0, 0
    total = sum(device.size for device in reader.header.devices.values())
    paths: dict[str, Path] = {}
    with contextlib.ExitStack() as opened:
        files_by_device: dict[int, IO[bytes]] = {}
        for device in reader.header.devices.values():
            if device.name in folders:
                paths[device.name] = folders[device.name] / f"{device.name}.copy"
                file = opened.enter_context(paths[device.name].open("wb"))
                file.truncate(device.size)
                files_by_device[device.id] = file
        for device, offset, data in reader.clusters():
            if offset % (64 * vma.CLUSTER) == 0:
                task.check_stop()
            read += len(data)
            if data.count(0) == len(data):
                sparse += len(data)
            elif device.id in files_by_device:
                files_by_device[device.id].seek(offset)
                files_by_device[device.id].write(data)
            if read - told >= max(PROGRESS_BYTES, total // 100) or read == total:
                told = read
                seconds = int(time.monotonic() - begun)
                task.log(f"progress {100 * read // max(total, 1)}% (read {read} bytes, duration {seconds} sec)")
    if not paths:
        task.log("vma archive contains no image data")
    else:
        task.log(f"total bytes read {read}, sparse bytes {sparse} ({100 * sparse / max(read, 1):.3g}%)")
    return paths


class _Folders:
    """Hidden folders for disks on their way, on the storage that each will be on."""

    def __init__(self, node: Node) -> None:
        self._owner = node.name
        self._made: dict[Path, Path] = {}

    def of(self, storage: Storage) -> Path:
        """Return the folder on a storage."""
        if storage.root not in self._made:
            folder = storage.root / f"{files.UNFINISHED}{self._owner}-{secrets.token_hex(6)}"
            folder.mkdir(mode=0o700, parents=True)
            self._made[storage.root] = folder
        return self._made[storage.root]

    def __enter__(self) -> _Folders:
        return self

    def __exit__(self, *error: object) -> None:
        for folder in self._made.values():
            shutil.rmtree(folder, ignore_errors=True)


def _cloud_init(node: Node, order: Order, text: str, made: list[tuple[Storage, str]], log: Log) -> dict[str, str]:
    """Make a new CD for cloud-init where the archive's machine had one; it is written when the machine starts."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"((?:ide|sata|scsi)\d+): ([^:,]+):[^,]*cloudinit[^,]*(?:,.*)?", line)
        if match is None:
            continue
        storage = storage_of(node, order.storage or match[2])
        format = "qcow2" if isinstance(storage, DirectoryStorage) else "raw"
        name = storage.parse(storage.name_for(order.vmid, "cloudinit", format)).name
        volid = f"{storage.name}:{storage.name_for(order.vmid, 'cloudinit', format)}"
        if not storage.exists(volid):
            volid = storage.alloc(order.vmid, format, 4 << 20, name, log=log)
            made.append((storage, volid))
        found[match[1]] = volid
    return found


def _configured(text: str, order: Order) -> GuestConfig:
    """Return the configuration of a restored machine."""
    config = GuestConfig.parse(text)
    config.snapshots.clear()
    values = config.current.values
    if values.get("vmgenid", "0") != "0":
        values["vmgenid"] = str(uuid.uuid4())
    if order.unique:
        for card in hardware.nics(values):
            card.options["macaddr"] = hardware.random_mac()
            values[card.key] = card.text()
        if "uuid=" in values.get("smbios1", ""):
            values["smbios1"] = re.sub(r"uuid=[^,]*", f"uuid={uuid.uuid4()}", values["smbios1"])
    changes = dict(order.changes)
    description = changes.pop("description", None)
    if description is not None:
        config.current.description = description + "\n"
    values |= changes
    creation.give_macs(values)
    return config


def _replace(node: Node, task: Task, order: Order, config: GuestConfig, *, existed: bool) -> None:
    """Let the new configuration come into force, then remove what the old one had."""
    old: list[str] = []
    with node.state.guest_lock(order.vmid, node.name, "qemu") as current:
        if existed:
            old = creation.volumes_of(current)
        current.current, current.pending, current.snapshots = config.current, config.pending, {}
        current.special = config.special
        if hardware.flag(config.current.values, "template"):
            _become_template(node, current)
    kept = set(creation.volumes_of(config))
    for volid in old:
        if volid not in kept:
            creation.remove_volume(node, order.vmid, volid, task.log)


def _become_template(node: Node, config: GuestConfig) -> None:
    """Make the disks of a restored template a template's."""
    for drive in hardware.drives(config.current.values):
        if drive.is_disk and drive.has_volume and drive.bus != "unused":
            base = of_volume(node, drive.volume).create_base(drive.volume)
            config.current.values[drive.key] = drive.but(file=base).text()
