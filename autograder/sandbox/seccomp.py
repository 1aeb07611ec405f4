"""The filter of system calls that a box may not make: a small program for the kernel's own BPF machine.

::

    load the kind of processor that the call is made for
      x86-64? ─▶ load its number ─▶ x32 call?            refuse
                                    in the list?         refuse
                                    clone, unshare       refuse if a flag asks for a namespace
                                    socket               refuse what is not in the list of families
                                    anything else        allow
      i386?   ─▶ the same with i386's numbers (lessons run 32-bit programs)
      else    ─▶ refuse

"Refuse" is EPERM, and ENOSYS for clone3, whose flags a filter cannot see: the C library then uses clone. A deny list
and not an allow list: lessons trace processes, run QEMU and foreign programs, whose calls nobody can list; all of them
run without privileges in namespaces of their own. The list holds what reaches the kernel's own structures.

Source: seccomp(2); struct seccomp_data in linux/seccomp.h; the kernel's syscall tables.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable

from . import linux

_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_AT_NR, _AT_ARCH, _AT_ARG0 = 0, 4, 16
_X32 = 0x4000_0000
_SET_MODE_FILTER = 1

_NAMESPACES = 0x7E02_0000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NEWTIME = 0x80  # for unshare; the same bit belongs to clone's exit signal

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
FAMILIES = (UNIX, INET, INET6, NETLINK)
"""Families of sockets that a box with a network of its own may open; AF_VSOCK, say, reaches the host from anywhere."""

# The same numbers on all processors: calls since Linux 5.1.
_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "quotactl_fd": 443,
    "open_tree_attr": 467,
}  # fmt: skip
_CLONE3 = 435

_DENIED = {
    "x86_64": {
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "setns": 308,
        "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
        "reboot": 169, "swapon": 167, "swapoff": 168, "open_by_handle_at": 304, "acct": 163, "quotactl": 179,
        "settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159, "iopl": 172, "ioperm": 173,
        "syslog": 103, "lookup_dcookie": 212, "nfsservctl": 180, "vhangup": 153, "uselib": 134,
        "create_module": 174, "get_kernel_syms": 177, "query_module": 178,
        **_COMMON,
    },
    "aarch64": {
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "setns": 268,
        "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "reboot": 142, "swapon": 224, "swapoff": 225, "open_by_handle_at": 265, "acct": 89, "quotactl": 60,
        "settimeofday": 170, "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171,
        "syslog": 116, "lookup_dcookie": 18, "nfsservctl": 42, "vhangup": 58,
        **_COMMON,
    },
    "i386": {
        "mount": 21, "umount": 22, "umount2": 52, "pivot_root": 217, "chroot": 61, "setns": 346,
        "add_key": 286, "request_key": 287, "keyctl": 288, "bpf": 357, "perf_event_open": 336, "userfaultfd": 374,
        "kexec_load": 283, "init_module": 128, "finit_module": 350, "delete_module": 129,
        "reboot": 88, "swapon": 87, "swapoff": 115, "open_by_handle_at": 342, "acct": 51, "quotactl": 131,
        "stime": 25, "settimeofday": 79, "clock_settime": 264, "clock_settime64": 404, "clock_adjtime": 343,
        "clock_adjtime64": 405, "adjtimex": 124, "iopl": 110, "ioperm": 101, "vm86old": 113, "vm86": 166,
        "syslog": 103, "lookup_dcookie": 253, "nfsservctl": 169, "vhangup": 111, "uselib": 86,
        "socketcall": 102,  # its families lie in memory, where a filter cannot look
        **_COMMON,
    },
}  # fmt: skip
_FLAGGED = {  # clone, unshare, socket
    "x86_64": (56, 272, 41),
    "aarch64": (220, 97, 198),
    "i386": (120, 310, 359),
}
_AUDIT = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7, "i386": 0x4000_0003}
_ALSO = {"x86_64": "i386"}


def denied(machine: str | None = None) -> dict[str, int]:
    """Return the calls that are always refused: name → number, for this machine or the one named."""
    return dict(_DENIED[machine or platform.machine()])


def program(machine: str | None = None, families: Iterable[int] = FAMILIES) -> bytes:
    """Return the filter as the kernel takes it, eight bytes per instruction.

    Args:
        machine: as `platform.machine` names it; None for this one.
        families: address families that ``socket`` may open.

    Raises:
        OSError: nobody has listed the calls of this kind of processor.
    """
    name = machine or platform.machine()
    if name not in _AUDIT:
        raise OSError(f"no filter for {name}; there are filters for {', '.join(_AUDIT)}")
    code = [_load(_AT_ARCH)]
    for kind in filter(None, (name, _ALSO.get(name))):
        part = _part(kind, tuple(families))
        # A jump over more than 255 instructions does not fit into its byte: none is that long.
        code += [_jump(_JEQ, _AUDIT[kind], 0, len(part)), *part]
    code.append(_return(errno.EPERM))
    return b"".join(code)


def install(families: Iterable[int] = FAMILIES) -> None:
    """Filter the calls of this process and all that it will start, for ever. Needs no_new_privs.

    Raises:
        OSError: the kernel or the processor does not have it.
    """
    code = program(families=families)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    call = (ctypes.c_long(linux.number("seccomp")), ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(0))
    linux.checked(linux.libc().syscall(*call, header), "seccomp")


def _part(kind: str, families: tuple[int, ...]) -> list[bytes]:
    """Return the filter for one kind of processor; every way through it ends in a return."""
    clone, unshare, socket = _FLAGGED[kind]
    code = [_load(_AT_NR)]
    if kind == "x86_64":
        code += [_jump(_JGE, _X32, 0, 1), _return(errno.EPERM)]
    code += [_jump(_JEQ, _CLONE3, 0, 1), _return(errno.ENOSYS)]
    for call, mask in ((clone, _NAMESPACES), (unshare, _NAMESPACES | _NEWTIME)):
        code += [_jump(_JEQ, call, 0, 4), _load(_AT_ARG0), _jump(_JSET, mask, 0, 1), _return(errno.EPERM), _return(0)]
    tests = [_jump(_JEQ, family, len(families) - place, 0) for place, family in enumerate(families)]
    code += [_jump(_JEQ, socket, 0, len(tests) + 3), _load(_AT_ARG0), *tests, _return(errno.EAFNOSUPPORT), _return(0)]
    numbers = sorted(set(_DENIED[kind].values()))
    code += [_jump(_JEQ, call, len(numbers) - place, 0) for place, call in enumerate(numbers)]
    return [*code, _return(0), _return(errno.EPERM)]


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", _LD_W_ABS, 0, 0, offset)


def _jump(how: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", how, if_true, if_false, value)


def _return(error: int) -> bytes:
    return struct.pack("HBBI", _RET, 0, 0, _ERRNO | error if error else _ALLOW)
