"""System calls that Python has no function for: mounts, namespaces, capabilities, death signals. By ctypes, no C.

Each function raises OSError with the name of the call. Nothing here knows what a box is.

Source: mount(2), pivot_root(2), unshare(2), setns(2), capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import signal
from pathlib import Path

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 1 << 14, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x2008_0522
_LAST_CAPABILITY = 63

# Numbers of calls that glibc 2.36 has no wrapper for, by machine. Source: the kernel's syscall tables.
NUMBERS = {"x86_64": {"pivot_root": 155, "seccomp": 317}, "aarch64": {"pivot_root": 41, "seccomp": 277}}


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
    library.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    library.syscall.restype = ctypes.c_long
    return library


def checked(result: int, what: str) -> int:
    """Return `result`, or raise what errno says when it is negative."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def number(name: str) -> int:
    """Return the number of a system call on this machine.

    Raises:
        OSError: this kind of processor is not known here.
    """
    try:
        return NUMBERS[platform.machine()][name]
    except KeyError:
        raise OSError(f"the number of {name} is not known for {platform.machine()}; known: {list(NUMBERS)}") from None


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """Set something about this process."""
    return checked(libc().prctl(option, value, third, 0, 0), f"prctl({option})")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    checked(libc().unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace of an open file."""
    checked(libc().setns(fd, kind), f"setns({kind:#x})")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system, bind a folder, or change how a mount behaves."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    checked(libc().mount(words[0], words[1], words[2], flags, words[3]), f"mount {kind or source or ''} on {target}")


def bind(source: str, target: str, *, writable: bool = False, noexec: bool = False) -> None:
    """Show a folder or file at another place; read-only unless `writable`. The target must exist."""
    mount(source, target, None, MS_BIND)
    flags = MS_NOSUID | (0 if writable else MS_RDONLY) | (MS_NOEXEC if noexec else 0)
    # What the mount below forbids cannot be allowed again in a user namespace: keep it. (ST_* equal MS_* here.)
    flags |= os.statvfs(target).f_flag & (MS_NODEV | MS_NOEXEC | MS_RDONLY | 1024 | 2048 | 4096)
    mount(None, target, None, MS_BIND | MS_REMOUNT | (flags & 0xF) | _times(flags))


def _times(flags: int) -> int:
    """Translate statvfs's ST_NOATIME, ST_NODIRATIME and ST_RELATIME to what mount wants."""
    return sum(to for was, to in ((1024, 1 << 10), (2048, 1 << 11), (4096, 1 << 21)) if flags & was)


def pivot_root(root: str) -> None:
    """Make `root`, a mount, the root of this mount namespace, and let go of the old one."""
    here = number("pivot_root")
    os.chdir(root)
    checked(libc().syscall(ctypes.c_long(here), b".", b"."), "pivot_root")
    checked(libc().umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent ends. A change of user clears this: ask again after it."""
    prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def bound_capabilities() -> None:
    """Give up, for ever, what a program file could bring back. Before a change of user: it takes a capability."""
    for capability in range(_LAST_CAPABILITY + 1):
        if libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the kernel has no more of them, or we hold none: then there is nothing to give up


def drop_capabilities() -> None:
    """Give up all capabilities that this process holds or hands on."""
    libc().prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    checked(libc().capset(header, (ctypes.c_uint32 * 6)()), "capset")


def no_new_privileges() -> None:
    """Let no program that this process starts have more rights than it."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def children(pid: int) -> list[int]:
    """Return the direct children of a process, as pids of our own namespace."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return found
    return found


def descendants(pid: int) -> list[int]:
    """Return a process and all below it. A process that ends meanwhile may be among them or not."""
    found, new = [pid], [pid]
    while new:
        new = [child for parent in new for child in children(parent) if child not in found]
        found += new
    return found
