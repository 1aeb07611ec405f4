"""The template that the lab's containers are made of: busybox, its scripts, and nothing else.

The archive is the same, byte for byte, for the same busybox.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from ...guest import cache, initramfs

NAME = "lab-busybox_1.0-1_amd64.tar.gz"
_FORMAT = 1
_FOLDERS = (
    "bin",
    "dev",
    "etc",
    "etc/init.d",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
    "var",
)
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/os-release": 'NAME="Lab Linux"\nID=lab\nPRETTY_NAME="Lab Linux (busybox)"\n',
    "etc/inittab": (
        "::sysinit:/etc/init.d/rcS\n::respawn:-/bin/sh\n::restart:/sbin/init\n::shutdown:/etc/init.d/rcK\n"
    ),
    "etc/profile": "export PS1='\\h:\\w\\$ '\n",
}
_SCRIPTS = {
    "etc/init.d/rcS": '#!/bin/sh\n[ -x /etc/rc.local ] && /etc/rc.local\necho "$(hostname) is up"\n',
    "etc/init.d/rcK": '#!/bin/sh\necho "$(hostname) goes down"\n',
}


def ensure() -> Path:
    """Return the archive, building it on first use.

    Raises:
        GuestError: no busybox can be had.
    """
    busybox = initramfs.busybox_path()
    state = busybox.stat()
    parts = ("container template", _FORMAT, str(busybox), state.st_size, state.st_mtime_ns, _FILES, _SCRIPTS)

    def write(directory: Path) -> None:
        (directory / NAME).write_bytes(build(busybox.read_bytes(), initramfs.applets(busybox)))

    return cache.entry("images", cache.key_of(*parts), write, needs_mib=4).path / NAME


def build(busybox: bytes, applets: list[str]) -> bytes:
    """Return the archive.

    Args:
        busybox: a program that needs no libraries.
        applets: paths that are names of its own, such as ``bin/ls``.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in _FOLDERS:
            _add(archive, folder, kind=tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755)
        _add(archive, "bin/busybox", busybox, mode=0o755)
        for applet in sorted({*applets, "sbin/init", "bin/sh"} - {"bin/busybox"}):
            _add(archive, applet, kind=tarfile.SYMTYPE, link="/bin/busybox")
        for name, text in _FILES.items():
            _add(archive, name, text.encode())
        for name, text in _SCRIPTS.items():
            _add(archive, name, text.encode(), mode=0o755)
    return gzip.compress(plain.getvalue(), 6, mtime=0)


def _add(
    archive: tarfile.TarFile,
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.size = kind, mode, link, len(content)
    archive.addfile(member, io.BytesIO(content))
