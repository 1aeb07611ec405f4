"""Where namespaces are refused: rules of the kernel's Landlock for files, network and signals of this process.

Landlock needs no privileges. It restricts a process and all that it starts: beneath the folders that were named it may
read, or read and write; elsewhere nothing. Newer kernels also restrict TCP (ABI 4), abstract Unix sockets and signals
to processes outside (ABI 6). What it cannot do: hide processes, hide pathname sockets, give another root.

Source: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from . import linux

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same on all processors
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BASE = (1 << 13) - 1
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET = 0b11  # bind and connect, TCP
_SCOPES = 0b11  # abstract Unix sockets, signals


def abi() -> int:
    """Return the version of Landlock that the kernel offers; 0 for none."""
    version = linux.libc().syscall(ctypes.c_long(_CREATE), None, ctypes.c_long(0), ctypes.c_long(_VERSION))
    return max(0, int(version))


def restrict(readable: Iterable[str], writable: Iterable[str], listable: Iterable[str] = ()) -> None:
    """Let this process read beneath some folders and write beneath others, for ever. Needs no_new_privs.

    Args:
        readable: folders and files to read and execute; those that are missing are left out.
        writable: folders and files (devices) to do anything with.
        listable: folders of which the names may be read, and those below.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = abi()
    files = _BASE | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    files |= _IOCTL_DEV if version >= 5 else 0
    attributes = struct.pack("QQQ", files, _NET if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(_CREATE, attributes[:size], ctypes.c_long(size), ctypes.c_long(0))
    try:
        for path in readable:
            _allow(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, files)
        for path in listable:
            _allow(ruleset, path, _READ_DIR)
        _call(_RESTRICT, ctypes.c_long(ruleset), ctypes.c_long(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, fd)
        _call(_ADD_RULE, ctypes.c_long(ruleset), ctypes.c_long(_PATH_BENEATH), rule, ctypes.c_long(0))
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    return linux.checked(linux.libc().syscall(ctypes.c_long(number), *arguments), "landlock")
