"""What a page walk's reads mean: level by level, where each should have been, and where the last one leads.

The reads come from outside: a student's walker, a lesson's reader. Here they are only laid beside the address's bits
and beside each other, and what does not fit is said: an entry of another table, another index, a read after the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..error import UsageError
from ..vcpu.paging import ADDRESS, NX, PAGE, PS, P, Recorder, U, W, index

NAMES = {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}
MASK = (1 << 64) - 1
_SIZES = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}
Read = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One read of a walk.

    Attributes:
        level: 4 for the first one of a walk of four levels.
        address: physical, of the entry.
        value: what it holds; None when it could not be read.
        note: what does not fit, in words.
    """

    level: int
    address: int
    value: int | None
    note: str = ""

    @property
    def present(self) -> bool:
        """It leads somewhere."""
        return self.value is not None and bool(self.value & P)

    @property
    def leaf(self) -> bool:
        """It leads to a page, not to a table."""
        return self.present and (self.level == 1 or (self.level in (2, 3) and bool((self.value or 0) & PS)))

    @property
    def target(self) -> int:
        """Physical address of the table or page."""
        low = self.offset_bits if self.leaf else 12
        return (self.value or 0) & ADDRESS >> low << low

    @property
    def offset_bits(self) -> int:
        """How many bits of the address are not used up to this level."""
        return 12 + 9 * (self.level - 1)


def bits_of(level: int) -> tuple[int, int]:
    """Highest and lowest bit of an address that a level uses; level 0 is the place within the page."""
    return (11, 0) if level == 0 else (20 + 9 * (level - 1), 12 + 9 * (level - 1))


def canonical(va: int, levels: int) -> bool:
    """Whether all the bits above the used ones are equal to the highest used one."""
    top = (va & MASK) >> (11 + 9 * levels)
    return top in (0, MASK >> (11 + 9 * levels))


def flags(value: int | None) -> str:
    """The bits of an entry that decide about an access, in words."""
    if value is None:
        return "unknown"
    if not value & P:
        return "not present (P = 0)"
    words = ["present", "writable" if value & W else "read only", "user" if value & U else "supervisor"]
    words += [word for bit, word in ((PS, "PS"), (NX, "no execute")) if value & bit]
    return ", ".join(words)


def follow(cr3: int, va: int, read: Read, levels: int) -> list[tuple[int, int | None, str]]:
    """Let a reader fetch entry after entry; returns address, value and what went wrong for each."""
    found: list[tuple[int, int | None, str]] = []
    where = (cr3 & ADDRESS) + 8 * index(va, levels)
    for level in range(levels if canonical(va, levels) else 0, 0, -1):
        value, problem = _fetch(read, where)
        found.append((where, value, problem))
        entry = Entry(level, where, value)
        if entry.leaf or not entry.present:
            break
        where = entry.target + 8 * index(va, level - 1)
    return found


def _fetch(read: Read, where: int) -> tuple[int | None, str]:
    """Ask the reader for one entry."""
    try:
        data = read(where) if isinstance(read, Recorder) else read(where, 8)
    except Exception as error:
        return None, f"the reader raised {type(error).__name__}: {error}".rstrip(": ")
    if isinstance(data, int):
        return data, ""
    if not isinstance(data, (bytes, bytearray)) or len(data) != 8:
        return None, f"the reader returned {data!r:.60}; expected 8 bytes"
    return int.from_bytes(data, "little"), ""


def plain_reads(reads: Sequence[Any]) -> list[tuple[int, int | None, str]]:
    """Check a list of (address, value).

    Raises:
        UsageError: naming the read that is none.
    """
    found: list[tuple[int, int | None, str]] = []
    for number, one in enumerate(reads, 1):
        if not isinstance(one, (tuple, list)) or len(one) != 2:
            raise UsageError(f"read {number} is {one!r}; expected a pair: the entry's address and its value")
        address, value = one
        if isinstance(value, (bytes, bytearray)) and len(value) == 8:
            value = int.from_bytes(value, "little")
        if not isinstance(address, int) or not isinstance(value, int):
            raise UsageError(f"read {number} is {one!r}; expected two integers: the entry's address and its value")
        found.append((address, value & MASK, ""))
    return found


def judged(cr3: int, va: int, reads: Sequence[tuple[int, int | None, str]], levels: int) -> list[Entry]:
    """Give each read its level, and say what does not fit."""
    found: list[Entry] = []
    before: Entry | None = None
    for at, (address, value, problem) in enumerate(reads):
        level = levels - at
        note = problem
        if not note and not canonical(va, levels):
            note = "the address is not canonical: no table is read for it"
        elif not note and before is not None and not before.present:
            note = "read on, though the entry before was not present"
        elif not note and before is not None and before.leaf:
            note = "read on, though the entry before led to a page"
        elif not note and level < 1:
            note = "read on, though there are no more levels"
        elif not note and before is None:
            note = _misplaced(va, level, address, cr3 & ADDRESS, "cr3")
        elif not note and before is not None:
            note = _misplaced(va, level, address, before.target, "the entry before")
        before = Entry(level, address, value, note)
        found.append(before)
    return found


def _misplaced(va: int, level: int, address: int, table: int, guide: str) -> str:
    """Say what is wrong with where an entry was read; ``""`` when nothing is."""
    if address == table + 8 * index(va, level):
        return ""
    high, low = bits_of(level)
    here, entry = address - address % PAGE, address % PAGE
    if address & ~ADDRESS & ~(PAGE - 1):
        return f"{address:#x} is no physical address: bits above 51, such as NX, belong to the entry's flags"
    if here != table:
        return f"read in the table at {here:#x}, and {guide} leads to the one at {table:#x}"
    if entry % 8:
        return f"entries are 8 bytes long, and {entry:#x} is not where one begins"
    return f"entry {entry // 8} was read, and bits {high}–{low} of the address are {index(va, level)}"


def outcome(va: int, entries: Sequence[Entry], levels: int) -> str:
    """Where the reads lead, in words."""
    if not canonical(va, levels):
        high = 11 + 9 * levels
        return (
            f"General protection: the address is not canonical (bits 63–{high} are not all the same). No table is read."
        )
    if not entries:
        return "Nothing has been read."
    last = entries[-1]
    wrong = "These reads are not the walk of this address (✗). " if any(entry.note for entry in entries) else ""
    if wrong or last.value is None:
        return wrong or f"The entry of level {last.level} could not be read."
    if not last.present:
        return f"Page fault: the entry of level {last.level} ({NAMES[last.level]}) is not present."
    if not last.leaf:
        return f"The walk is not at its end: the entry of level {last.level} leads to a table at {last.target:#x}."
    bits = last.offset_bits
    offset = va & ((1 << bits) - 1)
    page = f"A page of {_SIZES[last.level]} at {last.target:#x}"
    place = f"bits {bits - 1}–0 of the address are the offset {offset:#x}: physical address {last.target + offset:#x}"
    return f"{page}; {place}. Allowed: {_rights(entries)}."


def _rights(entries: Sequence[Entry]) -> str:
    """What all levels together allow."""
    values = [entry.value or 0 for entry in entries]
    write = "read and write" if all(value & W for value in values) else "read"
    run = "" if any(value & NX for value in values) else ", execute"
    return f"{write}{run}, {'user and supervisor' if all(value & U for value in values) else 'supervisor only'}"
