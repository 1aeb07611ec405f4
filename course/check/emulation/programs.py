"""Programs for translators, and what Unicorn says that a translator's work on them must be."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence

from ...isa import rv32


@dataclasses.dataclass(frozen=True)
class Entry:
    """A block that was entered: its address, the words that stood there, and how often fence.i had come before."""

    pc: int
    words: tuple[int, ...]
    fences: int


@dataclasses.dataclass(frozen=True)
class Work:
    """What a program makes a translator do.

    Attributes:
        after: the state at ebreak.
        entries: the blocks in the order in which they are entered.
    """

    after: rv32.State
    entries: tuple[Entry, ...]

    @property
    def least(self) -> Counter[int]:
        """How often each address has to be translated at least: once for every content that was there."""
        return Counter(pc for pc, _ in {(entry.pc, entry.words) for entry in self.entries})

    @property
    def most(self) -> Counter[int]:
        """How often at most: when it is entered for the first time, or for the first time after a fence.i."""
        return Counter(pc for pc, _ in {(entry.pc, entry.fences) for entry in self.entries})


def work(machine: rv32.State) -> Work:
    """Run a program by Unicorn and cut its instructions into blocks."""
    done, after = rv32.trace(machine)
    return Work(after, tuple(_entries(done)))


def _entries(done: Sequence[rv32.Executed]) -> list[Entry]:
    entries: list[Entry] = []
    words: list[int] = []
    start, fences = done[0].pc, 0
    for at, here in enumerate(done):
        words.append(here.word)
        following = done[at + 1].pc if at + 1 < len(done) else None
        if following is None or rv32.ends_block(here.word) or following % rv32.PAGE_BYTES == 0:
            entries.append(Entry(start, tuple(words), fences))
            fences += here.word == rv32.FENCE_I
            start, words = following or 0, []
    return entries


def counting(rng: random.Random) -> rv32.State:
    """A loop that sums."""
    return rv32.state(
        f"""li t0, {rng.randrange(20, 60)}
            li a0, 0
        again: add a0, a0, t0
            addi t0, t0, -1
            bnez t0, again
            ebreak"""
    )


def nested(rng: random.Random) -> rv32.State:
    """A loop within a loop that keeps its results in memory."""
    return rv32.state(
        f"""li s0, {rng.randrange(4, 9)}
            li s1, 0x1800
        outer: li t0, {rng.randrange(5, 12)}
        inner: add a0, a0, t0
            sw a0, 0(s1)
            lbu a1, 1(s1)
            sub a2, a2, a1
            addi t0, t0, -1
            bne t0, zero, inner
            addi s1, s1, 4
            addi s0, s0, -1
            blt zero, s0, outer
            ebreak"""
    )


def calls(rng: random.Random) -> rv32.State:
    """A function that is called from three places, and a table of addresses to jump to."""
    order = [rng.randrange(3) for _ in range(9)]
    visits = "\n".join(f"lw t2, {4 * which}(s2)\njalr ra, 0(t2)" for which in order)
    source = f"""jal ra, table
        {visits}
        ebreak
    one: addi a0, a0, {rng.randrange(1, 100)}
        jalr zero, 0(ra)
    two: add a0, a0, a0
        jalr zero, 0(ra)
    three: sub a0, zero, a0
        jalr zero, 0(ra)
    table: li s2, 0x1800
        li t0, one
        sw t0, 0(s2)
        li t0, two
        sw t0, 4(s2)
        li t0, three
        sw t0, 8(s2)
        jalr zero, 0(ra)"""
    return rv32.state(source)


def rewriting(rng: random.Random) -> rv32.State:
    """A loop that changes an instruction of a function, then calls it: fence.i comes between."""
    source = f"""li s0, {rng.randrange(5, 9)}
        li s1, patched
        li s2, {rng.randrange(2, 50) << 20}
    again: jal ra, function
        lw t0, 0(s1)
        add t0, t0, s2
        sw t0, 0(s1)
        fence.i
        addi s0, s0, -1
        bnez s0, again
        ebreak
    function: add a1, a1, a0
    patched: addi a0, a0, 1
        jalr zero, 0(ra)"""
    return rv32.state(source)


def generating(rng: random.Random) -> rv32.State:
    """A program that copies two functions, one after the other, to the same place and runs them there."""
    source = f"""li s3, 0x1400
        li a2, first
        jal ra, place
        jalr ra, 0(s3)
        jalr ra, 0(s3)
        li a2, second
        jal ra, place
        jalr ra, 0(s3)
        jalr ra, 0(s3)
        ebreak
    place: addi t0, zero, 3
        add t1, s3, zero
    copy: lw t2, 0(a2)
        sw t2, 0(t1)
        addi a2, a2, 4
        addi t1, t1, 4
        addi t0, t0, -1
        bnez t0, copy
        fence.i
        jalr zero, 0(ra)
    first: addi a0, a0, {rng.randrange(1, 900)}
        add a1, a1, a0
        jalr zero, 0(ra)
    second: sub a0, a0, a1
        addi a1, a1, {rng.randrange(1, 900)}
        jalr zero, 0(ra)"""
    return rv32.state(source)


def across_pages(rng: random.Random) -> rv32.State:
    """A loop whose body goes on from the first page into the second."""
    before = rng.randrange(2, 6)
    body = "\n".join(["addi a0, a0, 1"] * before + ["add a1, a1, a0"] * rng.randrange(2, 6))
    source = f"again: {body}\naddi t0, t0, -1\nbnez t0, again\nebreak"
    return rv32.state(source, at=rv32.PAGE_BYTES - 4 * before, regs={5: rng.randrange(4, 12)})


def endless() -> rv32.State:
    """A loop without end."""
    return rv32.state("again: addi a0, a0, 1\nj again")
