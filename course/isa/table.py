"""What has to be known of each instruction set: names, sizes, byte order, registers, the calling convention.

One row per ISA, all plain data. Nothing here needs Unicorn or capstone; their constants are looked up by name when they
are used.

Source: the processor supplements of the System V ABI (i386, x86-64, PowerPC 32, AArch64 AAPCS64, RISC-V psABI), the
Linux kernel's system call tables, and ``elf.h`` for machine numbers.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

from ..error import UsageError


@dataclasses.dataclass(frozen=True)
class Isa:
    """One instruction set with one byte order.

    Attributes:
        name: the course's name, such as ``"ppc"``; ``qemu-<suffix>`` is QEMU's.
        title: the name that people use.
        bits: size of an address and of a general register, in bits.
        endian: ``"little"`` or ``"big"``: where the first byte of a number lies.
        machine: ``e_machine`` in an ELF header.
        suffix: what QEMU calls it, as in ``qemu-i386``.
        capstone: names of the capstone architecture and mode constants.
        unicorn: names of the Unicorn architecture and mode constants; empty when Unicorn cannot run it here.
        registers: general registers in display order, then the program counter.
        arguments: registers of the first integer arguments; empty where they travel on the stack.
        result: the register of an integer result.
        preserved: registers that a function has to give back unchanged (the stack pointer apart).
        link: the register that holds the return address; None where it lies on the stack.
        stack: the stack pointer.
        counter: the program counter.
        write_call: number of the Linux system call `write`.
        exit_call: number of the Linux system call `exit`.
        elf_flags: ``e_flags`` of an ELF header.
    """

    name: str
    title: str
    bits: int
    endian: str
    machine: int
    suffix: str
    capstone: tuple[str, ...]
    write_call: int
    exit_call: int
    unicorn: tuple[str, ...] = ()
    registers: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    result: str = ""
    preserved: tuple[str, ...] = ()
    link: str | None = None
    stack: str = ""
    counter: str = "pc"
    elf_flags: int = 0

    @property
    def word_bytes(self) -> int:
        """Size of an address in bytes."""
        return self.bits // 8

    @property
    def runs_in_process(self) -> bool:
        """True when Unicorn can run its code (see `course.isa.call`)."""
        return bool(self.unicorn)


def _numbered(prefix: str, numbers: range) -> tuple[str, ...]:
    return tuple(f"{prefix}{n}" for n in numbers)


_PPC: dict[str, Any] = {
    "registers": (*_numbered("r", range(32)), "lr", "ctr", "cr0", "pc"),
    "arguments": _numbered("r", range(3, 11)),
    "result": "r3",
    "preserved": _numbered("r", range(14, 32)),
    "link": "lr",
    "stack": "r1",
}
_RISCV_NAMES = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *_numbered("a", range(8)), *_numbered("s", range(2, 12)), *_numbered("t", range(3, 7)),
)  # fmt: skip
_RISCV: dict[str, Any] = {
    "registers": (*_RISCV_NAMES, "pc"),
    "arguments": _numbered("a", range(8)),
    "result": "a0",
    "preserved": _numbered("s", range(12)),
    "link": "ra",
    "stack": "sp",
}
_X86_32 = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp")
_X86_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *_numbered("r", range(8, 16)))

_ROWS = (
    Isa(
        "x86", "x86 (i386)", 32, "little", 3, "i386", ("CS_ARCH_X86", "CS_MODE_32"), 4, 1,
        unicorn=("UC_ARCH_X86", "UC_MODE_32"), registers=(*_X86_32, "eip"), result="eax",
        preserved=("ebx", "esi", "edi", "ebp"), stack="esp", counter="eip",
    ),
    Isa(
        "x86_64", "x86-64", 64, "little", 62, "x86_64", ("CS_ARCH_X86", "CS_MODE_64"), 1, 60,
        unicorn=("UC_ARCH_X86", "UC_MODE_64"), registers=(*_X86_64, "rip"),
        arguments=("rdi", "rsi", "rdx", "rcx", "r8", "r9"), result="rax",
        preserved=("rbx", "rbp", "r12", "r13", "r14", "r15"), stack="rsp", counter="rip",
    ),
    Isa(
        "ppc", "PowerPC 32", 32, "big", 20, "ppc", ("CS_ARCH_PPC", "CS_MODE_32", "CS_MODE_BIG_ENDIAN"), 4, 1,
        unicorn=("UC_ARCH_PPC", "UC_MODE_PPC32", "UC_MODE_BIG_ENDIAN"), **_PPC,
    ),
    Isa(
        "ppc64", "PowerPC 64, big endian", 64, "big", 21, "ppc64",
        ("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_BIG_ENDIAN"), 4, 1,
        unicorn=("UC_ARCH_PPC", "UC_MODE_PPC64", "UC_MODE_BIG_ENDIAN"), elf_flags=2, **_PPC,
    ),
    Isa(
        "ppc64le", "PowerPC 64, little endian", 64, "little", 21, "ppc64le",
        ("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_LITTLE_ENDIAN"), 4, 1, elf_flags=2, **_PPC,
    ),
    Isa(
        "arm", "Arm 32", 32, "little", 40, "arm", ("CS_ARCH_ARM", "CS_MODE_ARM"), 4, 1,
        arguments=_numbered("r", range(4)), result="r0", elf_flags=0x05000000,
    ),
    Isa(
        "aarch64", "Arm 64", 64, "little", 183, "aarch64", ("CS_ARCH_ARM64", "CS_MODE_ARM"), 64, 93,
        unicorn=("UC_ARCH_ARM64", "UC_MODE_ARM"), registers=(*_numbered("x", range(31)), "sp", "pc"),
        arguments=_numbered("x", range(8)), result="x0", preserved=_numbered("x", range(19, 30)), link="x30",
        stack="sp",
    ),
    Isa(
        "riscv32", "RISC-V 32", 32, "little", 243, "riscv32", ("CS_ARCH_RISCV", "CS_MODE_RISCV32", "CS_MODE_RISCVC"),
        64, 93, unicorn=("UC_ARCH_RISCV", "UC_MODE_RISCV32"), **_RISCV,
    ),
    Isa(
        "riscv64", "RISC-V 64", 64, "little", 243, "riscv64", ("CS_ARCH_RISCV", "CS_MODE_RISCV64", "CS_MODE_RISCVC"),
        64, 93, unicorn=("UC_ARCH_RISCV", "UC_MODE_RISCV64"), **_RISCV,
    ),
    Isa("s390x", "IBM Z", 64, "big", 22, "s390x", ("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN"), 4, 1),
    Isa("m68k", "Motorola 68000", 32, "big", 4, "m68k", ("CS_ARCH_M68K", "CS_MODE_BIG_ENDIAN", "CS_MODE_M68K_040"), 4,
        1),
    Isa(
        "mips", "MIPS", 32, "big", 8, "mips", ("CS_ARCH_MIPS", "CS_MODE_MIPS32", "CS_MODE_BIG_ENDIAN"), 4004, 4001,
        elf_flags=0x50001000,
    ),
)  # fmt: skip

ISAS = MappingProxyType({row.name: row for row in _ROWS})
_OTHER_NAMES = {
    "i386": "x86",
    "i686": "x86",
    "amd64": "x86_64",
    "x86-64": "x86_64",
    "powerpc": "ppc",
    "arm64": "aarch64",
}


def lookup(name: str | Isa) -> Isa:
    """Return the row of `name`.

    Args:
        name: such as ``"ppc"``; common other names (``"amd64"``, ``"arm64"``, ``"i386"``) are understood.

    Raises:
        UsageError: when no such ISA is known here; names those that are.
    """
    if isinstance(name, Isa):
        return name
    key = str(name).lower()
    key = _OTHER_NAMES.get(key, key)
    if key not in ISAS:
        raise UsageError(f"unknown instruction set {name!r}; known ones: {', '.join(ISAS)}")
    return ISAS[key]
