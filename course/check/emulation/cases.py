"""Single instructions on random machines, and what becomes of them: in an answer, and in Unicorn.

A case is a state with the instruction at its pc. All cases of a step of a check run in one child process: an answer is
a few lines, a fork is a thousand times as much.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...isa import rv32
from ..answer import Call, Outcome, call_each
from ..exercise import Trial

_EDGES = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFF800, 0x800)
DATA = 0x1400  # random bytes lie from here to the end of the memory
Seen = dict[str, Any]


def case(source: str, regs: Mapping[int, int] | None = None, *, at: int = 0x1000, seed: int = 0) -> rv32.State:
    """Return a machine whose next instruction is `source`, with random bytes in the upper part of its memory."""
    machine = rv32.state(source, at=at, regs=regs)
    size = len(machine["memory"]) - DATA
    machine["memory"][DATA:] = random.Random(seed).randbytes(size)
    return machine


def random_case(rng: random.Random, mnemonic: str) -> rv32.State:
    """Return a machine with random registers and one instruction with random operands."""
    regs = {n: rng.choice(_EDGES) if rng.random() < 0.4 else rng.getrandbits(32) for n in range(1, 32)}
    rd, rs1, rs2 = (rng.randrange(32) for _ in range(3))
    at = 4 * rng.randrange(0x380, 0x480)
    if mnemonic in ("beq", "bne", "blt") and rng.random() < 0.4:
        regs[rs2 or 1] = regs.get(rs1, 0)
    source = _source(rng, mnemonic, regs, (rd, rs1, rs2), at)
    return case(source, regs, at=at, seed=rng.getrandbits(30))


def _source(  # noqa: PLR0911 - one per kind of instruction
    rng: random.Random, mnemonic: str, regs: dict[int, int], numbers: tuple[int, int, int], at: int
) -> str:
    rd, rs1, rs2 = numbers
    immediate = rng.choice((-2048, -1, 0, 1, 2047, rng.randrange(-2048, 2048), rng.randrange(-2048, 2048)))
    if mnemonic in ("add", "sub"):
        return f"{mnemonic} x{rd}, x{rs1}, x{rs2}"
    if mnemonic in ("addi", "andi"):
        return f"{mnemonic} x{rd}, x{rs1}, {immediate}"
    if mnemonic == "lui":
        return f"lui x{rd}, {rng.getrandbits(20)}"
    if mnemonic in ("lw", "lbu", "sw"):
        rs1 = rs1 or 5
        regs[rs1] = (rng.randrange(DATA, rv32.MEMORY_BYTES - 4) - immediate) & rv32.MASK
        return f"{mnemonic} x{rs2 if mnemonic == 'sw' else rd}, {immediate}(x{rs1})"
    if mnemonic == "jalr":
        rs1 = rs1 or 5
        rd = rs1 if rng.random() < 0.3 else rd
        target = 4 * rng.randrange(0x40, 0x700) + rng.randrange(2)
        regs[rs1] = (target - immediate) & rv32.MASK
        return f"jalr x{rd}, {immediate}(x{rs1})"
    target = at + 4 * rng.randrange(-0x340, 0x340)
    if mnemonic == "jal":
        return f"jal x{rd}, {target}"
    return f"{mnemonic} x{rs1}, x{rs2}, {target}" if mnemonic in ("beq", "bne", "blt") else mnemonic


def word_of(machine: rv32.State) -> int:
    """The instruction that a machine is about to execute."""
    return rv32.word_at(machine["memory"], machine["pc"])


def told(machine: rv32.State) -> str:
    """The instruction and what it can see, for a message."""
    word = word_of(machine)
    used = sorted({0x37: set(), 0x6F: set(), 0x0F: set(), 0x73: set()}.get(word & 0x7F, _sources(word)))
    values = ", with " + ", ".join(f"x{n} = {machine['regs'][n]:#x}" for n in used) if used else ""
    return f"At pc {machine['pc']:#x} stands {rv32.text(word)} (word {word:#010x}){values}."


def _sources(word: int) -> set[int]:
    """The registers that an instruction with rs1, and perhaps rs2, reads."""
    return {word >> 15 & 31} if word & 0x7F in (0x13, 0x03, 0x67) else {word >> 15 & 31, word >> 20 & 31}


def truths(cases: Iterable[rv32.State]) -> list[Seen]:
    """What Unicorn makes of each case."""
    processors: dict[int, rv32.Processor] = {}
    seen = []
    for machine in cases:
        if word_of(machine) == rv32.EBREAK:
            seen.append(changes(machine, {**machine, "halted": True}))
            continue
        size = len(machine["memory"])
        if size not in processors:
            processors[size] = rv32.Processor(size)
        processor = processors[size]
        processor.load(machine)
        processor.step()
        seen.append(changes(machine, {**processor.read(), "halted": False}))
    return seen


def changes(before: rv32.State, after: rv32.State) -> Seen:
    """What an instruction did: pc, changed registers, changed bytes of memory, halted."""
    old, new = bytes(before["memory"]), _bytes(after["memory"])
    differing = [] if old == new else [i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]]
    return {
        "pc": after["pc"],
        "regs": {n: v for n, v in enumerate(after["regs"]) if v != before["regs"][n]},
        "memory": {i: new[i] for i in differing[:64]},
        "halted": bool(after.get("halted", False)),
    }


def _bytes(memory: Any) -> bytes:
    """A memory as bytes; a list may hold what is no byte."""
    return (
        bytes(value & 0xFF if isinstance(value, int) else 0 for value in memory)
        if isinstance(memory, list)
        else bytes(memory)
    )


def wire(machine: rv32.State) -> rv32.State:
    """The state as plain data, which may cross to another process."""
    return {**machine, "regs": list(machine["regs"]), "memory": bytes(machine["memory"])}


def observe(trial: Trial, cases: Sequence[rv32.State]) -> list[Seen]:
    """Call the answer on each case, all in one child, and tell what it did."""
    series = call_each(trial.answer, [(wire(machine),) for machine in cases])
    if series.end is not Outcome.RETURNED:
        trial.call(wire(cases[0]))  # not answered, died: its own message
        trial.wrong(
            "endless",
            f"{trial.exercise} did not come through {len(cases)} calls, one instruction each ({series.end.value}).",
            "One call executes one instruction. Where can yours loop, or end Python?",
        )
    return [_seen(machine, done) for machine, done in zip(cases, series.calls, strict=True)]


def _seen(machine: rv32.State, done: Call) -> Seen:
    if done.outcome is not Outcome.RETURNED:
        return {"raised": done.error, "detail": done.detail}
    wrong = _misshapen(done.value, machine)
    return {"shape": wrong} if wrong else changes(machine, done.value)


def _misshapen(after: Any, before: rv32.State) -> str:  # noqa: PLR0911 - one per mistake
    """Say what is wrong with the form of a state; empty when nothing is."""
    if after is None:
        return "None"
    if not isinstance(after, dict) or not {"pc", "regs", "memory"} <= set(after):
        return f"a {type(after).__name__} without pc, regs and memory"
    if not isinstance(after["regs"], list | tuple) or not isinstance(after["memory"], bytes | list):
        return f"regs of type {type(after['regs']).__name__} and memory of type {type(after['memory']).__name__}"
    if len(after["regs"]) != 32 or not all(type(value) is int for value in after["regs"]):
        return f"{len(after['regs'])} registers, not all of them integers"
    if type(after["pc"]) is not int:
        return f"a pc of type {type(after['pc']).__name__}"
    if len(after["memory"]) != len(before["memory"]):
        return f"a memory of {len(after['memory'])} bytes where there were {len(before['memory'])}"
    return ""


def far_jumps(rng: random.Random) -> list[rv32.State]:
    """`jal` over distances that need all of its 20 bits, in a memory of 2 MiB."""
    machines = []
    for sign in (1, -1):
        target = 0x100000 + sign * 4 * rng.randrange(0x8000, 0x3FFFF)
        machines.append(rv32.state(f"jal x1, {target}", at=0x100000, memory_bytes=0x200000))
    return machines
