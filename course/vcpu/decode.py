"""From a trap to an exit: look at the instruction, as every VMM does whose hardware tells it no more than a vector.

Port I/O is decoded by hand, from the opcode; the rest by capstone.

Source: Intel SDM vol. 2 (in, out, ins, outs) and vol. 3, section 5.9 (privileged instructions).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from . import exits, trap
from .memory import DEVICE, PAGE, Memory
from .registers import PARTS, Registers

PRIVILEGED = frozenset((
    "cli", "sti", "lgdt", "lidt", "lldt", "ltr", "lmsw", "clts", "invd", "wbinvd", "invlpg", "invpcid", "rdmsr",
    "wrmsr", "rdpmc", "swapgs", "sysretq", "sysret", "sysexit", "iretq", "iretd", "iret", "xsetbv", "monitor", "mwait",
))  # fmt: skip
_PREFIXES = frozenset(bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3")) | set(range(0x40, 0x50))
_IO_OPCODES = frozenset([*range(0xE4, 0xE8), *range(0xEC, 0xF0), *range(0x6C, 0x70)])
_LOADS = {"mov": False, "movzx": False, "movsx": True, "movsxd": True, "movabs": False}
_PUSHES = ("push", "call", "enter")
CHUNK = 4096
"""Bytes of a repeated ins or outs that one exit offers at most."""


@functools.cache
def _capstone() -> Any:
    import capstone  # noqa: PLC0415 - loads a shared library

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


@functools.lru_cache(maxsize=4096)
def _decoded(code: bytes, rip: int) -> Any:
    return next(iter(_capstone().disasm(code, rip, 1)), None)


@dataclasses.dataclass(frozen=True)
class _Operand:
    address: int
    size: int
    write: bool


def to_exit(found: trap.Trap, registers: Registers, memory: Memory) -> exits.Exit:
    """Return the exit that a trap means; `registers` may get what syscall itself changes."""
    rip = registers.rip
    if found.vector == trap.GONE:
        return exits.Shutdown(rip, why=found.why)
    window = memory.fetch(rip)
    instruction = _decoded(window, rip) if window else None
    code = bytes(instruction.bytes) if instruction else window[:1]
    text = f"{instruction.mnemonic} {instruction.op_str}".strip() if instruction else ""
    at = (rip, code, text)
    if found.vector == trap.PAGE_FAULT:
        return _page_fault(at, found.address, instruction, registers, memory)
    if text in ("syscall", "int 0x80"):
        return _hypercall(at, registers)
    if found.vector == trap.PROTECTION and instruction is not None and instruction.mnemonic != "int":
        return _protection(at, instruction, registers, memory)
    return _plain(at, found.vector)


def _plain(at: tuple[int, bytes, str], vector: int) -> exits.Exit:
    """Exits that need no more than the vector and the instruction's name."""
    if vector == trap.INT3:
        return exits.Breakpoint(*at)
    if at[2].startswith("int "):
        return exits.Fault(*at, vector=trap.PROTECTION)  # no gate that a guest in ring 3 may use
    if vector == trap.UNDEFINED:
        return exits.Undefined(*at)
    if vector == trap.SYSCALL:
        return exits.Shutdown(*at, why="the guest left by a way that this virtual machine does not have (sysenter?)")
    return exits.Fault(*at, vector=vector)


def _hypercall(at: tuple[int, bytes, str], registers: Registers) -> exits.Exit:
    if at[2] == "syscall":
        registers.rcx, registers.r11 = at[0] + len(at[1]), registers.rflags
    return exits.Hypercall(*at, number=registers.rax)


def _protection(at: tuple[int, bytes, str], instruction: Any, registers: Registers, memory: Memory) -> exits.Exit:
    mnemonic, operands = instruction.mnemonic, instruction.op_str
    if mnemonic == "hlt":
        return exits.Hlt(*at)
    if (opcode := _opcode(at[1])) in _IO_OPCODES:
        return _io(at, opcode, registers, memory)
    control = mnemonic == "mov" and any(word[:2] in ("cr", "dr") for word in operands.split(", "))
    if control or mnemonic in PRIVILEGED:
        return exits.Privileged(*at, mnemonic=mnemonic, operands=operands)
    return exits.Fault(*at, vector=trap.PROTECTION)


def _opcode(code: bytes) -> int:
    return next((byte for byte in code if byte not in _PREFIXES), 0)


def _io(at: tuple[int, bytes, str], opcode: int, registers: Registers, memory: Memory) -> exits.Exit:
    """Decode port I/O: bit 0 of the opcode is the width, bit 1 the direction, bit 3 the port's place."""
    code = at[1]
    size = 1 if not opcode & 1 else 2 if 0x66 in code[: code.index(opcode)] else 4
    string = opcode < 0x70
    port = code[-1] if not string and opcode < 0xE8 else registers.dx
    out = bool(opcode & 2)
    if not string:
        data = registers.rax.to_bytes(8, "little")[:size] if out else b""
        return exits.Io(*at, port=port, size=size, direction="out" if out else "in", data=data)
    repeated = bool({0xF2, 0xF3} & set(code[: code.index(opcode)]))
    pointer = registers.rsi if out else registers.rdi
    step = -size if registers.rflags & 0x400 else size
    wanted = min(registers.rcx, CHUNK // size) if repeated else 1
    count = 0
    while count < wanted and _all(memory, pointer + count * step, size, "r" if out else "w"):
        count += 1
    if not count and wanted:
        return exits.PageFault(*at, address=pointer, access="read" if out else "write", present=False)
    data = b"".join(memory.read(pointer + n * step, size) for n in range(count)) if out else b""
    return exits.Io(*at, port=port, size=size, direction="out" if out else "in", count=count, data=data, string=True)


def _all(memory: Memory, address: int, size: int, letter: str) -> bool:
    return all(_allows(memory, at, letter) for at in (address, address + size - 1))


def _allows(memory: Memory, address: int, letter: str) -> bool:
    allowed = memory.permissions(address)
    return allowed != DEVICE and letter in allowed


def _page_fault(
    at: tuple[int, bytes, str], address: int, instruction: Any, registers: Registers, memory: Memory
) -> exits.Exit:
    rip = at[0]
    if rip <= address < rip + 15 and not _allows(memory, address, "x"):
        return exits.PageFault(*at, address=address, access="execute", present=memory.permissions(address) != "")
    operand = _operand_at(address, instruction, registers) if instruction is not None else None
    if instruction is not None and any(
        1 << 47 <= o.address < (1 << 64) - (1 << 47) for o in _operands(instruction, registers)
    ):
        return exits.Fault(*at, vector=trap.PROTECTION)  # not canonical; some emulators shorten such addresses
    if memory.permissions(address) == DEVICE:
        return _mmio(at, operand, instruction, registers)
    if operand is None:  # the stack, without being named
        write = instruction is not None and instruction.mnemonic.startswith(_PUSHES)
    else:
        write = operand.write
        first = operand.address
        while first < operand.address + operand.size and _allows(memory, first, "w" if write else "r"):
            first += PAGE - first % PAGE  # an access may begin on a good page and end on a bad one
        address = first if first < operand.address + operand.size else address
    access = "write" if write else "read"
    return exits.PageFault(*at, address=address, access=access, present=memory.permissions(address) not in ("", DEVICE))


def _operand_at(address: int, instruction: Any, registers: Registers) -> _Operand | None:
    """Return the memory operand that covers an address (or its page: engines may name either)."""
    operands = list(_operands(instruction, registers))
    for operand in operands:
        if operand.address <= address < operand.address + operand.size:
            return operand
    return next((o for o in operands if o.address // PAGE <= address // PAGE <= (o.address + o.size) // PAGE), None)


def _operands(instruction: Any, registers: Registers) -> Iterator[_Operand]:
    from capstone import x86  # noqa: PLC0415

    for operand in instruction.operands:
        if operand.type == x86.X86_OP_MEM:
            memory = operand.mem
            base = _value(instruction, memory.base, registers)
            index = _value(instruction, memory.index, registers)
            address = (base + index * memory.scale + memory.disp) & (1 << 64) - 1
            yield _Operand(address, operand.size, bool(operand.access & 2))


def _value(instruction: Any, register: int, registers: Registers) -> int:
    name = instruction.reg_name(register) if register else None
    if name == "rip":
        return registers.rip + len(instruction.bytes)
    return registers[name] if name in PARTS else 0


def _mmio(at: tuple[int, bytes, str], operand: _Operand | None, instruction: Any, registers: Registers) -> exits.Exit:
    mnemonic = instruction.mnemonic if instruction is not None else "?"
    register = _other_operand(instruction, registers) if operand is not None and mnemonic in _LOADS else None
    if operand is None or register is None:
        return exits.Shutdown(*at, why=f"this virtual machine cannot emulate {at[2]!r} on a device's page; use mov")
    name, value = register
    where = {"address": operand.address, "size": operand.size}
    if operand.write:
        stored = value & ((1 << 8 * operand.size) - 1)
        return exits.Mmio(*at, address=where["address"], size=where["size"], direction="write", value=stored)
    signed = _LOADS[mnemonic]
    return exits.Mmio(*at, address=where["address"], size=where["size"], direction="read", register=name, signed=signed)


def _other_operand(instruction: Any, registers: Registers) -> tuple[str, int] | None:
    """Name and value of the register or immediate beside the memory operand; None when it is neither."""
    from capstone import x86  # noqa: PLC0415

    for operand in instruction.operands:
        if operand.type == x86.X86_OP_IMM:
            return "", operand.imm
        if operand.type == x86.X86_OP_REG and (name := instruction.reg_name(operand.reg)) in PARTS:
            return name, registers[name]
    return None
