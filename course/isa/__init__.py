r"""Instruction sets: assemble, disassemble, run under fuel, write and read ELF files, run foreign programs.

::

    code = isa.assemble("add r3, r3, r4\nblr", "ppc")
    isa.disassemble(code, "ppc")          # a listing
    isa.call(code, "ppc", 2, 3).value     # 5, in Unicorn, in a child process, under fuel
    isa.trace(code, "ppc", 2, 3)          # every step, with what changed
    isa.run(isa.hello("ppc", "hello\n"))  # a whole program, by qemu-ppc

All of them take the names of `course.isa.table`: x86, x86_64, ppc, ppc64, ppc64le, arm, aarch64, riscv32, riscv64,
s390x, m68k, mips. Names are loaded on first use, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assembler import assemble, with_keystone
    from .disassembler import Instruction, Listing, disassemble
    from .elf import facts, write_elf
    from .error import AssemblyError, NotElfError
    from .native import call_natively
    from .processor import End, Result, Step, Trace, call, trace
    from .programs import firmware, hello, record
    from .table import ISAS, Isa, lookup
    from .userland import Finished, emulator, run, run_natively

_HOMES = {
    "assemble": "assembler", "with_keystone": "assembler", "Instruction": "disassembler", "Listing": "disassembler",
    "disassemble": "disassembler", "facts": "elf", "write_elf": "elf", "AssemblyError": "error", "NotElfError": "error",
    "call_natively": "native", "End": "processor", "Result": "processor", "Step": "processor", "Trace": "processor",
    "call": "processor", "trace": "processor", "firmware": "programs", "hello": "programs", "record": "programs",
    "ISAS": "table", "Isa": "table", "lookup": "table", "Finished": "userland", "emulator": "userland",
    "run": "userland", "run_natively": "userland",
}  # fmt: skip
__all__ = [
    "ISAS", "AssemblyError", "End", "Finished", "Instruction", "Isa", "Listing", "NotElfError", "Result", "Step",
    "Trace", "assemble", "call", "call_natively", "disassemble", "emulator", "facts", "firmware", "hello", "lookup",
    "record", "run", "run_natively", "trace", "with_keystone", "write_elf",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a name from its module when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
