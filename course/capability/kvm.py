"""Does KVM here run guests, and which? Answered by running five of them, a few instructions each.

::

    absent          no /dev/kvm, or no x86-64
    no-permission   it is there and may not be opened
    bad-api         it opens and does not speak version 12, the only one there is
    broken          no guest of ours got through
    mini            tiny guests run; something that Linux needs does not (nested KVM under some hypervisors)
    full            all five run: Linux should boot with -accel kvm

The five are what decides in practice: 16-bit code (firmware), 64-bit code of ring 0 (a kernel), 64-bit code of ring 3
that leaves through memory-mapped I/O (programs), 32-bit paging (boot loaders), and cmpxchg16b in ring 0 (Linux's
slab allocator): an emulating KVM stops at the last two.

Source: Linux, Documentation/virt/kvm/api.rst; arch/x86/include/uapi/asm/kvm.h. Intel SDM vol. 3, chapters 3 and 4.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable
from typing import Any

from .kvm_abi import (
    API_VERSION,
    EXITS,
    KVM_CREATE_VCPU,
    KVM_CREATE_VM,
    KVM_GET_API_VERSION,
    KVM_GET_REGS,
    KVM_GET_SREGS,
    KVM_GET_SUPPORTED_CPUID,
    KVM_GET_VCPU_MMAP_SIZE,
    KVM_RUN,
    KVM_SET_CPUID2,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_TSS_ADDR,
    KVM_SET_USER_MEMORY_REGION,
    MemoryRegion,
    Regs,
    Segment,
    Sregs,
    segment,
)
from .report import State

RAM = 0x200000  # bytes; what lies above it is memory-mapped I/O
CODE, TABLES, GDT, TSS = 0x1000, 0x10000, 0x20000, 0x22000
LONG_MODE = {"cr0": 0x80050033, "cr4": 0x20, "efer": 0x500, "cr3": TABLES}


class Vm:
    """One guest with one CPU and 2 MiB of memory, gone with the process that made it."""

    def __init__(self, kvm: int) -> None:
        self.fd = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        fcntl.ioctl(self.fd, KVM_SET_TSS_ADDR, 0x7FFBD000)  # old Intel CPUs need three pages for real mode
        self.memory = mmap.mmap(-1, RAM, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self.fd, KVM_SET_USER_MEMORY_REGION, MemoryRegion(0, 0, 0, RAM, address))
        self.cpu = fcntl.ioctl(self.fd, KVM_CREATE_VCPU, 0)
        self.shared = mmap.mmap(self.cpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
        cpuid = bytearray(struct.pack("II", 100, 0) + bytes(40 * 100))
        fcntl.ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid, True)
        fcntl.ioctl(self.cpu, KVM_SET_CPUID2, cpuid, True)
        self.special = Sregs()
        fcntl.ioctl(self.cpu, KVM_GET_SREGS, self.special, True)

    def write(self, address: int, *quadwords: int) -> None:
        """Store 64-bit words, little-endian, one after the other."""
        self.memory[address : address + 8 * len(quadwords)] = struct.pack(f"<{len(quadwords)}Q", *quadwords)

    def set_up(self, **control: int) -> None:
        """Set control registers."""
        for name, value in control.items():
            setattr(self.special, name, value)

    def run(self, code: bytes, **registers: int) -> tuple[str, Regs]:
        """Run `code` up to its first exit; return the exit's name and the registers then."""
        self.memory[CODE : CODE + len(code)] = code
        fcntl.ioctl(self.cpu, KVM_SET_SREGS, self.special)
        fcntl.ioctl(self.cpu, KVM_SET_REGS, Regs(rip=CODE, rsp=0x8000, rflags=2, **registers))
        fcntl.ioctl(self.cpu, KVM_RUN, 0)
        (reason,) = struct.unpack_from("I", self.shared, 8)
        after = Regs()
        fcntl.ioctl(self.cpu, KVM_GET_REGS, after, True)
        return EXITS.get(reason, f"exit {reason}"), after


MOV_1234_HLT = bytes.fromhex("b8 34 12 00 00 f4")  # mov eax, 0x1234 / hlt


def real16(vm: Vm) -> bool:
    """Sixteen-bit code, as a BIOS is."""
    vm.special.cs.base = vm.special.cs.selector = 0
    leave, registers = vm.run(bytes.fromhex("b8 34 12 f4"))
    return leave == "HLT" and registers.rax & 0xFFFF == 0x1234


def _kernel64(vm: Vm) -> None:
    vm.write(TABLES, TABLES + 0x1003)
    vm.write(TABLES + 0x1000, TABLES + 0x2003)
    vm.write(TABLES + 0x2000, *((page << 21) | 0x83 for page in range(512)))
    vm.set_up(**LONG_MODE)
    vm.special.cs = segment(8, 11, long=True)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(vm.special, name, segment(16, 3))


def long64(vm: Vm) -> bool:
    """Ring-0 code in 64-bit mode, as a kernel is."""
    _kernel64(vm)
    leave, registers = vm.run(MOV_1234_HLT)
    return leave == "HLT" and registers.rax == 0x1234


def user64(vm: Vm) -> bool:
    """Ring-3 code in 64-bit mode that stores outside of memory: an MMIO exit."""
    vm.write(TABLES, TABLES + 0x1007)
    vm.write(TABLES + 0x1000, TABLES + 0x2007)
    vm.write(TABLES + 0x2000, *((page << 21) | 0x87 for page in range(512)))
    vm.write(GDT, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
    vm.set_up(**LONG_MODE)
    vm.special.gdt.base, vm.special.gdt.limit = GDT, 0x3F
    vm.special.cs = segment(0x23, 11, ring=3, long=True)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(vm.special, name, segment(0x1B, 3, ring=3))
    vm.special.tr = Segment(TSS, 0x67, 0x28, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    leave, _ = vm.run(bytes.fromhex("48 c7 c3 00 00 40 00 88 03"))  # mov rbx, 0x400000 / mov [rbx], al
    return leave == "MMIO"


def paging32(vm: Vm) -> bool:
    """Thirty-two-bit code with paging, as old kernels and boot loaders are."""
    pages = (struct.pack("<I", (page << 22) | 0x83) for page in range(1024))
    vm.memory[TABLES : TABLES + 4096] = b"".join(pages)
    vm.set_up(cr3=TABLES, cr4=vm.special.cr4 | 0x10, cr0=vm.special.cr0 | 0x80000001)
    vm.special.cs = segment(8, 11)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(vm.special, name, segment(16, 3))
    leave, registers = vm.run(MOV_1234_HLT)
    return leave == "HLT" and registers.rax == 0x1234


def cmpxchg16b(vm: Vm) -> bool:
    """An atomic 16-byte exchange in ring 0, which Linux's memory allocator uses."""
    _kernel64(vm)
    leave, _ = vm.run(bytes.fromhex("48 0f c7 0e f4"), rsi=0x3000)  # cmpxchg16b [rsi] / hlt
    return leave == "HLT"


GUESTS: tuple[Callable[[Vm], bool], ...] = (real16, long64, user64, paging32, cmpxchg16b)


def experiment() -> dict[str, Any]:
    """Run the five guests and name the level."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return _found("absent", f"this probe speaks to KVM on x86-64 Linux; this is {platform.platform(terse=True)}")
    try:
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return _found("no-permission", "/dev/kvm is there and may not be opened")
    except OSError as error:
        return _found("absent", f"/dev/kvm: {os.strerror(error.errno or 0)}")
    version = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
    if version != API_VERSION:
        return _found("bad-api", f"/dev/kvm speaks version {version}, not {API_VERSION}")
    results = {guest.__name__: _attempt(guest, kvm) for guest in GUESTS}
    return _judge(results)


def _attempt(guest: Callable[[Vm], bool], kvm: int) -> bool:
    try:
        return guest(Vm(kvm))
    except (OSError, ValueError):
        return False


def _judge(results: dict[str, bool]) -> dict[str, Any]:
    works = [name for name, ok in results.items() if ok]
    fails = [name for name, ok in results.items() if not ok]
    if not fails:
        return _found("full", "all tiny guests ran", guests=results)
    if not (results["long64"] or results["user64"]):
        return _found("broken", f"/dev/kvm opens, but 64-bit guests do not run (failed: {', '.join(fails)})")
    return _found("mini", f"tiny guests run ({', '.join(works)}); not {', '.join(fails)}", guests=results)


STATES = {"full": State.YES, "mini": State.PARTLY}
REMEDIES = {
    "absent": "Switch VT-x/AMD-V on in the firmware, or nested virtualization in the outer hypervisor; "
    "else the lessons use emulation.",
    "no-permission": "`sudo usermod -aG kvm $USER`, then log out and in; else the lessons use emulation.",
    "bad-api": "Update the kernel; else the lessons use emulation.",
    "broken": "The outer hypervisor offers no usable KVM; the lessons use emulation.",
    "mini": "The outer hypervisor emulates KVM in part: Linux guests use emulation, tiny guests may use KVM.",
}


def _found(level: str, observed: str, **facts: Any) -> dict[str, Any]:
    return {
        "state": STATES.get(level, State.NO).value,
        "observed": f"{level}: {observed}",
        "remedy": REMEDIES.get(level, ""),
        "facts": {"level": level, **facts},
    }
