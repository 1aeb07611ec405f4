"""The Linux kernel of the guests: the distribution's own package, unpacked beside, never installed.

Debian's cloud kernel is small and boots in 2 s under emulation. Ubuntu's counterpart comes in two packages, the image
and its modules. ``/boot/vmlinuz`` of the host is of no use: on Ubuntu only root may read it.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..error import GuestError
from . import apt, cache, modules
from .deb import Deb

CANDIDATES = ("linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual", "linux-image-amd64")

# In the order of loading at boot; a `?` marks those that some kernels have not.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "button", "evdev")
# There when a lesson wants them, loaded by modprobe or by the kernel's own request.
LATER_MODULES = (
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    "virtio_scsi",
    "overlay",
    "veth",
    "bridge",
    "8021q",
    "tun?",
    "loop?",
    "ata_piix?",
    "ahci?",
    "sr_mod?",
    "isofs?",
)
_FORMAT = 2
_CONCRETE = r"linux-image-(unsigned-)?\d\S*"
_COMPANIONS = r"linux-modules-\d\S*"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An unpacked kernel.

    Attributes:
        release: what ``uname -r`` says in the guest.
        image: the bzImage.
        modules: folder of ``NAME.ko``, modules.dep and modules.alias.
        key: hash of all its files.
    """

    release: str
    image: Path
    modules: Path
    key: str


def ensure() -> Kernel:
    """Return the kernel, fetching and unpacking it on first use.

    Raises:
        GuestError: it cannot be fetched, or the package is not one of a kernel.
    """
    packages = _packages()
    digests = [(path.name, digest) for path, digest in packages]
    key = cache.key_of("kernel", _FORMAT, digests, BOOT_MODULES, LATER_MODULES)
    found = cache.entry(
        "kernels", key, lambda directory: unpack([path for path, _ in packages], directory), needs_mib=40
    )
    release = (found.path / "release").read_text()
    return Kernel(release, found.path / "vmlinuz", found.path / "modules", found.key)


def further(*names: str) -> list[modules.Module]:
    """Return modules beyond those of every guest, and all they need, from the same packages.

    Raises:
        GuestError: the kernel has no such module.
    """
    builtin, raw = b"", {}
    for path, _ in _packages():
        for name, content in Deb(path).files(lambda name: _is_wanted(name) and not name.startswith("boot/")):
            if name.endswith("/modules.builtin"):
                builtin = content
            else:
                raw[modules.module_name(name)] = (name, content)
    return modules.closure(names, raw, [modules.module_name(line) for line in builtin.decode().split()])


def unpack(packages: list[Path], directory: Path) -> None:
    """Write vmlinuz, release and modules/ of a kernel's packages to `directory`.

    Raises:
        GuestError: there is no kernel inside, or a module is missing.
    """
    cache.tell(f"unpacking {packages[0].name}")
    image, builtin, raw = b"", b"", {}
    release = ""
    for package in packages:
        for name, content in Deb(package).files(_is_wanted):
            if name.startswith("boot/vmlinuz-"):
                image, release = content, name.removeprefix("boot/vmlinuz-")
            elif name.endswith("/modules.builtin"):
                builtin = content
            else:
                raw[modules.module_name(name)] = (name, content)
    if not image:
        raise GuestError(
            f"{', '.join(str(package) for package in packages)} has no boot/vmlinuz-*: expected a kernel's package, "
            "linux-image-VERSION-cloud-amd64 (not the metapackage linux-image-cloud-amd64)"
        )
    inside = [modules.module_name(line) for line in builtin.decode().split()]
    chosen = modules.closure((*BOOT_MODULES, *LATER_MODULES), raw, inside)
    (directory / "vmlinuz").write_bytes(image)
    (directory / "release").write_text(release)
    folder = directory / "modules"
    folder.mkdir()
    for module in chosen:
        (folder / f"{module.name}.ko").write_bytes(module.content)
    for name, content in modules.index(chosen).items():
        (folder / name).write_bytes(content)


def _packages() -> list[tuple[Path, str]]:
    """Return the packages' files with their hashes: those named by hand, or fetched ones."""
    if given := os.environ.get("COURSE_KERNEL_DEB"):
        paths = [Path(part).expanduser() for part in given.split(os.pathsep)]
        for path in paths:
            if not path.is_file():
                raise GuestError(f"COURSE_KERNEL_DEB names {path}, which is no file; expected a package *.deb")
            Deb(path)
        return [(path, str(path.stat().st_mtime_ns)) for path in paths]
    found = apt.fetch("kernel", CANDIDATES, _CONCRETE, _COMPANIONS)
    return sorted((found.path / name, digest) for name, digest in found.digests.items())


def _is_wanted(name: str) -> bool:
    return name.startswith("boot/vmlinuz-") or name.endswith("/modules.builtin") or ".ko" in name.rpartition("/")[2]
