"""The lab cluster's guest: the guests' Linux on a CD, with a guest agent, an address and a counter on the screen.

It is the live CD (`course.guest.iso`) with a second archive over the first file system: the files of the folder ``lab``
beside this module. A machine that boots from it has a root shell on its first serial line, answers the guest agent's
commands, has the address 10.69.a.b/16 that its MAC ends with, and goes off at the power button.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel: archives may follow each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import cache, initramfs, iso, kernel
from .commandline import KERNEL_WORDS
from .cpio import Archive

NAME = "lab-linux.iso"
_FORMAT = 1
_DRIVERS = ("sd_mod",)
_FILES = Path(__file__).with_name("lab")


def address_of(mac: str) -> str:
    """Return the address that the guest takes on a network card, such as ``10.69.10.1``."""
    parts = [int(part, 16) for part in mac.split(":")]
    return f"10.69.{parts[4]}.{parts[5]}"


def overlay(drivers: Mapping[str, bytes]) -> bytes:
    """Return the archive of what this guest has of its own.

    Args:
        drivers: further kernel modules, by name; they are loaded in this order.
    """
    archive = Archive()
    for number, (name, content) in enumerate(drivers.items()):
        archive.file(f"lib/drivers/{number}-{name}.ko", content)
    for path in sorted(path for path in _FILES.rglob("*") if path.is_file()):
        content = path.read_bytes()
        archive.file(str(path.relative_to(_FILES)), content, 0o755 if content.startswith(b"#!") else 0o644)
    return archive.to_bytes()


def cd() -> Path:
    """Return the CD's image, building it on first use.

    Raises:
        GuestError: the kernel, busybox or ISOLINUX cannot be had.
    """
    linux = kernel.ensure()
    initrd = initramfs.ensure(linux)
    loader = iso._loader()
    config = _config()
    parts = ("lab", _FORMAT, linux.key, str(initrd), loader, config, overlay({}), _DRIVERS)

    def write(directory: Path) -> None:
        cache.tell("building the lab cluster's ISO")
        present = {path.stem for path in linux.modules.glob("*.ko")}
        found = [module for module in kernel.further(*_DRIVERS) if module.name not in present]
        more = overlay({module.name: module.content for module in found})
        files = {
            "ldlinux.c32": loader["ldlinux.c32"],
            "isolinux.cfg": config,
            "boot/vmlinuz": linux.image.read_bytes(),
            "boot/initrd": initrd.read_bytes() + more,
        }
        iso.write_iso(
            directory / NAME, iso.Tree(loader["isolinux.bin"], "isolinux.bin", files, isolinux=True), label="LAB"
        )

    return cache.entry("images", cache.key_of(*parts), write, needs_mib=64).path / NAME


def _config() -> bytes:
    return "\n".join(
        (
            "SERIAL 0 115200",
            "DEFAULT linux",
            "PROMPT 0",
            "LABEL linux",
            "  KERNEL /boot/vmlinuz",
            "  INITRD /boot/initrd",
            f"  APPEND console=tty0 {KERNEL_WORDS}",
            "",
        )
    ).encode()
