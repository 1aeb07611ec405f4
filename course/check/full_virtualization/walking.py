"""Judgements on page walks: `gva2gpa` over physical memory in a file, and `walk_refs`, the reads of a nested walk."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...vcpu.paging import GIB_1, MIB_2, PAGE, A, D, P, Tables, U, W
from ..answer import Outcome
from ..compare import shorten
from ..exercise import Exercise, Trial
from .linux import Snapshot, snapshot

gva2gpa = Exercise("gva2gpa", deadline_s=20)
walk_refs = Exercise("walk_refs", deadline_s=10)

_ROOM = 1 << 20


@dataclasses.dataclass
class Memory:
    """A physical memory in a file, with page tables of our own in it.

    Attributes:
        path: of the file.
        tables: what builds them; written to the file by `save`.
    """

    path: str
    tables: Tables

    def save(self) -> None:
        """Write the memory to its file."""
        Path(self.path).write_bytes(self.tables.memory)


@contextmanager
def memory(trial: Trial) -> Iterator[Memory]:
    """Make a memory whose tables begin somewhere."""
    with tempfile.TemporaryDirectory(prefix="course-walk-") as directory:
        first = trial.rng.randrange(1, 32) * PAGE
        tables = Tables(bytearray(_ROOM), first=first, table_flags=P | W | U | A)
        yield Memory(str(Path(directory, "ram")), tables)


def canonical(trial: Trial) -> int:
    """Return some virtual address, of either half."""
    low = trial.rng.randrange(1 << 47)
    return low if trial.rng.random() < 0.5 else low | 0xFFFF << 48 | 1 << 47


def frame(trial: Trial, size: int = PAGE) -> int:
    """Return some physical address below 2^46 for a page of `size`; nothing need be there."""
    return trial.rng.randrange(1, (1 << 46) // size) * size


def judge_walk(
    trial: Trial,
    cr3: int,
    ram: str,
    truth: Mapping[int, int | None],
    misconception: str,
    *,
    hint: str,
    about: str = "",
) -> None:
    """Let the answer translate addresses; every outcome other than the truth is this misconception."""
    for address, expected in truth.items():
        asked = f"gva2gpa({cr3:#x}, {address:#x}, …)"
        done = trial.attempt(cr3, address, ram)
        if done.outcome is Outcome.RAISED:
            trial.wrong(
                misconception, f"{about}{asked} raised {done.error}: {done.detail}; expected {_said(expected)}.", hint
            )
        got = trial.value_of(done, asked, none_is_an_answer=True)
        if got != expected or isinstance(got, bool):
            trial.wrong(misconception, f"{about}{asked} is {_said(got)}; expected {_said(expected)}.", hint)


def _said(value: Any) -> str:
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else shorten(value)


@gva2gpa.step("pages of 4 KiB are found through four tables")
def _walk_small(trial: Trial) -> None:
    with memory(trial) as room:
        truth: dict[int, int | None] = {}
        for _ in range(6):
            address, physical = canonical(trial), frame(trial)
            room.tables.map(address, physical, P | W | U | A | D)
            truth[address] = physical | address % PAGE
        room.save()
        hint = "Nine bits of the address select an entry of eight bytes, on each of four levels; twelve are left."
        judge_walk(trial, room.tables.root, room.path, truth, "wrong-walk", hint=hint)


@gva2gpa.step("where an entry is not present, on any level, nothing is mapped")
def _walk_absent(trial: Trial) -> None:
    with memory(trial) as room:
        mapped = canonical(trial)
        room.tables.map(mapped, frame(trial))
        truth: dict[int, int | None] = {mapped ^ 1 << 40: None, mapped ^ 1 << 13: None}
        for level in (1, 2, 3, 4):
            address, physical = canonical(trial), frame(trial)
            room.tables.map(address, physical)
            where = room.tables.entry(address, level)
            room.tables.write(where, room.tables.read(where) & ~P)  # its other bits stay, as in a page swapped out
            truth[address] = None
        room.save()
        hint = "Bit 0 of an entry says whether the rest of it means anything."
        judge_walk(trial, room.tables.root, room.path, truth, "absent-followed", hint=hint)


@gva2gpa.step("a page of 2 MiB ends the walk one level earlier")
def _walk_large(trial: Trial) -> None:
    with memory(trial) as room:
        truth: dict[int, int | None] = {}
        for _ in range(4):
            address, physical = canonical(trial), frame(trial, MIB_2)
            room.tables.map(address, physical, P | W | U | A | D, MIB_2)
            truth[address] = physical | address % MIB_2
        room.save()
        hint = "Bit 7 (PS) in an entry of level 2: the address in it is that of a page. How many bits are left then?"
        judge_walk(trial, room.tables.root, room.path, truth, "large-page-followed", hint=hint)


@gva2gpa.step("bits 52 to 63 of an entry are no part of the address")
def _walk_high_bits(trial: Trial) -> None:
    with memory(trial) as room:
        truth: dict[int, int | None] = {}
        for size in (PAGE, PAGE, MIB_2):
            address, physical = canonical(trial), frame(trial, size)
            high = 1 << 63 | trial.rng.randrange(1, 1 << 7) << 52
            room.tables.map(address, physical, P | W | A | high, size)
            truth[address] = physical | address % size
        room.save()
        hint = "Look at the drawing of an entry: where does the address begin, and where does it end?"
        judge_walk(trial, room.tables.root, room.path, truth, "high-bits-kept", hint=hint)


@gva2gpa.step("in a living Linux, QEMU's own walk gives the same")
def _walk_linux(trial: Trial) -> None:
    judge_linux(trial, snapshot("visible"), 4)


def judge_linux(trial: Trial, linux: Snapshot, each: int) -> None:
    """Let the answer translate some addresses of each kind in a stopped Linux."""
    hint = "Print each entry on the way in hex."
    kinds = {kind: addresses for kind, addresses in linux.truth.items() if kind != "not canonical"}
    with linux.file() as ram:
        for kind, addresses in kinds.items():
            chosen = trial.rng.sample(sorted(addresses), min(each, len(addresses)))
            truth = {address: addresses[address] for address in chosen}
            about = f"In a stopped Linux ({kind}), "
            judge_walk(trial, linux.cr3, ram, truth, "linux-differs", hint=hint, about=about)


# ── walk_refs ────────────────────────────────────────────────────────────────────────────────────────────────────────

Case = tuple[int, int, int, int]


def judge_refs(trial: Trial, case: Case, expected: int) -> None:
    """Let the answer count the reads of one nested walk; known wrong counts are named."""
    n, m, guest_page, host_page = case
    got = trial.call(n, m, guest_page, host_page)
    if got == expected and not isinstance(got, bool):
        return
    n -= {PAGE: 0, MIB_2: 1, GIB_1: 2}[guest_page]
    m -= {PAGE: 0, MIB_2: 1, GIB_1: 2}[host_page]
    asked = f"walk_refs({', '.join(map(str, case))}) is {shorten(got)}"
    asked += f", and a walker that counts reads entries {expected} times"
    known = [
        (n + m, "sum", "As if the two walks came one after the other. Which address does the first table have?"),
        (n * m, "product", "The guest's own entries have to be read as well, and something is left at the end."),
        (expected + 1, "counts-the-data", "Only entries of page tables count, not the byte that was asked for."),
        (n * (m + 1), "last-translation-forgotten", "What the guest's walk ends with is a guest-physical address."),
        (n * m + m, "guest-entries-forgotten", "Once it is found, each entry of the guest's tables is read as well."),
    ]
    for wrong, misconception, hint in known:
        if got == wrong:
            trial.wrong(misconception, f"{asked}.", hint)
    large = guest_page > PAGE or host_page > PAGE
    trial.wrong(
        "large-pages-ignored" if large else "wrong-count",
        f"{asked}.",
        "A large page spares a level." if large else "Draw it: the guest's tables downwards, the host's to the right.",
    )


@walk_refs.step("with three levels over two, and with four over four, it is what a counting walker says")
def _refs(trial: Trial) -> None:
    judge_refs(trial, (3, 2, PAGE, PAGE), 11)
    judge_refs(trial, (4, 4, PAGE, PAGE), 24)
