"""The engine ``kvm``: the host's hardware virtualization, by ioctls from Python.

The guest runs in ring 3 of a 64-bit virtual machine. Its traps go to ring 0 of the same machine, as on any CPU, where
nothing waits for them but 256 times the instruction ``hlt``. *That* is the exit: KVM returns, and the vector, the
error code and the registers are found on ring 0's stack::

    ring 3   cli ── #GP ──▶ ring 0: push ss, rsp, rflags, cs, rip, error code; vector 13: hlt ── vmexit ──▶ us
    ring 3   ◀─────────────────────────── KVM_SET_SREGS (cs, ss of ring 3), KVM_SET_REGS ─────────── KVM_RUN ◀── us

Page tables (for 1 GiB, always complete), GDT, IDT, TSS, stack and the 256 stubs lie in a second memory slot, which
ring 3 cannot touch. The memory file is the first slot; an entry of the page tables is (its offset, permissions).

Source: Linux, Documentation/virt/kvm/api.rst; Intel SDM vol. 3, chapters 4 (paging), 6 (interrupts) and 8 (TSS).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from typing import Any

from ..error import CapabilityError
from .memory import HIGHEST, LIMIT, PAGE, Memory
from .process import Child
from .registers import NAMES, TF
from .stepping import hide_trap_flag
from .trap import COUNT, DEBUG, GONE, INT3, PAGE_FAULT, SYSCALL, TIME, Engine, Trap

LEVELS = ("mini", "full")
"""What the probe must say; with less, /dev/kvm may be there and hang or fail."""

# The monitor's slot: guest-physical and virtual 1 GiB onwards. Offsets:
_TOP, _POINTERS, _DIRECTORY, _OWN, _GDT, _TSS, _IDT, _STUBS, _STACK = (PAGE * n for n in (0, 2, 3, 4, 5, 6, 7, 8, 10))
_TABLES = 0x200000  # 512 tables of 4 KiB: every page from 0 to 1 GiB
_SIZE = 0x400000
_STUB_BYTES = 4
_STUB_CODE = bytes.fromhex("f4 eb fd 90")  # hlt / jmp to it / nop
_USER_CODE, _USER_DATA, _KERNEL_CODE, _TASK = 0x33, 0x2B, 0x08, 0x40
_DESCRIPTORS = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF, 0)
_NO_EXECUTE, _PRESENT, _WRITE, _USER, _LARGE = 1 << 63, 1, 2, 4, 0x80
_STAR, _LSTAR, _FMASK = 0xC0000081, 0xC0000082, 0xC0000084
_SYSCALL_STUB = _STUBS + 256 * _STUB_BYTES
_TICK_S = 0.02


class KvmEngine(Engine):
    """Runs the guest in a KVM virtual machine, in a child process."""

    name = "kvm"

    def __init__(self, memory: Memory) -> None:
        require_kvm()
        self._memory = memory
        try:
            self._child = Child(lambda: _Machine(memory), memory.fd)
        except RuntimeError as error:
            raise CapabilityError("the engine kvm", str(error), "The engines ptrace and unicorn need no KVM.") from None

    def resume(self, registers: list[int], instructions: int | None, seconds: float) -> Trap:
        """Run up to a trap."""
        return self._child.resume(registers, instructions, seconds, fresh=False)

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Follow a change of the memory map."""
        self._child.remap(address, size, offset, permissions)

    def close(self) -> None:
        """End the child, and with it the virtual machine."""
        self._child.close()


def require_kvm() -> None:
    """Raise CapabilityError unless the probe saw guests run under KVM here."""
    from ..capability import probe  # noqa: PLC0415

    seen = [o for tier in probe().tiers for o in tier.observations if o.name == "kvm"]
    if not seen or seen[0].facts.get("level") not in LEVELS:
        why = seen[0].observed if seen else "the probe says nothing of KVM"
        remedy = seen[0].remedy if seen else "Run `course probe --force`."
        raise CapabilityError("the engine kvm", why, remedy)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise CapabilityError("the engine kvm", "/dev/kvm cannot be opened", "Run `course probe --force`.")


class _Machine:
    """Lives in the child."""

    def __init__(self, memory: Memory) -> None:
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "KVM is Linux's")
        from ..capability import kvm_abi as kvm  # noqa: PLC0415

        self._kvm: Any = kvm
        self._memory = memory
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self._vm = fcntl.ioctl(fd, kvm.KVM_CREATE_VM, 0)
        fcntl.ioctl(self._vm, kvm.KVM_SET_TSS_ADDR, 0x7FFBD000)
        self._monitor = mmap.mmap(-1, _SIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        self._monitor_at = ctypes.addressof(ctypes.c_char.from_buffer(self._monitor))
        self._guest_at = ctypes.addressof(ctypes.c_char.from_buffer(memory.bytes))
        self._fill_monitor()
        self._set_slot(0, 0, LIMIT, self._guest_at)
        self._set_slot(1, HIGHEST, _SIZE, self._monitor_at)
        self._cpu = fcntl.ioctl(self._vm, kvm.KVM_CREATE_VCPU, 0)
        self._run = mmap.mmap(self._cpu, fcntl.ioctl(fd, kvm.KVM_GET_VCPU_MMAP_SIZE, 0))
        cpuid = bytearray(struct.pack("II", 100, 0) + bytes(40 * 100))
        fcntl.ioctl(fd, kvm.KVM_GET_SUPPORTED_CPUID, cpuid, True)
        fcntl.ioctl(self._cpu, kvm.KVM_SET_CPUID2, cpuid, True)
        self._ring3 = self._special_registers()
        self._let_syscall_trap()
        self._changed = False
        for change in memory.ranges():
            self.remap(*change)
        signal.signal(signal.SIGALRM, lambda *_: None)  # KVM_RUN returns EINTR
        signal.siginterrupt(signal.SIGALRM, True)

    def _set_slot(self, number: int, address: int, size: int, host: int) -> None:
        slot = self._kvm.MemoryRegion(number, 0, address, size, host)
        fcntl.ioctl(self._vm, self._kvm.KVM_SET_USER_MEMORY_REGION, slot)

    def _put(self, offset: int, *words: int) -> None:
        self._monitor[offset : offset + 8 * len(words)] = struct.pack(f"<{len(words)}Q", *words)

    def _fill_monitor(self) -> None:
        everything = _PRESENT | _WRITE | _USER
        for top in (_TOP, _TOP + PAGE):  # two alike: changing cr3 flushes the TLB
            self._put(top, HIGHEST + _POINTERS | everything)
        self._put(_POINTERS, HIGHEST + _DIRECTORY | everything, HIGHEST + _OWN | _PRESENT | _WRITE)
        self._put(_DIRECTORY, *(HIGHEST + _TABLES + PAGE * n | everything for n in range(512)))
        self._put(_OWN, HIGHEST | _LARGE | _PRESENT | _WRITE)
        task = HIGHEST + _TSS
        descriptor = 0x67 | (task & 0xFFFFFF) << 16 | 0x8B << 40 | (task >> 24 & 0xFF) << 56
        self._put(_GDT, *_DESCRIPTORS, descriptor, task >> 32)
        self._monitor[_TSS + 4 : _TSS + 12] = struct.pack("<Q", HIGHEST + _STACK)
        self._monitor[_TSS + 0x66 : _TSS + 0x68] = b"\xff\xff"  # no I/O permission bitmap: in and out are trapped
        self._monitor[_SYSCALL_STUB : _SYSCALL_STUB + _STUB_BYTES] = _STUB_CODE
        for vector in range(256):
            stub = HIGHEST + _STUBS + vector * _STUB_BYTES
            at = _STUBS + vector * _STUB_BYTES
            self._monitor[at : at + _STUB_BYTES] = _STUB_CODE
            ring = 3 if vector == INT3 else 0  # which rings may call it with int
            low = stub & 0xFFFF | _KERNEL_CODE << 16 | (0x8E00 | ring << 13) << 32 | (stub >> 16 & 0xFFFF) << 48
            self._put(_IDT + 16 * vector, low, stub >> 32)

    def _special_registers(self) -> Any:
        kvm = self._kvm
        special = kvm.Sregs()
        fcntl.ioctl(self._cpu, kvm.KVM_GET_SREGS, special, True)
        special.cr0, special.cr3, special.cr4 = 0x80050033, HIGHEST + _TOP, 0x620  # paging; PAE and SSE
        special.efer = 0xD01  # long mode, no-execute, syscall
        special.gdt.base, special.gdt.limit = HIGHEST + _GDT, 8 * (len(_DESCRIPTORS) + 2) - 1
        special.idt.base, special.idt.limit = HIGHEST + _IDT, 0xFFF
        special.cs = kvm.segment(_USER_CODE, 11, ring=3, long=True)
        special.ss = kvm.segment(_USER_DATA, 3, ring=3)
        for name in ("ds", "es", "fs", "gs"):
            setattr(special, name, kvm.Segment(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0))  # null, unusable
        special.tr = kvm.Segment(HIGHEST + _TSS, 0x67, _TASK, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
        return special

    def _let_syscall_trap(self) -> None:
        """Let syscall arrive at a stub of its own; it pushes nothing."""
        registers = {_STAR: _KERNEL_CODE << 32, _LSTAR: HIGHEST + _SYSCALL_STUB, _FMASK: 0x47700}
        entries = b"".join(struct.pack("<IIQ", number, 0, value) for number, value in registers.items())
        fcntl.ioctl(self._cpu, self._kvm.KVM_SET_MSRS, struct.pack("<II", len(registers), 0) + entries)

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Change entries of the page tables."""
        flags = _PRESENT | _USER if permissions else 0
        flags |= (_WRITE if "w" in permissions else 0) | (0 if "x" in permissions or not permissions else _NO_EXECUTE)
        first = address // PAGE
        entries = (offset + PAGE * n | flags if flags else 0 for n in range(size // PAGE))
        self._put(_TABLES + 8 * first, *entries)
        self._changed = True

    def _forget_translations(self) -> None:
        """Make KVM and the CPU forget what they know of the page tables: a new slot, a new cr3."""
        self._set_slot(1, HIGHEST, 0, self._monitor_at)
        self._set_slot(1, HIGHEST, _SIZE, self._monitor_at)
        self._ring3.cr3 ^= PAGE
        self._changed = False

    def resume(self, registers: list[int], instructions: int | None, deadline: float, fresh: bool) -> Trap:
        """Run up to a trap."""
        del fresh  # the hardware sees every store
        if self._changed:
            self._forget_translations()
        if instructions is None:
            return self._until_trap(registers, deadline)
        for _ in range(instructions):
            before = registers[16]
            registers[17] |= TF
            trap = self._until_trap(registers, deadline)
            registers[17] &= ~TF
            if trap.vector != DEBUG:
                return trap
            hide_trap_flag(self._memory, before, registers[6])
            if time.monotonic() >= deadline:
                return Trap(TIME)
        return Trap(COUNT)

    def _until_trap(self, registers: list[int], deadline: float) -> Trap:
        kvm = self._kvm
        general = kvm.Regs(**dict(zip(NAMES, registers, strict=True)))
        fcntl.ioctl(self._cpu, kvm.KVM_SET_SREGS, self._ring3)
        fcntl.ioctl(self._cpu, kvm.KVM_SET_REGS, general)
        reason = self._enter(deadline)
        fcntl.ioctl(self._cpu, kvm.KVM_GET_REGS, general, True)
        registers[:] = [getattr(general, name) for name in NAMES]
        stub = registers[16] - HIGHEST - _STUBS
        if reason == kvm.KVM_EXIT_HLT and stub // _STUB_BYTES == 256:
            return _syscall(registers)
        if reason == kvm.KVM_EXIT_HLT and 0 <= stub < 256 * _STUB_BYTES:
            return self._from_stack(stub // _STUB_BYTES, registers)
        if reason == kvm.KVM_EXIT_INTR and not 0 <= registers[16] - HIGHEST < _SIZE:
            return Trap(TIME)
        return Trap(GONE)

    def _enter(self, deadline: float) -> int:
        """KVM_RUN up to an exit; a timer that ticks again and again breaks every endless loop."""
        signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
        try:
            while True:
                try:
                    fcntl.ioctl(self._cpu, self._kvm.KVM_RUN, 0)
                    return int(struct.unpack_from("<I", self._run, 8)[0])
                except InterruptedError:
                    if time.monotonic() >= deadline:
                        return int(self._kvm.KVM_EXIT_INTR)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _from_stack(self, vector: int, registers: list[int]) -> Trap:
        """Read what the CPU pushed when it went to ring 0."""
        rip, _cs, flags, rsp, _ss = struct.unpack_from("<5Q", self._monitor, _STACK - 40)
        if vector == PAGE_FAULT and rip == HIGHEST + _SYSCALL_STUB:  # some KVMs stay in ring 3 on their way there
            registers[6] = rsp
            return _syscall(registers)
        registers[16], registers[17], registers[6] = rip, flags, rsp
        if vector == INT3:
            registers[16] -= 1
        address = 0
        if vector == PAGE_FAULT:
            special = self._kvm.Sregs()
            fcntl.ioctl(self._cpu, self._kvm.KVM_GET_SREGS, special, True)
            address = special.cr2
        return Trap(vector, address)


def _syscall(registers: list[int]) -> Trap:
    """Move back to the syscall: the return address is in rcx, the flags are in r11."""
    registers[16], registers[17] = registers[2] - 2, registers[11]
    return Trap(SYSCALL)
