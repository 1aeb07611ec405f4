"""What this kernel offers to programs: file systems, buses with their devices, network protocols.

All three are read from files that the kernel makes up at the moment of reading; nothing needs privileges.

Source: proc(5), sysfs(5).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from ..error import UsageError

# f_type of statfs(2): what a file system calls itself in memory and on disk. Source: include/uapi/linux/magic.h.
_MAGIC = {
    0xEF53: "ext4",
    0x01021994: "tmpfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x794C7630: "overlay",
    0x63677270: "cgroup2",
    0x1CD1: "devpts",
    0x50495045: "pipefs",
    0x534F434B: "sockfs",
    0x6969: "nfs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x6E736673: "nsfs",
    0x64626720: "debugfs",
    0x2FC12FC1: "zfs",
    0x4D44: "vfat",
    0x01161970: "ramfs",
    0x09041934: "anon_inode",
}


def file_systems() -> dict[str, bool]:
    """Return the file systems that this kernel knows: name → whether it lives on a disk."""
    rows = [line.split("\t") for line in Path("/proc/filesystems").read_text().splitlines()]
    return {name: flag != "nodev" for flag, name in rows}


def file_system_of(path: str | os.PathLike[str]) -> str:
    """Return the file system behind a path: its name, or its magic number in hexadecimal.

    Raises:
        OSError: when there is no such path.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    answer = (ctypes.c_long * 32)()  # struct statfs begins with f_type, a word
    if libc.statfs(os.fsencode(path), ctypes.byref(answer)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), os.fspath(path))
    magic = answer[0] & 0xFFFFFFFF
    return _MAGIC.get(magic, hex(magic))


def buses() -> dict[str, int]:
    """Return the buses that this kernel drives: name → number of devices on it."""
    root = Path("/sys/bus")
    if not root.is_dir():
        raise UsageError("/sys/bus does not exist: sysfs is not mounted here")
    return {bus.name: len(list((bus / "devices").glob("*"))) for bus in sorted(root.iterdir())}


def protocols() -> dict[str, int]:
    """Return the transport protocols that have sockets: name → number of open sockets, of this network namespace."""
    lines = Path("/proc/net/protocols").read_text().splitlines()[1:]
    return {line.split()[0]: int(line.split()[2]) for line in lines}
