"""KVM's numbers and structures, as the kernel's headers define them: one set for the probe, the engine and the lessons.

A request number says what it carries: direction (1 into the kernel, 2 out of it), size of the structure, 0xAE for
KVM, and its own number::

    31 30 29        16 15     8 7      0
    dir   size         0xAE     number        KVM_SET_REGS = 1, 144, 0xAE, 0x82 = 0x4090AE82

so a structure of the wrong size is another request, one that KVM does not have (ENOTTY).

Source: Linux, include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import ctypes
from typing import Any

API_VERSION = 12


class Regs(ctypes.Structure):
    """`struct kvm_regs`: the general registers, 64 bits each in every mode."""

    _fields_ = [
        *((n, ctypes.c_uint64) for n in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")),
        *((f"r{n}", ctypes.c_uint64) for n in range(8, 16)),
        ("rip", ctypes.c_uint64),
        ("rflags", ctypes.c_uint64),
    ]


class Segment(ctypes.Structure):
    """`struct kvm_segment`: a segment register with its hidden part, what the CPU keeps of the descriptor."""

    _fields_ = [
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("selector", ctypes.c_uint16),
        *((n, ctypes.c_uint8) for n in ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable", "padding")),
    ]


class Dtable(ctypes.Structure):
    """`struct kvm_dtable`: where the GDT or the IDT is."""

    _fields_ = [("base", ctypes.c_uint64), ("limit", ctypes.c_uint16), ("padding", ctypes.c_uint16 * 3)]


class Sregs(ctypes.Structure):
    """`struct kvm_sregs`: segments, control registers."""

    _fields_ = [
        *((n, Segment) for n in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        ("gdt", Dtable),
        ("idt", Dtable),
        *((n, ctypes.c_uint64) for n in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", ctypes.c_uint64 * 4),
    ]


class MemoryRegion(ctypes.Structure):
    """`struct kvm_userspace_memory_region`: which memory of ours the guest sees, and where."""

    _fields_ = [
        ("slot", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("guest_phys_addr", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("userspace_addr", ctypes.c_uint64),
    ]


class Io(ctypes.Structure):
    """`kvm_run.io`: port I/O. The data lie at `data_offset` in the same mapping, `size * count` bytes."""

    _fields_ = [
        ("direction", ctypes.c_uint8),
        ("size", ctypes.c_uint8),
        ("port", ctypes.c_uint16),
        ("count", ctypes.c_uint32),
        ("data_offset", ctypes.c_uint64),
    ]


class Mmio(ctypes.Structure):
    """`kvm_run.mmio`: an access to an address without memory."""

    _fields_ = [
        ("phys_addr", ctypes.c_uint64),
        ("data", ctypes.c_uint8 * 8),
        ("len", ctypes.c_uint32),
        ("is_write", ctypes.c_uint8),
    ]


class FailEntry(ctypes.Structure):
    """`kvm_run.fail_entry`: the CPU refused to enter the guest."""

    _fields_ = [("hardware_entry_failure_reason", ctypes.c_uint64), ("cpu", ctypes.c_uint32)]


class Internal(ctypes.Structure):
    """`kvm_run.internal`: KVM cannot go on; suberror 1 is an instruction that it could not emulate."""

    _fields_ = [("suberror", ctypes.c_uint32), ("ndata", ctypes.c_uint32), ("data", ctypes.c_uint64 * 16)]


class _Why(ctypes.Union):
    _fields_ = [("io", Io), ("mmio", Mmio), ("fail_entry", FailEntry), ("internal", Internal),
                ("padding", ctypes.c_uint8 * 256)]  # fmt: skip


class Run(ctypes.Structure):
    """`struct kvm_run`, up to the union that says more about `exit_reason`; shared with the kernel."""

    _anonymous_ = ("why",)
    _fields_ = [
        ("request_interrupt_window", ctypes.c_uint8),
        ("immediate_exit", ctypes.c_uint8),
        ("padding1", ctypes.c_uint8 * 6),
        ("exit_reason", ctypes.c_uint32),
        ("ready_for_interrupt_injection", ctypes.c_uint8),
        ("if_flag", ctypes.c_uint8),
        ("flags", ctypes.c_uint16),
        ("cr8", ctypes.c_uint64),
        ("apic_base", ctypes.c_uint64),
        ("why", _Why),
    ]


def _request(direction: int, size: int, number: int) -> int:
    return direction << 30 | size << 16 | 0xAE << 8 | number


_IN, _OUT = 1, 2  # _IOW and _IOR, seen from the caller
KVM_GET_API_VERSION = _request(0, 0, 0x00)
KVM_CREATE_VM = _request(0, 0, 0x01)
KVM_CHECK_EXTENSION = _request(0, 0, 0x03)
KVM_GET_VCPU_MMAP_SIZE = _request(0, 0, 0x04)
KVM_GET_SUPPORTED_CPUID = _request(_IN | _OUT, 8, 0x05)
KVM_CREATE_VCPU = _request(0, 0, 0x41)
KVM_SET_USER_MEMORY_REGION = _request(_IN, ctypes.sizeof(MemoryRegion), 0x46)
KVM_SET_TSS_ADDR = _request(0, 0, 0x47)
KVM_RUN = _request(0, 0, 0x80)
KVM_GET_REGS = _request(_OUT, ctypes.sizeof(Regs), 0x81)
KVM_SET_REGS = _request(_IN, ctypes.sizeof(Regs), 0x82)
KVM_GET_SREGS = _request(_OUT, ctypes.sizeof(Sregs), 0x83)
KVM_SET_SREGS = _request(_IN, ctypes.sizeof(Sregs), 0x84)
KVM_SET_MSRS = _request(_IN, 8, 0x89)
KVM_SET_CPUID2 = _request(_IN, 8, 0x90)
KVM_GET_STATS_FD = _request(0, 0, 0xCE)

KVM_CAP_USER_MEMORY, KVM_CAP_SET_TSS_ADDR, KVM_CAP_NR_VCPUS, KVM_CAP_NR_MEMSLOTS = 3, 4, 9, 10
KVM_CAP_MAX_VCPUS, KVM_CAP_IMMEDIATE_EXIT = 66, 136
KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY = 1, 2

KVM_EXIT_UNKNOWN, KVM_EXIT_IO, KVM_EXIT_HLT, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN = 0, 2, 5, 6, 8
KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTR, KVM_EXIT_INTERNAL_ERROR = 9, 10, 17
KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT = 0, 1
KVM_INTERNAL_ERROR_EMULATION = 1
EXITS = {
    KVM_EXIT_UNKNOWN: "UNKNOWN", KVM_EXIT_IO: "IO", KVM_EXIT_HLT: "HLT", KVM_EXIT_MMIO: "MMIO",
    KVM_EXIT_SHUTDOWN: "SHUTDOWN", KVM_EXIT_FAIL_ENTRY: "FAIL_ENTRY", KVM_EXIT_INTR: "INTR",
    KVM_EXIT_INTERNAL_ERROR: "INTERNAL_ERROR",
}  # fmt: skip


def segment(selector: int, kind: int, *, ring: int = 0, long: bool = False) -> Segment:
    """A flat segment of 4 GiB; kind 11 is code, 3 is data."""
    return Segment(0, 0xFFFFFFFF, selector, kind, 1, ring, 0 if long else 1, 1, int(long), 1, 0, 0, 0)


def request_name(request: int) -> str:
    """Return a request's name, such as ``"KVM_RUN"``; a number that is none of ours in hexadecimal."""
    names: dict[Any, str] = {value: name for name, value in globals().items() if name in _REQUESTS}
    return names.get(request, f"request {request:#010x}")


_REQUESTS = frozenset(
    name for name, value in list(globals().items())
    if name.startswith("KVM_") and isinstance(value, int) and value >> 8 & 0xFF == 0xAE
)  # fmt: skip
