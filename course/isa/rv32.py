"""A small 32-bit RISC-V machine as plain data, and Unicorn as the judge of what each instruction does.

A machine's **state** is a dict that a student's interpreter can be written for in an evening::

    {"pc": 0,                      address of the next instruction
     "regs": [0, 0, ... 32 of them],   unsigned numbers below 2**32; regs[0] is always 0
     "memory": bytearray(...),     address 0 is its first byte; code and data alike
     "halted": False}              True once ebreak was met; pc then stays at it

The machine knows the instructions of `MNEMONICS`. `step`, `run` and `trace` say what happens to a state according to
Unicorn (QEMU's translator), which nobody of this course wrote: the oracle of checks, at a student's disposal too.

Source: The RISC-V Instruction Set Manual, volume I, chapters 2 (RV32I) and 5 (Zifencei).
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..error import CourseError, UsageError
from .assembler import assemble
from .disassembler import disassemble
from .emulation import load_unicorn
from .table import lookup

MNEMONICS = ("add", "sub", "addi", "andi", "lui", "lw", "lbu", "sw", "beq", "bne", "blt", "jal", "jalr", "fence.i",
             "ebreak")  # fmt: skip
PAGE_BYTES = 4096
MEMORY_BYTES = 2 * PAGE_BYTES
EBREAK, FENCE_I = 0x00100073, 0x0000100F
MASK = 0xFFFFFFFF
State = dict[str, Any]
_NUMBERS = {name: f"x{number}" for number, name in enumerate(lookup("riscv32").registers[:32])} | {"fp": "x8"}
_ABI_NAME = re.compile(rf"\b({'|'.join(_NUMBERS)})\b")
# opcode and funct3 of what ends a block: branches, jal, jalr, fence.i, and ebreak by its word
_BRANCH, _JAL, _JALR, _FENCE = 0x63, 0x6F, 0x67, 0x0F


class AstrayError(CourseError):
    """A program did what this machine cannot do: left its memory, or met a word that is no instruction.

    Attributes:
        pc: where it was.
    """

    def __init__(self, pc: int, why: str) -> None:
        super().__init__(f"at {pc:#x}: {why}")
        self.pc = pc


def state(
    program: str | bytes, *, at: int = 0, memory_bytes: int = MEMORY_BYTES, regs: Mapping[int, int] | None = None
) -> State:
    """Return a machine about to run a program.

    Args:
        program: assembly text or machine code.
        at: where it is put, and where it begins.
        memory_bytes: size of the memory, which begins at address 0.
        regs: number of a register → its value; the others are 0.

    Raises:
        UsageError: when the program does not fit, or `regs` names register 0 or one that does not exist.
        AssemblyError: naming the line that cannot be encoded.
    """
    code = assemble(program, "riscv32", at) if isinstance(program, str) else bytes(program)
    if not 0 <= at <= at + len(code) <= memory_bytes:
        raise UsageError(f"{len(code)} bytes at {at:#x} do not fit into a memory of {memory_bytes} bytes")
    memory = bytearray(memory_bytes)
    memory[at : at + len(code)] = code
    registers = [0] * 32
    for number, value in (regs or {}).items():
        if not 1 <= number <= 31:
            raise UsageError(f"register {number} cannot be set; there are 1 to 31, and register 0 is always 0")
        registers[number] = value & MASK
    return {"pc": at, "regs": registers, "memory": memory, "halted": False}


def copy(machine: State) -> State:
    """Return an independent copy of a state."""
    return {**machine, "regs": list(machine["regs"]), "memory": bytearray(machine["memory"])}


def word_at(memory: bytes | bytearray, address: int) -> int:
    """Return the instruction word at an address; -1 where the memory has ended."""
    return int.from_bytes(memory[address : address + 4], "little") if 0 <= address <= len(memory) - 4 else -1


def text(word: int, pc: int = 0) -> str:
    """Return an instruction as capstone writes it, with registers by number; distances count from the instruction."""
    found = disassemble(word.to_bytes(4, "little"), "riscv32", pc)
    if not found or len(found[0].code) != 4 or found[0].mnemonic == ".byte":
        return f"no instruction ({word:#010x})"
    mnemonic, _, operands = found[0].text.partition(" ")
    return f"{mnemonic} {_ABI_NAME.sub(lambda name: _NUMBERS[name[0]], operands)}".rstrip()


def ends_block(word: int) -> bool:
    """Say whether control may go elsewhere after this instruction: a branch, a jump, fence.i, ebreak."""
    return word == EBREAK or word & 0x7F in (_BRANCH, _JAL, _JALR, _FENCE)


class Processor:
    """Unicorn, holding one state.

    Args:
        memory_bytes: size of the memory; Unicorn's pages round it up to a multiple of 4096.
        device: called as ``device(address, None)`` for a load from and ``device(address, value)`` for a store to the
            words from `device_at` on; returns what a load gets.
        device_at: where these words begin, a multiple of 4096 outside the memory; None for no device.
    """

    def __init__(
        self,
        memory_bytes: int = MEMORY_BYTES,
        *,
        device: Callable[[int, int | None], int] | None = None,
        device_at: int | None = None,
    ) -> None:
        self._unicorn = unicorn = load_unicorn()
        const = importlib.import_module("unicorn.riscv_const")
        self._ids = [getattr(const, f"UC_RISCV_REG_X{n}") for n in range(32)]
        self._pc = const.UC_RISCV_REG_PC
        self._bytes = memory_bytes
        self.uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        self.uc.mem_map(0, -(-memory_bytes // PAGE_BYTES) * PAGE_BYTES)
        if device is not None and device_at is not None:
            ask = device
            self.uc.mmio_map(
                device_at, PAGE_BYTES,
                lambda uc, offset, size, _: ask(device_at + offset, None), None,
                lambda uc, offset, size, value, _: ask(device_at + offset, value), None,
            )  # fmt: skip

    def load(self, machine: State) -> None:
        """Take over a state."""
        self.uc.mem_write(0, bytes(machine["memory"]))
        for ident, value in zip(self._ids[1:], machine["regs"][1:], strict=True):
            self.uc.reg_write(ident, value)
        self.uc.reg_write(self._pc, machine["pc"])
        self.uc.ctl_flush_tb()  # what was translated from the former memory

    def read(self) -> State:
        """Return the state."""
        pc = self.pc
        memory = self.uc.mem_read(0, self._bytes)
        regs = [0, *(self.uc.reg_read(ident) for ident in self._ids[1:])]
        return {"pc": pc, "regs": regs, "memory": memory, "halted": word_at(memory, pc) == EBREAK}

    @property
    def pc(self) -> int:
        """Address of the next instruction."""
        return int(self.uc.reg_read(self._pc))

    def next_word(self) -> int:
        """The instruction that comes next; -1 outside the memory."""
        pc = self.pc
        return word_at(self.uc.mem_read(pc, 4), 0) if pc <= self._bytes - 4 else -1

    def step(self) -> None:
        """Execute one instruction.

        Raises:
            AstrayError: the program left its memory or met no instruction.
        """
        pc, word = self.pc, self.next_word()
        try:
            self.uc.emu_start(pc, 1 << 31, count=1)
        except self._unicorn.UcError as error:
            raise AstrayError(pc, f"{text(word) if word >= 0 else 'no memory'}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Executed:
    """One executed instruction: where, and which word stood there."""

    pc: int
    word: int


def step(machine: State) -> State:
    """Return the state after one instruction, by Unicorn; a halted machine stays as it is.

    Raises:
        AstrayError: when the instruction is none, or leaves the memory.
    """
    processor = Processor(len(machine["memory"]))
    processor.load(machine)
    if processor.next_word() == EBREAK:
        return {**copy(machine), "halted": True}
    processor.step()
    after = processor.read()
    return {**after, "halted": False}


def run(machine: State, fuel: int = 100_000) -> State:
    """Return the state at ebreak, by Unicorn.

    Args:
        machine: where to begin; stays as it is.
        fuel: number of instructions after which the run is given up.

    Raises:
        AstrayError: when the program goes astray or is still running without fuel.
    """
    processor = Processor(len(machine["memory"]))
    processor.load(machine)
    for _ in _steps(processor, fuel):
        pass
    return processor.read()


def trace(machine: State, fuel: int = 100_000) -> tuple[list[Executed], State]:
    """Run to ebreak by Unicorn; return each executed instruction, ebreak included, and the last state.

    Raises:
        AstrayError: as for `run`.
    """
    processor = Processor(len(machine["memory"]))
    processor.load(machine)
    done = list(_steps(processor, fuel))
    return done, processor.read()


def _steps(processor: Processor, fuel: int) -> Iterator[Executed]:
    """Execute until ebreak, fuel at most."""
    for _ in range(fuel):
        here = Executed(processor.pc, processor.next_word())
        yield here
        if here.word == EBREAK:
            return
        processor.step()
    raise AstrayError(processor.pc, f"still running after {fuel} instructions")
