"""The processor of the emulated KVM: Unicorn, from KVM's registers to KVM's exits and back.

Unicorn cannot be told a segment's hidden part. So a new state is *entered*, as firmware enters one: in 32-bit mode,
from a private page that is gone before the guest runs, the segments are loaded from a private descriptor table that
holds just these bases and types; then ``mov cr0`` switches to the guest's mode, in which the hidden parts live on
(what DOS programmers called unreal mode). Long mode needs no such table: its segments are flat.

An access without memory stops Unicorn before the instruction. A store is finished at once on a page that is there for
one instruction; so is a load, at the next `run`, with the caller's data, from a page that cannot be written: an
instruction that loads *and* stores is caught a second time, and makes two exits, as in KVM.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import struct
import time
from collections.abc import Callable
from typing import Any

from ..capability import kvm_abi as abi
from .descriptors import after_reset, descriptor, from_descriptor
from .kvm_device import TimeIsUp
from .unicorn_engine import load

_PAGE = 4096
_GENERAL = [name for name, *_ in abi.Regs._fields_]
_SEGMENTS = ("ds", "es", "fs", "gs", "ss")
_TABLE, _ENTRY = 0xFFFE0000, 0xFFFFF000  # the latter above every base: Unicorn does not wrap around at 4 GiB
_SWITCH_AT, _SPARE = _ENTRY + 0x100, 0xFFC0
# mov ds, bx / mov es, cx / mov fs, dx / mov gs, si / mov ss, di / jmp far (behind it)
_LOAD = bytes.fromhex("8edb 8ec1 8ee2 8eee 8ed7 ea")
_SWITCH = bytes.fromhex("0f22c0 90")  # mov cr0, eax
_MANY = 1 << 62  # counting is what lets a hook stop the CPU before the next instruction, not at the block's end
_PE, _PG, _LME = 1, 1 << 31, 1 << 8
_WITH_ERROR_CODE = {8, 10, 11, 12, 13, 14, 17}
_BAD_GUEST_STATE = 0x80000021  # VMX: entry failure because of invalid guest state
_IO_BYTES = 1024
_UNDEFINED = 6
_IF_AND_TF, _TF, _DF = 0x300, 0x100, 0x400
_CODE_TYPES = (3, 9, 11, 13, 15)  # accessed; data too, since it is the type in real mode
_PREFIXES, _INS = b"\xf2\xf3\x66\x67\x26\x2e\x36\x3e\x64\x65", b"\x6c\x6d"


class Processor:
    """One vCPU.

    Attributes:
        regs: general registers.
        sregs: segments and control registers.
    """

    def __init__(self, shared: mmap.mmap, io_data: int, base: int, size: int) -> None:
        """Share `shared` (a `Run`, and port data at offset `io_data`); guests' memory lies at `base`, `size` bytes."""
        self._unicorn = load()
        from unicorn import x86_const  # noqa: PLC0415 - a large shared library

        self._x86 = x86_const
        self._shared, self._io_data = shared, io_data
        self._run = abi.Run.from_buffer(shared)
        self._arena = range(base, base + size + 1)
        self.regs, self.sregs = after_reset()
        self._uc: Any = None
        self._entered: dict[str, int] = {}
        self._long = False
        self._mapped: dict[int, tuple[int, int, int, int]] = {}
        self._broken: list[range] = []
        self._pending: tuple[int, int] | None = None  # awaited: address (-1: a port) and how many bytes
        self._supply = b""  # for `in`
        self._loaded: dict[int, bytes] = {}  # for loads of the instruction that is not finished yet
        self._left = False
        self._fault = -1  # what made the guest stop: an exception's vector,
        self._access: tuple[int, int, int, int] | None = None  # or memory: kind, address, size, value,
        self._port: Callable[[], None] | None = None  # or a port

    def set_regs(self, regs: abi.Regs) -> None:
        """Set general registers; bit 1 of the flags is always 1."""
        regs.rflags |= 2
        self.regs = regs
        self._pending = None

    def set_sregs(self, sregs: abi.Sregs) -> None:
        """Set segments and control registers."""
        self.sregs = sregs
        self._uc = None

    # Running

    def run(self, slots: dict[int, abi.MemoryRegion], deadline: float) -> None:
        """Run up to an exit, which is told in the shared `Run`.

        Raises:
            OSError: EINTR for immediate_exit, EFAULT for a slot without memory behind it.
            TimeIsUp: no exit before the deadline.
        """
        if not self._enter(slots):
            return
        self._left = False
        if self._pending is not None:
            self._complete()
        if self._run.immediate_exit and not self._left:
            self._save()
            raise OSError(errno.EINTR, "immediate_exit")
        while not self._left:
            if time.thread_time() >= deadline:
                self._save()
                raise TimeIsUp
            self._resume(deadline)
            if self._fault >= 0:
                self._except(slots)
        self._save()

    def _resume(self, deadline: float, count: int = _MANY) -> None:
        """Let the guest run; what made it stop is left in the attributes."""
        self._fault, self._access, self._port = -1, None, None
        error = None
        patience = max(1, int((deadline - time.thread_time()) * 1e6)) if count == _MANY else 0  # microseconds; 0: none
        try:
            self._uc.emu_start(self._rip(), 0, timeout=patience, count=count)
        except self._unicorn.UcError as problem:
            error = problem
        if self._port is not None:
            self._port()
        elif self._access is not None:
            self._leave_for_memory(*self._access)
        elif self._fault >= 0 or self._left:
            return
        elif error is not None:
            self._leave(abi.KVM_EXIT_INTERNAL_ERROR)
        elif count == _MANY and not self._uc.query(self._unicorn.UC_QUERY_TIMEOUT):
            self._leave(abi.KVM_EXIT_HLT)

    def _leave(self, reason: int) -> None:
        self._left = True
        self._run.exit_reason = reason
        if reason == abi.KVM_EXIT_INTERNAL_ERROR:
            self._run.internal.suberror, self._run.internal.ndata = abi.KVM_INTERNAL_ERROR_EMULATION, 0

    # Devices

    def _on_out(self, uc: Any, port: int, size: int, value: int, _: Any) -> None:
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._port = lambda: self._leave_for_port(abi.KVM_EXIT_IO_OUT, port, size, 1, data)
        uc.emu_stop()

    def _on_in(self, uc: Any, port: int, size: int, _: Any) -> int:
        if len(self._supply) >= size:
            value, self._supply = self._supply[:size], self._supply[size:]
            return int.from_bytes(value, "little")
        before = self._read_general()
        target, count = self._string_input(before, size)
        old = b""
        if target >= 0:
            with contextlib.suppress(self._unicorn.UcError):
                old = bytes(uc.mem_read(target, size))

        def leave() -> None:
            self._write_general(before)
            if old:
                uc.mem_write(target, old)
            self._pending = (-1, size * count)
            self._leave_for_port(abi.KVM_EXIT_IO_IN, port, size, count, b"")

        self._port = leave
        uc.emu_stop()
        return 0

    def _string_input(self, regs: abi.Regs, size: int) -> tuple[int, int]:
        """Return where `ins` at rip stores (-1: it is a plain `in`) and how many items it wants at once."""
        code = bytes(self._uc.mem_read(self._base_of("cs") + regs.rip, 4))
        prefixes = code[: next(at for at in range(4) if at == 3 or code[at] not in _PREFIXES)]
        if code[len(prefixes)] not in _INS:
            return -1, 1
        wide = bool(self.sregs.cs.db) != (0x67 in prefixes) or self._long
        mask = 0xFFFFFFFF if wide else 0xFFFF
        items = regs.rcx & mask if 0xF3 in prefixes or 0xF2 in prefixes else 1
        target = self._base_of("es") + (regs.rdi & mask)
        offset = regs.rdi % _PAGE
        in_page = offset if regs.rflags & _DF else _PAGE - offset  # KVM compares these bytes with items, and so do we
        return target, max(1, min(items, in_page, _IO_BYTES // size))

    def _leave_for_port(self, direction: int, port: int, size: int, count: int, data: bytes) -> None:
        self._run.io = abi.Io(direction, size, port, count, self._io_data)
        self._shared[self._io_data : self._io_data + len(data)] = data
        self._leave(abi.KVM_EXIT_IO)

    def _on_memory(self, _uc: Any, kind: int, address: int, size: int, value: int, _: Any) -> bool:
        self._access = (kind, address, size, value)
        return False

    def _leave_for_memory(self, kind: int, address: int, size: int, value: int) -> None:
        unicorn = self._unicorn
        if any(address in part for part in self._broken):
            raise OSError(errno.EFAULT, "a slot without memory behind it")
        if kind in (unicorn.UC_MEM_FETCH_UNMAPPED, unicorn.UC_MEM_FETCH_PROT):
            self._leave(abi.KVM_EXIT_INTERNAL_ERROR)
            return
        load = kind in (unicorn.UC_MEM_READ_UNMAPPED, unicorn.UC_MEM_READ_PROT)
        data = (0 if load else value & (1 << 64) - 1).to_bytes(8, "little")
        size = min(size, 8)
        self._run.mmio = abi.Mmio(address, (ctypes.c_uint8 * 8)(*data[:size]), size, not load)
        self._leave(abi.KVM_EXIT_MMIO)
        if load:
            self._pending = (address, size)
        else:
            self._step_with({address: bytes(size), **self._loaded}, writable=True)
            self._loaded.clear()

    def _complete(self) -> None:
        """Finish the instruction of the last exit with the caller's data."""
        assert self._pending is not None
        (address, size), self._pending = self._pending, None
        if address < 0:
            self._supply = self._shared[self._io_data : self._io_data + size]
            while self._supply and not self._left:
                before = len(self._supply)
                self._resume(float("inf"), count=1)
                if len(self._supply) == before:
                    self._supply = b""  # the caller has put another instruction there
            return
        self._loaded[address] = bytes(self._run.mmio.data)[:size]
        self._step_with(self._loaded, writable=False)
        if not self._left:
            self._loaded.clear()

    def _step_with(self, contents: dict[int, bytes], *, writable: bool) -> None:
        """Execute one instruction with memory where there is none (or none that can be written)."""
        uc, unicorn = self._uc, self._unicorn
        pages = sorted({(at + n) // _PAGE * _PAGE for at, data in contents.items() for n in range(len(data))})
        real = {page: bytes(uc.mem_read(page, _PAGE)) for page in pages if self._is_mapped(page)}
        for page in pages:
            if page not in real:
                uc.mem_map(page, _PAGE, unicorn.UC_PROT_READ)
        for at, data in contents.items():
            if at // _PAGE * _PAGE not in real:
                uc.mem_write(at, data)
        for page in pages:
            uc.mem_protect(page, _PAGE, unicorn.UC_PROT_READ | (unicorn.UC_PROT_WRITE if writable else 0))
        left = self._left
        access: tuple[int, int, int, int] | None = None
        try:
            self._access = None
            with contextlib.suppress(unicorn.UcError):
                uc.emu_start(self._rip(), 0, count=1)
            access = self._access
        finally:
            for page in pages:
                if page in real:
                    uc.mem_write(page, real[page])
                    uc.mem_protect(page, _PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
                else:
                    uc.mem_unmap(page, _PAGE)
        if access is not None and not left:
            self._leave_for_memory(*access)

    # Exceptions

    def _on_interrupt(self, uc: Any, number: int, _: Any) -> None:
        self._fault = number
        uc.emu_stop()

    def _on_invalid(self, _uc: Any, _: Any) -> bool:
        self._fault = _UNDEFINED
        return False

    def _on_cpuid(self, uc: Any, _: Any) -> int:
        for name in ("EAX", "EBX", "ECX", "EDX"):  # what KVM says before KVM_SET_CPUID2
            uc.reg_write(getattr(self._x86, f"UC_X86_REG_{name}"), 0)
        return 1

    def _except(self, slots: dict[int, abi.MemoryRegion]) -> None:
        """Deliver an exception or a software interrupt as the processor does, or end as it does."""
        vector, self._fault = self._fault, -1
        self._save()
        try:
            delivered = self._through_gate(vector) if self.sregs.cr0 & _PE else self._through_vector(vector)
        except self._unicorn.UcError:  # no memory for the stack or the table
            self._leave(abi.KVM_EXIT_INTERNAL_ERROR)
            return
        if not delivered:
            self._leave(abi.KVM_EXIT_SHUTDOWN)
            return
        self._uc = None  # Unicorn takes a second exception for a double fault
        self._enter(slots)

    def _through_vector(self, vector: int) -> bool:
        """Real mode: push flags, cs, ip; go where the table says."""
        regs, special = self.regs, self.sregs
        if 4 * vector + 3 > special.idt.limit:
            return False
        ip, selector = struct.unpack("<HH", self._uc.mem_read(special.idt.base + 4 * vector, 4))
        for word in (regs.rflags, special.cs.selector, regs.rip):
            regs.rsp = regs.rsp & ~0xFFFF | (regs.rsp - 2) & 0xFFFF
            self._uc.mem_write(special.ss.base + (regs.rsp & 0xFFFF), struct.pack("<H", word & 0xFFFF))
        regs.rflags &= ~_IF_AND_TF
        regs.rip, special.cs.selector, special.cs.base = ip, selector, selector << 4
        return True

    def _through_gate(self, vector: int) -> bool:
        """Protected mode, in the same ring: push flags, cs, eip. Without a gate every fault ends in a shutdown."""
        regs, special = self.regs, self.sregs
        if self._long or 8 * vector + 7 > special.idt.limit or vector in _WITH_ERROR_CODE:
            return False
        low, selector, kind, high = struct.unpack("<HHHH", self._uc.mem_read(special.idt.base + 8 * vector, 8))
        if kind >> 8 & 0x9F not in (0x8E, 0x8F) or selector != special.cs.selector:
            return False
        for word in (regs.rflags, special.cs.selector, regs.rip):
            regs.rsp = (regs.rsp - 4) & 0xFFFFFFFF
            self._uc.mem_write(special.ss.base + regs.rsp, struct.pack("<I", word & 0xFFFFFFFF))
        regs.rflags &= ~(_IF_AND_TF if kind >> 8 & 1 == 0 else _TF)
        regs.rip = high << 16 | low
        return True

    # From KVM's registers to Unicorn's

    def _enter(self, slots: dict[int, abi.MemoryRegion]) -> bool:
        """Make Unicorn ready; False when the processor would refuse this state, or this emulator does not have it."""
        special = self.sregs
        self._long = bool(special.cr0 & _PG and special.efer & _LME)
        if not special.cs.present or special.cs.type not in _CODE_TYPES:
            self._run.fail_entry = abi.FailEntry(_BAD_GUEST_STATE, 0)
            self._leave(abi.KVM_EXIT_FAIL_ENTRY)
            return False
        if (special.cr0 & _PE and special.cs.dpl) or (special.cr0 & _PG and not self._long):
            self._leave(abi.KVM_EXIT_INTERNAL_ERROR)
            return False
        if self._uc is None:
            unicorn = self._unicorn
            self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if self._long else unicorn.UC_MODE_32)
            self._mapped = {}
            if not self._long:
                self._load_segments()
            self._add_hooks()
            self._write_tables()
        self._map(slots)
        if self._long:
            for name in ("CR4", "CR3", "CR0"):
                self._write(name, getattr(special, name.lower()))
        self._uc.ctl_flush_tb()
        self._write_general(self.regs)
        return True

    def _load_segments(self) -> None:
        uc, special = self._uc, self.sregs
        uc.mem_map(_TABLE, 0x10000)
        uc.mem_map(_ENTRY, _PAGE)
        uc.reg_write(self._x86.UC_X86_REG_GDTR, (0, _TABLE, 0xFFFF, 0))
        private = self._private_selectors()
        for name, selector in private.items():
            if selector:
                uc.mem_write(_TABLE + selector, descriptor(getattr(special, name), 11 if name == "cs" else 3))
        for name, register in zip(_SEGMENTS, ("EBX", "ECX", "EDX", "ESI", "EDI"), strict=True):
            self._write(register, private[name])
        offset = (_SWITCH_AT - special.cs.base) & 0xFFFFFFFF
        uc.mem_write(_ENTRY, _LOAD + struct.pack("<IH", offset, private["cs"]))
        uc.mem_write(_SWITCH_AT, _SWITCH)
        self._write("EAX", special.cr0 & ~_PG)
        uc.emu_start(_ENTRY, _SWITCH_AT + len(_SWITCH) - 1)
        uc.mem_unmap(_TABLE, 0x10000)
        uc.mem_unmap(_ENTRY, _PAGE)
        if not special.cr0 & _PE:
            for name in private:
                segment = getattr(special, name)
                if segment.base == segment.selector << 4 and not segment.db:
                    self._write(name.upper(), segment.selector)
        self._write("CR4", special.cr4)

    def _private_selectors(self) -> dict[str, int]:
        """Give each segment a place in the private table: its own selector where that is possible, 0 if unusable."""
        chosen: dict[str, int] = {}
        for at, name in enumerate(("cs", *_SEGMENTS)):
            segment = getattr(self.sregs, name)
            own = segment.selector
            if segment.unusable or not segment.present:
                chosen[name] = 0
            elif own & 7 or not own or own in chosen.values() or own >= _SPARE:
                chosen[name] = _SPARE + 8 * at
            else:
                chosen[name] = own
        return chosen

    def _add_hooks(self) -> None:
        uc, unicorn, x86 = self._uc, self._unicorn, self._x86
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([])  # no address ends a run
        uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        uc.hook_add(unicorn.UC_HOOK_INSN_INVALID, self._on_invalid)
        uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED | unicorn.UC_HOOK_MEM_PROT, self._on_memory)
        for instruction, hook in (
            (x86.UC_X86_INS_IN, self._on_in),
            (x86.UC_X86_INS_OUT, self._on_out),
            (x86.UC_X86_INS_CPUID, self._on_cpuid),
        ):
            uc.hook_add(unicorn.UC_HOOK_INSN, hook, None, 1, 0, instruction)

    def _write_tables(self) -> None:
        for name in ("gdt", "idt"):
            table = getattr(self.sregs, name)
            self._write(f"{name.upper()}R", (0, table.base, table.limit, 0))
        self._entered = {name: self._read(name.upper()) for name in ("cs", *_SEGMENTS)}

    def _is_mapped(self, page: int) -> bool:
        return any(start <= page < start + size for start, size, _, _ in self._mapped.values())

    def _map(self, slots: dict[int, abi.MemoryRegion]) -> None:
        """Follow the virtual machine's slots."""
        unicorn = self._unicorn
        wanted = {n: (s.guest_phys_addr, s.memory_size, s.userspace_addr, s.flags) for n, s in slots.items()}
        for number in [number for number, slot in self._mapped.items() if wanted.get(number) != slot]:
            start, size, _, _ = self._mapped.pop(number)
            self._uc.mem_unmap(start, size)
        self._broken = []
        for number, (start, size, host, flags) in wanted.items():
            if host not in self._arena or host + size not in self._arena:
                self._broken.append(range(start, start + size))
            elif number not in self._mapped:
                allowed = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
                allowed |= 0 if flags & abi.KVM_MEM_READONLY else unicorn.UC_PROT_WRITE
                self._uc.mem_map_ptr(start, size, allowed, host)
                self._mapped[number] = (start, size, host, flags)

    def _read(self, name: str) -> Any:
        return self._uc.reg_read(getattr(self._x86, f"UC_X86_REG_{name}"))

    def _write(self, name: str, value: Any) -> None:
        self._uc.reg_write(getattr(self._x86, f"UC_X86_REG_{name}"), value)

    def _registers(self) -> list[tuple[str, str]]:
        """Return KVM's names of the general registers, and Unicorn's in this mode."""
        if self._long:
            return [(name, name.upper()) for name in _GENERAL]
        return [(name, f"E{name[1:].upper()}") for name in _GENERAL if not name[1:].isdigit()]

    def _rip(self) -> int:
        return int(self._read("RIP" if self._long else "EIP"))

    def _write_general(self, regs: abi.Regs) -> None:
        for name, theirs in self._registers():
            self._write(theirs, getattr(regs, name) & (0xFFFFFFFFFFFFFFFF if self._long else 0xFFFFFFFF))

    def _read_general(self) -> abi.Regs:
        regs = abi.Regs.from_buffer_copy(self.regs)
        for name, theirs in self._registers():
            high = 0 if self._long else getattr(regs, name) & ~0xFFFFFFFF
            setattr(regs, name, high | self._read(theirs))
        return regs

    # And back

    def _save(self) -> None:
        """Keep what KVM_GET_REGS and KVM_GET_SREGS return."""
        self.regs = self._read_general()
        special = self.sregs
        for name in ("cr0", "cr2", "cr3", "cr4"):
            setattr(special, name, self._read(name.upper()))
        for name in ("gdt", "idt"):
            _, base, limit, _ = self._read(f"{name.upper()}R")
            getattr(special, name).base, getattr(special, name).limit = base, limit
        for name in ("cs", *_SEGMENTS):
            setattr(special, name, self._segment(name))
        self._entered = {name: self._read(name.upper()) for name in self._entered}
        self._run.if_flag = self.regs.rflags >> 9 & 1
        self._run.ready_for_interrupt_injection = self._run.if_flag
        self._run.cr8, self._run.apic_base = special.cr8, special.apic_base

    def _base_of(self, name: str) -> int:
        return int(self._segment(name).base)

    def _segment(self, name: str) -> abi.Segment:
        """Return what a segment register holds: as it was entered, or what the guest has loaded since."""
        entered: abi.Segment = getattr(self.sregs, name)
        selector = self._read(name.upper())
        if selector == self._entered[name]:
            return entered
        if not self._read("CR0") & _PE:
            changed = abi.Segment.from_buffer_copy(entered)
            changed.selector, changed.base = selector, selector << 4
            return changed
        _, base, _, _ = self._read("GDTR")
        return from_descriptor(bytes(self._uc.mem_read(base + (selector & ~7), 8)), selector)
