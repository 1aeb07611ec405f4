"""The reference: the guest as it would run if the machine were its own, in ring 0 of an emulated processor.

A VMM is right when its guest cannot tell it from this. The machine has one port for output, one for input, and tables
of its own where no host has them:

::

    0x00008000  GDT: code and data of ring 0, a TSS (selector 0x18), an LDT (selector 0x28)
    0x00009000  IDT, TSS and LDT, empty
    0x00100000  RAM with the code, as for `Vcpu.open`

    port 0xe9   what is sent there appears on the console
    port 0x60   the next key, 0 when there is none
    others      nothing listens: what is sent is lost, what is read is all ones

`run` must be called in a process that may crash: the code is anyone's.

Source: Intel SDM vol. 3, chapters 2 (system registers) and 3 (descriptors); Popek and Goldberg, "Formal Requirements
for Virtualizable Third Generation Architectures", CACM 17(7), 1974.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from .cpu import RAM_KIB, START
from .registers import NAMES
from .unicorn_engine import load

CONSOLE, KEYS = 0xE9, 0x60
_TABLES, _GDT, _IDT = 0x8000, 0x8000, 0x9000
_CODE, _DATA, _TSS, _LDT = 0x08, 0x10, 0x18, 0x28
_DESCRIPTORS = (
    0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF,  # nothing, code of ring 0, data of ring 0
    0x0000890098000067, 0, 0x00008200A0000FFF, 0,  # TSS and LDT, 16 bytes each
)  # fmt: skip
_MONITOR, _NUMERIC = 0x2, 0x20  # bits of cr0 that mean nothing to these guests, and that tell it from a host's


def run(
    code: bytes, keys: bytes = b"", *, fuel: int = 100_000, registers: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Run code in ring 0 until ``hlt``, an exception, the end of the code, or the end of the fuel.

    Args:
        code: machine code; it lies at `cpu.START`.
        keys: what port 0x60 gives, byte by byte.
        fuel: instructions.
        registers: values at the start; the others are zero, and rsp points to the end of the RAM.

    Returns:
        ``end`` (``"hlt"``, ``"fault"``, ``"end of code"``, ``"fuel"``), ``console``, ``registers`` (with cr0, cr2, cr3,
        cr4), ``executed`` (the instructions' bytes, in order, each once).

    Raises:
        CapabilityError: Unicorn is not installed.
    """
    return _Machine(code, keys, registers or {}).run(fuel)


class _Machine:
    def __init__(self, code: bytes, keys: bytes, registers: Mapping[str, int]) -> None:
        self._unicorn = load()
        from unicorn import x86_const  # noqa: PLC0415 - a large shared library

        self._x86 = x86_const
        self._code, self._keys, self._console = code, bytearray(keys), bytearray()
        self._executed: dict[bytes, None] = {}
        self._halted = self._faulted = False
        self._uc = self._unicorn.Uc(self._unicorn.UC_ARCH_X86, self._unicorn.UC_MODE_64)
        self._uc.mem_map(_TABLES, 0x4000)
        self._uc.mem_map(START, RAM_KIB << 10)
        self._enter_ring_0()
        self._uc.mem_write(START, code)
        for name, value in {"rsp": START + (RAM_KIB << 10), "rflags": 2, **registers}.items():
            self._write(name, value)
        self._add_hooks()

    def _id(self, name: str) -> int:
        return int(getattr(self._x86, f"UC_X86_REG_{name.upper()}"))

    def _write(self, name: str, value: Any) -> None:
        self._uc.reg_write(self._id(name), value)

    def _enter_ring_0(self) -> None:
        """Load the tables and return into a code segment of ring 0 (writing cs has no effect in Unicorn)."""
        uc = self._uc
        uc.mem_write(_GDT, struct.pack(f"<{len(_DESCRIPTORS)}Q", *_DESCRIPTORS))
        self._write("gdtr", (0, _GDT, 8 * len(_DESCRIPTORS) - 1, 0))
        self._write("idtr", (0, _IDT, 0x7FF, 0))
        self._write("cr0", uc.reg_read(self._id("cr0")) | _MONITOR | _NUMERIC)
        uc.mem_write(START, bytes.fromhex("0f 00 d8  0f 00 d1  48 cf  90"))  # ltr ax, lldt cx, iretq, nop
        self._write("rax", _TSS)
        self._write("rcx", _LDT)
        uc.mem_write(START + 0x800, struct.pack("<5Q", START + 8, _CODE, 2, 0, _DATA))
        self._write("rsp", START + 0x800)
        uc.emu_start(START, START + 8)
        uc.mem_write(START, bytes(0x1000))
        for name in ("rax", "rcx"):
            self._write(name, 0)
        uc.ctl_flush_tb()

    def _add_hooks(self) -> None:
        uc, unicorn, x86 = self._uc, self._unicorn, self._x86
        uc.hook_add(unicorn.UC_HOOK_CODE, self._on_instruction)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._on_in, None, 1, 0, x86.UC_X86_INS_IN)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._on_out, None, 1, 0, x86.UC_X86_INS_OUT)

    def run(self, fuel: int) -> dict[str, Any]:
        end = START + len(self._code)
        try:
            self._uc.emu_start(START, end, count=fuel)
        except self._unicorn.UcError:
            self._faulted = True
        rip = self._uc.reg_read(self._id("rip"))
        names = (*NAMES, "cr0", "cr2", "cr3", "cr4")
        return {
            "end": "fault" if self._faulted else "hlt" if self._halted else "end of code" if rip == end else "fuel",
            "console": bytes(self._console),
            "registers": {name: int(self._uc.reg_read(self._id(name))) for name in names},
            "executed": list(self._executed),
            "memory": bytes(self._uc.mem_read(START + 0x8000, 64)),
        }

    def _on_instruction(self, uc: Any, address: int, size: int, _: Any) -> None:
        if 0 < size < 16:
            code = bytes(uc.mem_read(address, size))
            self._executed[code] = None
            self._halted = code == b"\xf4"

    def _on_exception(self, uc: Any, _number: int, _: Any) -> None:
        self._faulted = True
        uc.emu_stop()

    def _on_in(self, _uc: Any, port: int, size: int, _: Any) -> int:
        if port == KEYS:
            return self._keys.pop(0) if self._keys else 0
        return (1 << 8 * size) - 1

    def _on_out(self, _uc: Any, port: int, size: int, value: int, _: Any) -> None:
        if port == CONSOLE:
            self._console += (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
