"""The engine ``unicorn``: an emulated processor, on every machine.

The guest really is in ring 3 of the emulated CPU: an ``iretq`` from ring 0 takes it there, as a kernel would (writing
``cs`` does not). So privileged instructions raise #GP by themselves. Two things differ from a real CPU and are mended
here: Unicorn never checks the I/O permission of ``in`` and ``out`` (its hook runs instead, and what the instruction
did is undone), and it takes a second exception for a double fault unless a clean context is restored after each.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import struct
import threading
import time
from typing import Any

from ..error import CapabilityError
from .memory import LIMIT, Memory
from .process import Child
from .registers import NAMES
from .trap import COUNT, GONE, INT3, PAGE_FAULT, PROTECTION, SYSCALL, TIME, UNDEFINED, Engine, Trap

_PRIVATE = 0x50000000  # above all guest addresses; away again before the guest runs
_GDT = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
_CODE, _DATA = 0x33, 0x2B  # the selectors of user code on 64-bit Linux
_TICK_S = 0.02
_MANY = 1 << 62  # counting is what lets a hook stop the CPU before the next instruction, not at the block's end


def load() -> Any:
    """Import Unicorn.

    Raises:
        CapabilityError: it is not installed.
    """
    try:
        import unicorn  # noqa: PLC0415 - a large shared library
    except ImportError as error:
        raise CapabilityError("the engine unicorn", str(error), "Install it with pip install unicorn.") from None
    return unicorn


class UnicornEngine(Engine):
    """Emulates, in a child process."""

    name = "unicorn"

    def __init__(self, memory: Memory) -> None:
        load()
        self._memory = memory
        try:
            self._child = Child(lambda: _Emulator(memory.fd, memory.ranges()), memory.fd)
        except RuntimeError as error:
            raise CapabilityError("the engine unicorn", str(error), "Another engine may work.") from None

    def resume(self, registers: list[int], instructions: int | None, seconds: float) -> Trap:
        """Run up to a trap."""
        fresh, self._memory.dirty = self._memory.dirty, False
        return self._child.resume(registers, instructions, seconds, fresh=fresh)

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Follow a change of the memory map."""
        self._child.remap(address, size, offset, permissions)

    def close(self) -> None:
        """End the child."""
        self._child.close()


class _Emulator:
    """Lives in the child."""

    def __init__(self, fd: int, ranges: list[tuple[int, int, int, str]]) -> None:
        self._unicorn = unicorn = load()
        from unicorn import x86_const  # noqa: PLC0415

        self._x86 = x86_const
        self._ids = [getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in NAMES]
        self._vectors = [getattr(x86_const, f"UC_X86_REG_XMM{n}") for n in range(16)]
        self._vectors.append(x86_const.UC_X86_REG_MXCSR)
        self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._bytes = mmap.mmap(fd, LIMIT)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._bytes))
        self._mapped: set[int] = set()
        self._trap: Trap | None = None
        self._undo: tuple[list[int], int, bytes] | None = None
        self._deadline = float("inf")
        self._counting = False
        self._excepted = False
        self._enter_ring_3()
        self._add_hooks()
        for change in ranges:
            self.remap(*change)
        threading.Thread(target=self._watch_the_clock, daemon=True).start()

    def _enter_ring_3(self) -> None:
        uc, x86 = self._uc, self._x86
        uc.mem_map(_PRIVATE, 0x3000)
        uc.mem_write(_PRIVATE, struct.pack(f"<{len(_GDT)}Q", *_GDT))
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, _PRIVATE, 8 * len(_GDT) - 1, 0))
        uc.mem_write(_PRIVATE + 0x1000, bytes.fromhex("48cf 90"))  # iretq / nop
        target = _PRIVATE + 0x1002
        uc.mem_write(_PRIVATE + 0x2000, struct.pack("<5Q", target, _CODE, 0x202, 0, _DATA))
        uc.reg_write(x86.UC_X86_REG_RSP, _PRIVATE + 0x2000)
        uc.emu_start(_PRIVATE + 0x1000, target)
        for name in ("DS", "ES", "FS", "GS"):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0)
        uc.mem_unmap(_PRIVATE, 0x3000)
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([])  # no address ends a run
        uc.ctl_flush_tb()
        self._clean = uc.context_save()

    def _add_hooks(self) -> None:
        uc, unicorn, x86 = self._uc, self._unicorn, self._x86
        uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        uc.hook_add(unicorn.UC_HOOK_INSN_INVALID, self._on_invalid)
        uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED | unicorn.UC_HOOK_MEM_PROT, self._on_memory)
        for instruction, hook in (
            (x86.UC_X86_INS_IN, self._on_in),
            (x86.UC_X86_INS_OUT, self._on_out),
            (x86.UC_X86_INS_SYSCALL, self._on_syscall),
        ):
            uc.hook_add(unicorn.UC_HOOK_INSN, hook, None, 1, 0, instruction)

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Page by page: Unicorn forgets no mapping by itself."""
        unicorn = self._unicorn
        allowed = sum(
            {"r": unicorn.UC_PROT_READ, "w": unicorn.UC_PROT_WRITE, "x": unicorn.UC_PROT_EXEC}[p] for p in permissions
        )
        pages = range(address, address + size, 0x1000)
        for page in [page for page in pages if page in self._mapped]:
            self._uc.mem_unmap(page, 0x1000)
            self._mapped.discard(page)
        if permissions:
            self._uc.mem_map_ptr(address, size, allowed, self._base + offset)
            self._mapped.update(pages)

    def resume(self, registers: list[int], instructions: int | None, deadline: float, fresh: bool) -> Trap:
        """Run up to a trap."""
        uc = self._uc
        counting = instructions is not None
        if fresh or counting != self._counting:  # what is translated already does not count
            uc.ctl_flush_tb()
            self._counting = counting
        uc.reg_write_batch(list(zip(self._ids, registers, strict=True)))
        self._trap, self._undo, self._deadline = None, None, deadline
        try:
            uc.emu_start(registers[16], 0, count=instructions or _MANY)
        except self._unicorn.UcError:
            if self._trap is None:
                self._trap = Trap(GONE)
        self._deadline = float("inf")
        registers[:] = uc.reg_read_batch(self._ids)
        if self._undo is not None:
            registers[:], address, old = self._undo
            if old:
                uc.mem_write(address, old)
        trap = self._trap
        if trap is None:
            return Trap(TIME if instructions is None or time.monotonic() >= deadline else COUNT)
        if self._excepted:
            self._excepted = False
            self._forget_the_exception()
        return self._at_the_instruction(trap, registers)

    def _forget_the_exception(self) -> None:
        vectors = self._uc.reg_read_batch(self._vectors)
        self._uc.context_restore(self._clean)
        self._uc.reg_write_batch(list(zip(self._vectors, vectors, strict=True)))

    @staticmethod
    def _at_the_instruction(trap: Trap, registers: list[int]) -> Trap:
        """Move rip back where Unicorn leaves it behind: int3 and int n."""
        if trap.vector == INT3:
            registers[16] -= 1
        elif trap.vector >= 32:
            registers[16] -= 2
            return Trap(PROTECTION)
        return trap

    def _watch_the_clock(self) -> None:
        while True:
            time.sleep(_TICK_S)
            if time.monotonic() >= self._deadline:
                self._uc.emu_stop()

    def _stop(self, trap: Trap) -> None:
        if self._trap is None:
            self._trap = trap
        self._uc.emu_stop()

    def _on_interrupt(self, _uc: Any, number: int, _: Any) -> None:
        self._excepted = True
        self._stop(Trap(number))

    def _on_invalid(self, _uc: Any, _: Any) -> bool:
        self._excepted = True
        self._stop(Trap(UNDEFINED))
        return False

    def _on_memory(self, _uc: Any, _access: int, address: int, _size: int, _value: int, _: Any) -> bool:
        self._stop(Trap(PAGE_FAULT, address))
        return False

    def _on_syscall(self, uc: Any, _: Any) -> None:
        self._undo = (list(uc.reg_read_batch(self._ids)), 0, b"")
        self._stop(Trap(SYSCALL))

    def _on_out(self, uc: Any, _port: int, _size: int, _value: int, _: Any) -> None:
        self._undo = (list(uc.reg_read_batch(self._ids)), 0, b"")
        self._stop(Trap(PROTECTION))

    def _on_in(self, uc: Any, _port: int, size: int, _: Any) -> int:
        registers = list(uc.reg_read_batch(self._ids))
        target, old = registers[5], b""
        with contextlib.suppress(self._unicorn.UcError):
            old = bytes(uc.mem_read(target, size))  # ins stores there; harmless for in
        self._undo = (registers, target, old)
        self._stop(Trap(PROTECTION))
        return 0
