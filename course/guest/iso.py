"""ISO images that boot, and the live CD: the guests' Linux, started by ISOLINUX from a CD or from a disk.

The live image is a hybrid: its first sector, unused on a CD, is a boot sector with a partition table, so the same
bytes boot when they are copied to a disk. ``install-to-disk`` in the live system does that, and adds a partition that
keeps what is written.

::

    sector 0          boot code, one partition over the whole image          used when it is a disk
    sector 64 …       volume descriptors, El Torito boot record              used when it is a CD
    /isolinux.bin  /ldlinux.c32  /isolinux.cfg  /install.cfg  /boot/vmlinuz  /boot/initrd

Source: ECMA-119; "El Torito" Bootable CD-ROM Format Specification 1.0; syslinux, doc/isolinux.txt.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..error import GuestError
from . import apt, cache, initramfs, kernel
from .commandline import KERNEL_WORDS
from .deb import Deb

LIVE_NAME = "live-system"
INSTALLED_NAME = "disk-system"  # install-to-disk writes it over LIVE_NAME: both have one length
LIVE_RAM_MIB = 192

_FORMAT = 2
_MBR_ID = 0x1AB1AB1A
_LINUX_PARTITION = 0x83
_FILES = {
    "isolinux.bin": "/usr/lib/ISOLINUX/isolinux.bin",
    "ldlinux.c32": "/usr/lib/syslinux/modules/bios/ldlinux.c32",
}
_PACKAGES = ("isolinux", "syslinux-common")


@dataclasses.dataclass(frozen=True)
class Tree:
    """What goes on an image.

    Attributes:
        boot: the boot file, which the firmware loads.
        boot_name: its name on the image.
        files: the other files by path, such as ``"boot/vmlinuz"``: at most one folder deep.
        isolinux: whether the boot file is ISOLINUX: it wants a table of where it lies written into it, and makes the
            image bootable as a disk too.
    """

    boot: bytes
    boot_name: str
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    isolinux: bool = False


def live() -> Path:
    """Return the live CD's image: ``Machine("-m", LIVE_RAM_MIB, *guest.iso.drive(path))`` boots to a shell in 4 s.

    Raises:
        GuestError: the kernel, busybox or ISOLINUX cannot be had.
    """
    linux = kernel.ensure()
    initrd = initramfs.ensure(linux)
    loader = _loader()
    config = _config()
    parts = ("live", _FORMAT, linux.key, str(initrd), loader, config)

    def write(directory: Path) -> None:
        cache.tell("building the live ISO")
        files = {
            "ldlinux.c32": loader["ldlinux.c32"],
            "isolinux.cfg": config,
            "install.cfg": _install_config(0),
            "boot/vmlinuz": linux.image.read_bytes(),
            "boot/initrd": initrd.read_bytes(),
        }
        tree = Tree(loader["isolinux.bin"], "isolinux.bin", files, isolinux=True)
        write_iso(directory / "live.iso", tree, label="LIVE")
        _write_mark_offset(directory / "live.iso")

    return cache.entry("images", cache.key_of(*parts), write, needs_mib=64).path / "live.iso"


def drive(path: Path, *, bootindex: int | None = None, name: str = "cd") -> list[str]:
    """Return QEMU arguments of a CD drive that holds `path`, seen by the firmware and by the guests' Linux.

    It is a SCSI drive on a virtio bus: Debian's cloud kernel has no driver for the SATA bus of a q35 machine.

    Args:
        path: the image.
        bootindex: place in the boot order, 0 first; None leaves it to ``-boot``.
        name: id of the drive; its bus is ``NAME-bus``, its block node ``NAME-medium``.
    """
    medium = f"driver=raw,node-name={name}-medium,read-only=on,file.driver=file,file.filename={_escaped(path)}"
    order = "" if bootindex is None else f",bootindex={bootindex}"
    return [
        *("-blockdev", medium),
        *("-device", f"virtio-scsi-pci,id={name}-bus"),
        *("-device", f"scsi-cd,id={name},bus={name}-bus.0,drive={name}-medium{order}"),
    ]


def write_iso(path: Path, tree: Tree, *, label: str) -> None:
    """Write a bootable image: El Torito without emulation, names in ISO 9660, Rock Ridge and Joliet."""
    import pycdlib  # noqa: PLC0415 - 0.1 s, only to write images

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident=label)
    try:
        for folder in sorted({name.rpartition("/")[0] for name in tree.files} - {""}):
            iso.add_directory("/" + folder, rr_name=folder, joliet_path="/" + folder)
        for name, content in {tree.boot_name: tree.boot, **tree.files}.items():
            _add(iso, name, content)
        iso.add_eltorito(
            "/" + tree.boot_name,
            bootcatfile="/BOOT.CAT",
            rr_bootcatname="boot.cat",
            joliet_bootcatfile="/boot.cat",
            boot_load_size=4,
            media_name="noemul",
            boot_info_table=tree.isolinux,
        )
        if tree.isolinux:
            iso.add_isohybrid(mbr_id=_MBR_ID, part_type=_LINUX_PARTITION)
        iso.write(str(path))
    finally:
        iso.close()


def _add(iso: Any, name: str, content: bytes) -> None:
    iso.add_fp(io.BytesIO(content), len(content), "/" + name, rr_name=name.rpartition("/")[2], joliet_path="/" + name)


def _config() -> bytes:
    return "\n".join(
        (
            "SERIAL 0 115200",
            "DEFAULT linux",
            "PROMPT 0",
            "LABEL linux",
            "  KERNEL /boot/vmlinuz",
            "  INITRD /boot/initrd",
            f"  APPEND {KERNEL_WORDS} vm.name={LIVE_NAME}",
            "",
        )
    ).encode()


def _install_config(mark_offset: int) -> bytes:
    return b"mark_offset=%010d\n" % mark_offset


def _write_mark_offset(path: Path) -> None:
    """Say in the image's install.cfg where its name stands, for install-to-disk to write another one there."""
    image = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(image.index(_install_config(0)))
        file.write(_install_config(image.index(f"vm.name={LIVE_NAME}".encode())))


def _loader() -> dict[str, bytes]:
    """Return ISOLINUX's files: those installed on the host, or from the distribution's packages."""
    installed = {name: Path(path) for name, path in _FILES.items()}
    if all(path.is_file() for path in installed.values()):
        return {name: path.read_bytes() for name, path in installed.items()}
    wanted = {path.lstrip("/"): name for name, path in _FILES.items()}
    found: dict[str, bytes] = {}
    for package in _PACKAGES:
        entry = apt.fetch(package, (package,), "")
        for name in entry.digests:
            for path, content in Deb(entry.path / name).files(wanted.__contains__):
                found[wanted[path]] = content
    if missing := set(_FILES) - set(found):
        raise GuestError(
            f"the packages {' and '.join(_PACKAGES)} have no {', '.join(sorted(missing))} where Debian puts it: "
            f"expected {', '.join(_FILES[name] for name in sorted(missing))}. Install ISOLINUX on this host"
        )
    return found


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
