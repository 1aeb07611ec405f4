"""PowerPC machines: a Linux for 64-bit POWER, the Open Firmware prompt of a Macintosh, and a bare-metal greeting.

Linux comes from Debian's network installer for ppc64el, which is a package for all architectures: its kernel, and the
busybox and C library of its first root file system. Where that package cannot be had (another distribution, no
network), `linux` raises `GuestError` and the other two, which need nothing but QEMU, go on showing the same processor.

Source: package debian-installer-12-netboot-ppc64el; Power Architecture Platform Reference, H_PUT_TERM_CHAR;
IEEE 1275 (Open Firmware).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..error import GuestError
from ..machine import Machine
from . import apt, cache
from .cpio import Archive
from .deb import Deb

PACKAGES = ("debian-installer-12-netboot-ppc64el", "debian-installer-13-netboot-ppc64el")
_FORMAT = 1
# TCG cannot emulate these mitigations of speculative execution, and says so at length unless they are declared absent.
_PSERIES = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
export PS1='\\w # ' HOME=/ TERM=dumb PATH=/bin:/sbin:/usr/bin:/usr/sbin
stty -echo 2>/dev/null
echo guest-ready
exec sh </dev/console >/dev/console 2>&1
"""


def available() -> bool:
    """True when the Linux guest is in the cache or can be fetched now."""
    try:
        ensure()
    except GuestError:
        return False
    return True


def ensure() -> tuple[Path, Path]:
    """Return the kernel and the initramfs of the Linux guest, fetching and building them on first use.

    Raises:
        GuestError: the package cannot be fetched or holds something else.
    """
    found = apt.fetch("ppc64el-netboot", PACKAGES, "")
    package = next(iter(sorted(found.path.glob("*.deb"))))

    def write(directory: Path) -> None:
        cache.tell(f"unpacking {package.name}")
        pieces = {name.rpartition("/")[2]: content for name, content in Deb(package).files(_is_wanted)}
        if set(pieces) != {"vmlinux", "initrd.gz"}:
            raise GuestError(f"{package.name} holds {sorted(pieces)}; expected vmlinux and initrd.gz")
        (directory / "vmlinux").write_bytes(pieces["vmlinux"])
        (directory / "initrd").write_bytes(_small_root(pieces["initrd.gz"]))

    entry = cache.entry("powerpc", cache.key_of(_FORMAT, found.key, _INIT), write, needs_mib=120)
    return entry.path / "vmlinux", entry.path / "initrd"


def linux(name: str = "power", *, ram_mib: int = 512) -> Machine:
    """Return a Linux on an emulated POWER server (not launched): its console says ``guest-ready`` after some seconds.

    Args:
        name: the guest's name.
        ram_mib: its memory in MiB, a multiple of 256.

    Raises:
        GuestError: its kernel cannot be had.
    """
    kernel, initrd = ensure()
    command_line = "console=hvc0 quiet cryptomgr.notests"
    return Machine(
        "-M", _PSERIES, "-m", ram_mib, "-kernel", kernel, "-initrd", initrd, "-append", command_line,
        name=name, binary="qemu-system-ppc64",
    )  # fmt: skip


def macintosh(program: str = "", name: str = "mac") -> Machine:
    """Return a PowerPC Macintosh without a disk (not launched): it stops at the ``0 >`` of Open Firmware.

    Args:
        program: Forth that the firmware runs by itself at boot, such as ``6 7 * .``.
        name: the guest's name.
    """
    boot = f"boot-command={program}" if program else "auto-boot?=false"
    return Machine("-M", "mac99", "-m", 128, "-prom-env", boot, name=name, binary="qemu-system-ppc")


def _is_wanted(path: str) -> bool:
    return path.endswith(("/text/debian-installer/ppc64el/initrd.gz", "/ppc64el/vmlinux"))


def _small_root(initrd: bytes) -> bytes:
    """Keep of the installer's 24 MB root file system its busybox and C library; 1.4 MB."""
    try:
        whole = gzip.decompress(initrd)
    except (OSError, EOFError, zlib.error) as cause:
        raise GuestError(f"the installer's initrd.gz is damaged: {cause}") from cause
    archive = Archive()
    for folder in ("proc", "sys", "dev", "tmp"):
        archive.directory(folder)
    archive.character_device("dev/console", 5, 1)
    for name, mode, content in sorted(_entries(whole)):
        base = name.rpartition("/")[2]
        library = base.startswith(("ld64", "ld-", "libc.so", "libc-", "libresolv", "libm.so", "libm-"))
        link = mode & 0o170000 == 0o120000
        applet = link and content.rpartition(b"/")[2] == b"busybox"
        if not (name == "bin/busybox" or applet or library or name == "lib64"):
            continue
        if link:
            archive.symlink(name, content.decode())
        elif mode & 0o170000 == 0o100000:
            archive.file(name, content, 0o755)
    archive.file("init", _INIT.encode(), 0o755)
    return archive.to_bytes()


def _entries(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield (path, mode, content) of a newc archive."""
    at = 0
    while data[at : at + 6] == b"070701":
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_bytes = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 109 + name_bytes].decode()
        start = at + 110 + name_bytes + 3 & ~3
        if name == "TRAILER!!!":
            return
        yield name.removeprefix("./"), mode, data[start : start + size]
        at = start + size + 3 & ~3
    raise GuestError("the installer's initrd is no newc archive, or is cut short")
