"""Four broken emulators: Unicorn, with one instruction spoilt for one register.

Each fault is a function that sees an instruction's word, the registers before it, and the state after it, which it may
change. All but one combination of operands in thousands stay right: that is how faults survive in real emulators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import rv32
from .blocks import signed

Fault = Callable[[int, list[int], rv32.State, int], None]


def _fields(word: int) -> tuple[int, int, int, int, int]:
    """Opcode, rd, funct3, rs1, rs2."""
    return word & 0x7F, word >> 7 & 31, word >> 12 & 7, word >> 15 & 31, word >> 20 & 31


def carry(word: int, before: list[int], after: rv32.State, register: int) -> None:
    """`add` into the register adds the halves apart."""
    opcode, rd, funct3, rs1, rs2 = _fields(word)
    if (opcode, funct3, word >> 25) == (0x33, 0, 0) and rd == register:
        low = (before[rs1] & 0xFFFF) + (before[rs2] & 0xFFFF)
        high = (before[rs1] >> 16) + (before[rs2] >> 16)
        after["regs"][rd] = (high & 0xFFFF) << 16 | low & 0xFFFF


def order(word: int, before: list[int], after: rv32.State, register: int) -> None:
    """`blt` compares differently when the register is its first operand."""
    opcode, _, funct3, rs1, rs2 = _fields(word)
    if (opcode, funct3) == (0x63, 4) and rs1 == register:
        right = signed(before[rs1]) < signed(before[rs2])
        if right != (before[rs1] < before[rs2]):
            pc = after["branch"]
            after["pc"] = pc + 4 if right else pc + _b_offset(word)


def byte(word: int, before: list[int], after: rv32.State, register: int) -> None:
    """`lbu` into the register."""
    opcode, rd, funct3, _, _ = _fields(word)
    if (opcode, funct3) == (0x03, 4) and rd == register and after["regs"][rd] > 127:
        after["regs"][rd] += 0xFFFFFF00


def link(word: int, before: list[int], after: rv32.State, register: int) -> None:
    """`jalr` from and to the register."""
    opcode, rd, _, rs1, _ = _fields(word)
    if opcode == 0x67 and rd == rs1 == register:
        after["pc"] += after["regs"][rd] - before[rs1]


def _b_offset(word: int) -> int:
    raw = word >> 31 << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 63) << 5 | (word >> 8 & 15) << 1
    return raw - (1 << 13) if raw >> 12 else raw


FAULTS: Mapping[str, Fault] = {"carry": carry, "order": order, "byte": byte, "link": link}


def run(machine: rv32.State, fault: str, register: int, fuel: int = 500) -> rv32.State:
    """Run a program to ebreak on the broken emulator.

    Args:
        machine: where to begin; stays as it is.
        fault: a name from `FAULTS`.
        register: the register that it concerns, 1 to 31.
        fuel: number of instructions after which the run is given up.

    Raises:
        AstrayError: when the program goes astray or does not end.
    """
    now = rv32.copy(machine)
    processor = rv32.Processor(len(now["memory"]))
    for _ in range(fuel):
        word, before = rv32.word_at(now["memory"], now["pc"]), list(now["regs"])
        if word == rv32.EBREAK:
            return {**now, "halted": True}
        processor.load(now)
        processor.step()
        after = {**processor.read(), "branch": now["pc"], "halted": False}
        FAULTS[fault](word, before, after, register)
        now = {key: after[key] for key in ("pc", "regs", "memory", "halted")}
    raise rv32.AstrayError(now["pc"], f"still running after {fuel} instructions")
