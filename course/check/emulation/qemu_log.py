"""Logs in the form of QEMU's ``-d in_asm,op,out_asm``, with contents that are known."""

from __future__ import annotations

import dataclasses
import random

_GUEST = ["movl     $5, %ecx", "addl     %ecx, %eax", "decl     %ecx", "cmpl     $7, %eax", "xorl     %edx, %edx"]
_OPS = ["mov_i64 tmp0,rcx", "add_i64 tmp0,tmp0,tmp1", "ext32u_i64 rax,tmp0", "discard cc_src2", "mov_i64 cc_dst,tmp0"]
_ENDS = ["goto_tb $0x0", "set_label $L0", "exit_tb $0x7f0012000043"]
_HOST = ["movl     -8(%rbp), %ebx", "addq     %r13, %r12", "movl     %r12d, %r12d", "testl    %ebx, %ebx"]


@dataclasses.dataclass(frozen=True)
class Written:
    """A log and what is in it.

    Attributes:
        text: the log.
        blocks: number of blocks.
        guest: number of guest instructions.
        ops: number of TCG operations before optimization.
        host: number of host instructions of blocks.
        prologue: number of instructions of the prologue.
        data: number of constants behind the code.
        optimized: number of operations in sections that show them again after optimization.
        guest_optimized: number of markers in these sections.
    """

    text: str
    blocks: int
    guest: int
    ops: int
    host: int
    prologue: int
    data: int
    optimized: int = 0
    guest_optimized: int = 0


def write(
    rng: random.Random, blocks: int, *, prologue: bool = True, data: bool = True, optimized: bool = False
) -> Written:
    """Write a log of some blocks, with the prologue, constants and optimized operations when asked for."""
    lines: list[str] = []
    count = dict.fromkeys(("guest", "ops", "host", "prologue", "data", "optimized", "guest_optimized"), 0)
    where = 0x7F0012000000
    if prologue:
        count["prologue"] = rng.randrange(9, 20)
        lines += ["PROLOGUE: [size=45]", *(_code(rng, where + 4 * n, _HOST) for n in range(count["prologue"])), ""]
    for block in range(blocks):
        pc, instructions = 0x400078 + 64 * block, rng.randrange(2, 9)
        lines += ["-" * 16, "IN: ", *(_code(rng, pc + 5 * n, _GUEST, "08x") for n in range(instructions)), "", "OP:"]
        ops, body = _operations(rng, pc, instructions)
        lines += body
        if optimized:
            again, body = _operations(rng, pc, instructions)
            count["optimized"] += again
            count["guest_optimized"] += instructions
            lines += ["OP after optimization and liveness analysis:", *body]
        host = rng.randrange(3 * instructions, 6 * instructions)
        constants = rng.randrange(1, 4) if data else 0
        lines += [f"OUT: [size={4 * host + 8 * constants}]", f"  -- guest addr 0x{pc:016x} + tb prologue"]
        lines += [_code(rng, where + 0x100 + 4 * n, _HOST) for n in range(host)]
        lines.insert(len(lines) - host // 2, "  -- tb slow paths + alignment")
        if constants:
            lines.append(f"  data: [size={8 * constants}]")
            lines += [f"0x{where + 0x200 + 8 * n:x}:  .quad  0x{rng.getrandbits(46):016x}" for n in range(constants)]
        lines.append("")
        for key, number in (("guest", instructions), ("ops", ops), ("host", host), ("data", constants)):
            count[key] += number
    return Written("\n".join(lines) + "\n", blocks, **count)


def _operations(rng: random.Random, pc: int, instructions: int) -> tuple[int, list[str]]:
    """The operations of one block, as many as are told."""
    lines = [" ld_i32 tmp9,env,$0xfffffffffffffff8", " brcond_i32 tmp9,$0x0,lt,$L0", ""]
    total = 2
    for n in range(instructions):
        some = rng.choices(_OPS, k=rng.randrange(1, 6))
        total += len(some)
        lines += [f" ---- {pc + 5 * n:016x} 0000000000000000", *(f" {op}" for op in some), ""]
    lines[-1:-1] = [f" {op}" for op in _ENDS]
    return total + len(_ENDS), lines


def _code(rng: random.Random, address: int, texts: list[str], form: str = "x") -> str:
    """A line of code as QEMU's disassembler writes it."""
    code = " ".join(f"{rng.randrange(256):02x}" for _ in range(rng.randrange(2, 6)))
    return f"0x{address:{form}}:  {code:24} {rng.choice(texts)}"
