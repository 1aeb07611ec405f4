"""The guests' first and only root file system: busybox, a handful of scripts, the kernel's modules.

Its scripts are the files of the folder ``rootfs`` beside this module, as they are. It is left uncompressed: that
costs 5 MB of disk and saves the guest the unpacking.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from ..error import GuestError
from . import apt, cache, ramcounter
from .cpio import Archive
from .deb import Deb
from .kernel import BOOT_MODULES, Kernel

_FORMAT = 4
_ROOTFS = Path(__file__).with_name("rootfs")
_DIRECTORIES = ("proc", "sys", "dev", "tmp", "run", "root", "mnt", "etc", "usr/bin", "usr/sbin", "var")
_ELF_X86_64 = (b"\x7fELF", 62)
_PT_INTERP = 3


def ensure(kernel: Kernel) -> Path:
    """Return the initramfs for this kernel, building it on first use.

    Raises:
        GuestError: no busybox can be had.
    """
    busybox = busybox_path()
    scripts = {str(path.relative_to(_ROOTFS)): path.read_bytes() for path in _scripts()}
    state = busybox.stat()
    parts = ("initramfs", _FORMAT, kernel.key, str(busybox), state.st_size, state.st_mtime_ns, scripts)

    def write(directory: Path) -> None:
        cache.tell(f"building the initramfs for Linux {kernel.release}")
        (directory / "initrd").write_bytes(build(kernel, busybox))

    return cache.entry("images", cache.key_of(*parts), write, needs_mib=16).path / "initrd"


def build(kernel: Kernel, busybox: Path) -> bytes:
    """Return the archive."""
    archive = Archive()
    for directory in _DIRECTORIES:
        archive.directory(directory, 0o1777 if directory == "tmp" else 0o755)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in applets(busybox):
        if applet != "bin/busybox":
            archive.symlink(applet, "/bin/busybox")
    for path in _scripts():
        content = path.read_bytes()
        archive.file(str(path.relative_to(_ROOTFS)), content, 0o755 if content.startswith(b"#!") else 0o644)
    archive.file("sbin/ramcounter", ramcounter.program(), 0o755)
    present = [name for name in BOOT_MODULES if (kernel.modules / f"{name}.ko").exists()]  # the others are built in
    archive.file("etc/modules", (" ".join(present) + "\n").encode())
    for path in sorted(kernel.modules.iterdir()):
        archive.file(f"lib/modules/{kernel.release}/{path.name}", path.read_bytes())
    return archive.to_bytes()


def busybox_path() -> Path:
    """Return a static x86-64 busybox: the host's, or one fetched from the distribution.

    Raises:
        GuestError: the host has none that fits, and none can be fetched.
    """
    found = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    if found and is_static_x86(Path(found)):
        return Path(found)
    package = apt.fetch("busybox-static", ("busybox-static",), "")

    def unpack(directory: Path) -> None:
        for name in package.digests:
            for _, content in Deb(package.path / name).files(lambda path: path.endswith("bin/busybox")):
                (directory / "busybox").write_bytes(content)
                (directory / "busybox").chmod(0o755)
                return
        raise GuestError(f"the package in {package.path} has no bin/busybox; delete it and run: course guest build")

    return cache.entry("images", cache.key_of("busybox", package.digests), unpack).path / "busybox"


def is_static_x86(path: Path) -> bool:
    """Tell whether a file is an x86-64 program that needs no dynamic linker."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:4] != _ELF_X86_64[0]:
            return False
        machine = struct.unpack_from("<H", header, 18)[0]
        offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    kinds = [struct.unpack_from("<I", table, number * size)[0] for number in range(count)]
    return machine == _ELF_X86_64[1] and _PT_INTERP not in kinds


def applets(busybox: Path) -> list[str]:
    """Return where busybox wants its links, such as ``bin/ls`` and ``sbin/init``.

    A host of another CPU cannot ask it; then only the shell gets its link, and ``/init`` makes the others at boot.
    """
    try:
        done = subprocess.run([str(busybox), "--list-full"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ["bin/sh"]
    return done.stdout.split()


def _scripts() -> list[Path]:
    return sorted(path for path in _ROOTFS.rglob("*") if path.is_file())
