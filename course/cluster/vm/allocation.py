"""Drives as a client asks for them, made into drives that exist.

::

    local-lvm:8                     a new disk of 8 GiB           ─▶ local-lvm:vm-169-disk-0,size=8G
    local:iso/live.iso,media=cdrom  a volume that is there        ─▶ …,size=14M
    none,media=cdrom                an empty CD drive
    local-lvm:cloudinit             a CD for cloud-init           ─▶ local-lvm:vm-169-cloudinit,media=cdrom
    local:0,import-from=VOLUME      a copy of another disk
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...error import ClusterError, ParameterError
from ..storage import of_volume, storage_of
from . import hardware
from .hardware import Drive

if TYPE_CHECKING:
    from ..node import Node

Log = Callable[[str], None]
NEW = re.compile(r"(?P<storage>[^/:\s]+):(?P<gib>\d+(?:\.\d+)?)")
_CLOUD_INIT = re.compile(r"(?P<storage>[^/:\s]+):cloudinit")
_CLOUD_INIT_SIZE = 4 << 20
_EFI_SIZE = {"2m": 128 << 10, "4m": 528 << 10}
_TPM_SIZE = 4 << 20


@dataclass(slots=True)
class Made:
    """What was made.

    Attributes:
        settings: the drives as the configuration will have them.
        volumes: new volumes, to be removed when the work fails.
    """

    settings: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)

    def undo(self, node: Node, log: Log) -> None:
        """Remove the new volumes."""
        for volume in reversed(self.volumes):
            try:
                of_volume(node, volume).free(volume)
            except ClusterError as error:
                log(f"unable to remove volume '{volume}' - {error.message}")


def normalized(settings: Mapping[str, str]) -> dict[str, str]:
    """Return settings with the drives written in one way: ``cdrom`` is ``ide2``, an ISO image makes a CD drive.

    Raises:
        ParameterError: a drive cannot be meant.
    """
    found = dict(settings)
    if "cdrom" in found:
        if "ide2" in found:
            raise ParameterError({"cdrom": "option 'cdrom' conflicts with option 'ide2'"})
        found["ide2"] = f"{found.pop('cdrom')},media=cdrom"
    for key, text in found.items():
        if not hardware.is_drive_key(key):
            continue
        try:
            drive = hardware.drive(key, text)
        except ClusterError as error:
            raise ParameterError({key: f"invalid format - {error.message}"}) from error
        if drive.bus in ("efidisk", "tpmstate", "unused"):
            continue
        if drive.volume in ("none", "cdrom") or drive.is_cloudinit or re.search(r":iso/", drive.volume):
            drive.options["media"] = "cdrom"
        found[key] = drive.text()
    return found


def assert_storages(node: Node, settings: Mapping[str, str]) -> None:
    """Refuse new disks on storages that are not there or hold no disks, before anything is made.

    Raises:
        ClusterError: there is no such storage here.
        ParameterError: it holds no disks.
    """
    for key, text in settings.items():
        if not hardware.is_drive_key(key):
            continue
        drive = hardware.drive(key, text)
        if not drive.has_volume:
            continue
        place = of_volume(node, drive.volume)
        if (NEW.fullmatch(drive.volume) or _CLOUD_INIT.fullmatch(drive.volume)) and "images" not in place.content:
            raise ParameterError({"storage": f"storage '{place.name}' does not support vm images"})


def make(node: Node, vmid: int, settings: Mapping[str, str], log: Log, *, storage: str | None = None) -> Made:
    """Make the drives that are asked for; other settings are left alone.

    Args:
        node: where.
        vmid: whose.
        settings: normalized ones.
        log: is told what was made.
        storage: for disks that name none.

    Raises:
        ClusterError: a drive cannot be made; what was made before it is removed.
    """
    maker = _Maker(node, vmid, log, storage)
    try:
        for key, text in settings.items():
            if hardware.is_drive_key(key):
                maker.made.settings[key] = maker.make(hardware.drive(key, text)).text()
    except BaseException:
        maker.made.undo(node, log)
        raise
    return maker.made


class _Maker:
    """Makes drives of one machine."""

    def __init__(self, node: Node, vmid: int, log: Log, storage: str | None) -> None:
        self.node = node
        self.vmid = vmid
        self.log = log
        self.storage = storage
        self.made = Made()

    def make(self, drive: Drive) -> Drive:
        """Make what a drive asks for; return it as it is then."""
        if drive.is_empty:
            return drive
        if found := _CLOUD_INIT.fullmatch(drive.volume):
            return self._cloud_init(drive, found["storage"])
        if drive.options.get("import-from"):
            return self._imported(drive)
        new = NEW.fullmatch(drive.volume)
        if new:
            return self._new(drive, new["storage"], float(new["gib"]))
        if self.storage and re.fullmatch(r"\d+(?:\.\d+)?", drive.volume):
            return self._new(drive, self.storage, float(drive.volume))
        return _existing(self.node, drive)

    def _keep(self, drive: Drive, volume: str, **options: str | None) -> Drive:
        self.made.volumes.append(volume)
        done = drive.but(**{"file": volume, "format": None, "import-from": None, **options})
        self.log(f"{drive.key}: successfully created disk '{done.text()}'")
        return done

    def _new(self, drive: Drive, storage: str, gib: float) -> Drive:
        place = storage_of(self.node, storage)
        place.require("images")
        size = int(gib * (1 << 20)) << 10  # in whole KiB
        if drive.bus == "efidisk":
            size = _EFI_SIZE.get(drive.options.get("efitype", "2m"), 528 << 10)
        elif drive.bus == "tpmstate":
            size = _TPM_SIZE
        wanted = drive.options.get("format") or place.default_format
        volume = place.alloc(self.vmid, wanted, size, log=self.log)
        return self._keep(drive, volume, size=hardware.size_text(size))

    def _cloud_init(self, drive: Drive, storage: str) -> Drive:
        place = storage_of(self.node, storage)
        place.require("images")
        wanted = drive.options.get("format") or ("qcow2" if place.kind == "dir" else "raw")
        volume = place.alloc(self.vmid, wanted, _CLOUD_INIT_SIZE, purpose="cloudinit", log=self.log)
        return self._keep(drive, volume, media="cdrom")

    def _imported(self, drive: Drive) -> Drive:
        source = drive.options["import-from"]
        place = storage_of(self.node, drive.volume.partition(":")[0])
        if source.startswith("/"):
            raise ClusterError("Only root can pass arbitrary filesystem paths, and not in this lab")
        volume = of_volume(self.node, source).copy(
            source, place, self.vmid, format=drive.options.get("format"), progress=progress(self.log)
        )
        return self._keep(drive, volume, size=hardware.size_text(place.size(volume)))


def progress(log: Log) -> Callable[[int, int], None]:
    """Return what says how a copy goes, at each tenth."""
    said = [-1]

    def say(done: int, total: int) -> None:
        tenth = 10 * done // total if total else 10
        if tenth > said[0]:
            said[0] = tenth
            log(f"transferred {readable(done)} of {readable(total)} ({100 * done / max(1, total):.2f}%)")

    return say


def readable(size: float) -> str:
    """Write a size for people, as Proxmox VE's logs do: ``104.9 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _existing(node: Node, drive: Drive) -> Drive:
    if drive.volume.startswith("/"):
        if not Path(drive.volume).exists():
            raise ClusterError(f"file '{drive.volume}' does not exist")
        raise ClusterError(f"volume '{drive.volume}' is no volume of a storage of this cluster")
    place = of_volume(node, drive.volume)
    if not place.exists(drive.volume):
        raise ClusterError(f"volume '{drive.volume}' does not exist")
    if drive.is_cloudinit:
        return drive
    return drive.but(size=size_text(place.size(drive.volume)), format=None)


def size_text(size: int) -> str:
    """Write the size of a volume that is there, rounded to full KiB."""
    return hardware.size_text((size + 1023) // 1024 * 1024)
