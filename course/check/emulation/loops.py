"""Small x86-64 programs, and how QEMU must cut them into blocks: told by an instruction trace of Unicorn."""

from __future__ import annotations

import dataclasses
import importlib
import random
from typing import Any

from ...isa import tcg
from ...isa.emulation import load_unicorn

_CODE, _BYTES = 0x400000, 0x1000
_EXIT = 60


@dataclasses.dataclass(frozen=True)
class Counts:
    """Blocks of a program.

    Attributes:
        translated: number of blocks that are translated.
        executed: number of times that one is executed.
        instructions: number of different instructions executed: the blocks when each is one of its own.
        executed_instructions: number of instructions executed.
        listed: number of instructions in all translated blocks together.
    """

    translated: int
    executed: int
    instructions: int
    executed_instructions: int
    listed: int


def nested(rng: random.Random, status: int = 0) -> bytes:
    """A loop within a loop."""
    return tcg.program(
        f"""mov ecx, {rng.randrange(3, 9)}
        outer: mov edx, {rng.randrange(3, 12)}
        inner: add eax, edx
            dec edx
            jne inner
            dec ecx
            jne outer
            mov edi, {status}
            mov eax, 60
            syscall"""
    )


def two_exits(rng: random.Random, status: int = 0) -> bytes:
    """A loop that is left from its middle or from its end."""
    return tcg.program(
        f"""mov ecx, {rng.randrange(20, 60)}
            mov eax, 0
        again: add eax, ecx
            cmp eax, {rng.randrange(200, 1500)}
            ja large
            dec ecx
            jne again
            mov edi, {status}
            jmp end
        large: mov edi, {status}
            add eax, eax
        end: mov eax, 60
            syscall"""
    )


def asking(rng: random.Random, status: int = 0) -> bytes:
    """A loop with a system call in it, which ends a block as well."""
    return tcg.program(
        f"""mov ebx, {rng.randrange(5, 30)}
        again: mov eax, 110
            syscall
            dec ebx
            jne again
            mov edi, {status}
            mov eax, 60
            syscall"""
    )


def count(program: bytes) -> Counts:
    """Trace a program by Unicorn and cut it at branches, jumps and system calls."""
    unicorn = load_unicorn()
    x86: Any = importlib.import_module("unicorn.x86_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(_CODE, _BYTES)
    uc.mem_write(_CODE, program)
    seen: list[tuple[int, bytes]] = []
    uc.hook_add(unicorn.UC_HOOK_CODE, lambda u, at, size, _: seen.append((at, bytes(u.mem_read(at, size)))))

    def on_call(u: Any, _: Any) -> None:
        if u.reg_read(x86.UC_X86_REG_RAX) == _EXIT:
            u.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_INSN, on_call, None, 1, 0, x86.UC_X86_INS_SYSCALL)
    uc.emu_start(int.from_bytes(program[24:32], "little"), 0, timeout=5_000_000)
    blocks: list[list[int]] = []
    begins = True
    for address, code in seen:
        if begins:
            blocks.append([])
        blocks[-1].append(address)
        begins = _ends(code)
    lengths = {block[0]: len(block) for block in blocks}
    different = {address for address, _ in seen}
    return Counts(len(lengths), len(blocks), len(different), len(seen), sum(lengths.values()))


def _ends(code: bytes) -> bool:
    """Is this a branch, a jump or a system call?"""
    return (
        0x70 <= code[0] <= 0x7F
        or code[0] in (0xE9, 0xEB)
        or code[:2] == b"\x0f\x05"
        or (code[0] == 0x0F and 0x80 <= code[1] <= 0x8F)
    )
