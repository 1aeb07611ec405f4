"""A page walk: which bits of an address choose which entry, what it holds, and where it leads.

::

    PageWalk(cr3, 0x7ffd12345678, read)          # read(address, size) -> bytes fetches the entries
    PageWalk.of_reads(cr3, va, reads)            # what your own walker has read: (address, value), in order
    PageWalk.nested(gva, reads)                  # both dimensions of a nested walk

It shows reads; where they do not fit the address or each other, it says so. Its result is part of a sentence and no
value of Python's: to compute addresses, write a walker.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import traitlets

from ..error import UsageError
from ..vcpu.paging import index
from .nesting import Reference, goal, grid, references, told
from .view import View, script, style
from .walking import MASK, NAMES, Entry, Read, bits_of, flags, follow, judged, outcome, plain_reads

_WALK_HEADS = ("level", "bits", "index", "entry at", "holds", "leads to", "flags", "remark")


class PageWalk(View):
    """Show a walk of x86-64 page tables, entry by entry.

    Keys: right or ``n`` next, left or ``p`` back, Home and End to the ends; buttons and a slider do the same.

    Args:
        cr3: the register, or the physical address of the top table.
        va: the virtual address.
        read: ``read(physical_address, size)`` returns bytes; or a `course.vcpu.paging.Recorder`.
        levels: 4 or 5.
        title: a few words.
        position: the read shown first; 0 is before the first.

    Raises:
        UsageError: for levels or numbers that cannot be meant.
    """

    _esm = script("pagewalk")
    _css = style("pagewalk")
    run = traitlets.Dict().tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, cr3: int, va: int, read: Read, *, levels: int = 4, title: str = "Page walk", position: int = 0
    ) -> None:
        _check(cr3, va, levels)
        reads = follow(cr3, va & MASK, read, levels)
        self._show(_walk(cr3, va & MASK, judged(cr3, va & MASK, reads, levels), levels, title), position)

    @classmethod
    def of_reads(
        cls,
        cr3: int,
        va: int,
        reads: Sequence[tuple[int, int]],
        *,
        levels: int = 4,
        title: str = "Page walk",
        position: int = 0,
    ) -> PageWalk:
        """Show recorded reads: pairs of an entry's physical address and its value, in order.

        Raises:
            UsageError: naming the read that is no pair of integers.
        """
        _check(cr3, va, levels)
        entries = judged(cr3, va & MASK, plain_reads(reads), levels)
        return cls._of(_walk(cr3, va & MASK, entries, levels, title), position)

    @classmethod
    def nested(
        cls,
        gva: int,
        reads: Sequence[Any],
        *,
        guest_levels: int = 4,
        host_levels: int = 4,
        title: str = "Nested page walk",
        position: int = 0,
    ) -> PageWalk:
        """Show the references of a nested walk as a grid.

        Args:
            gva: the guest's virtual address.
            reads: in order, each an address, or (address, value), or (kind, address, value) with kind ``"guest"`` or
                ``"host"``. Give kinds where large pages or faults make the walk irregular.
            guest_levels: of the guest's tables.
            host_levels: of the host's tables.
            title: a few words.
            position: the reference shown first; 0 is before the first.

        Raises:
            UsageError: naming the reference that cannot be meant.
        """
        found = references(reads, guest_levels, host_levels)
        return cls._of(_grid(gva & MASK, found, guest_levels, host_levels, title), position)

    @classmethod
    def _of(cls, run: dict[str, Any], position: int) -> PageWalk:
        made = cls.__new__(cls)
        made._show(run, position)
        return made

    def _show(self, run: dict[str, Any], position: int) -> None:
        super().__init__(run=run, position=0)
        self.position = position

    @property
    def length(self) -> int:
        """Number of reads."""
        return len(self.run["sentences"]) - 2

    @traitlets.validate("position")
    def _in_range(self, proposal: Mapping[str, Any]) -> int:
        """Keep the position between the beginning and the outcome."""
        return max(0, min(int(proposal["value"]), len(self.run.get("sentences", [0])) - 1))

    def static(self) -> dict[str, str]:
        """The walk as a table."""
        return {"text/html": as_html(self.run)}

    def __str__(self) -> str:
        return as_text(self.run)


def _check(cr3: int, va: int, levels: int) -> None:
    if levels not in (4, 5):
        raise UsageError(f"{levels} levels of tables; x86-64 has 4 or 5")
    for name, value in (("cr3", cr3), ("va", va)):
        if not isinstance(value, int) or not -(1 << 63) <= value <= MASK:
            raise UsageError(f"{name} is {value!r}; expected an integer of 64 bits")


def _walk(cr3: int, va: int, entries: Sequence[Entry], levels: int, title: str) -> dict[str, Any]:
    """A walk in one dimension, as JSON."""
    wide = len(_WALK_HEADS) - (not any(entry.note for entry in entries))
    rows = [{"step": at, "cells": _row(va, entry)[:wide]} for at, entry in enumerate(entries, 1)]
    start = f"cr3 is {cr3:#x}. The address {va:#x} chooses one entry per level."
    end = outcome(va, entries, levels)
    return {
        "title": f"{title}: {va:#x}",
        "strip": _strip(va, levels),
        "caption": "Entries, in the order in which they were read",
        "heads": list(_WALK_HEADS[:wide]),
        "rows": rows,
        "sentences": [start, *(_told(va, at, entry) for at, entry in enumerate(entries, 1)), end],
    }


def _strip(va: int, levels: int) -> list[dict[str, Any]]:
    """The address, cut into the parts that levels use; each with the number of the read that uses it."""
    top = 12 + 9 * levels
    parts = [{"bits": f"63–{top}", "value": f"{va >> top:0{64 - top}b}", "for": "sign", "step": -2}]
    for at, level in enumerate(range(levels, 0, -1), 1):
        high, low = bits_of(level)
        number = index(va, level)
        parts.append({"bits": f"{high}–{low}", "value": f"{number:09b}", "for": f"{NAMES[level]} {number}", "step": at})
    low_bits = va & 0xFFF
    parts.append({"bits": "11–0", "value": f"{low_bits:012b}", "for": f"offset {low_bits:#x}", "step": -1})
    return parts


def _row(va: int, entry: Entry) -> list[dict[str, Any]]:
    known = 1 <= entry.level <= max(NAMES)
    high, low = bits_of(entry.level) if known else (0, 0)
    name = f"{entry.level} {NAMES[entry.level]}" if known else "none"
    texts = (
        name,
        f"{high}–{low}" if known else "",
        str(index(va, entry.level)) if known else "",
        f"{entry.address:#x}",
        "?" if entry.value is None else f"{entry.value:#018x}",
        f"{'page' if entry.leaf else 'table'} {entry.target:#x}" if entry.present and known else "",
        flags(entry.value),
        f"✗ {entry.note}" if entry.note else "",
    )
    return [{"text": text, "step": 0} for text in texts]


def _told(va: int, at: int, entry: Entry) -> str:
    """One read in a sentence."""
    if entry.level < 1:
        return f"Read {at}, at {entry.address:#x}. ✗ {entry.note}."
    high, low = bits_of(entry.level)
    chosen = f"bits {high}–{low} of the address are {index(va, entry.level)}"
    holds = "could not be read" if entry.value is None else f"holds {entry.value:#x}: {flags(entry.value)}"
    leads = f"; it leads to the {'page' if entry.leaf else 'table'} at {entry.target:#x}" if entry.present else ""
    note = f" ✗ {entry.note[0].upper()}{entry.note[1:]}." if entry.note else ""
    return (
        f"Level {entry.level} ({NAMES[entry.level]}): {chosen}. The entry at {entry.address:#x} {holds}{leads}.{note}"
    )


def _grid(gva: int, found: Sequence[Reference], guest_levels: int, host_levels: int, title: str) -> dict[str, Any]:
    """A walk in two dimensions, as JSON."""
    rows = grid(found)
    wide = max([host_levels, *(sum(one.kind == "host" for _, one in row) for row in rows)])
    heads = ["to find", *(f"host {host_levels - at}" if at < host_levels else "host ?" for at in range(wide)), "guest"]
    sentences = [f"The guest's address is {gva:#x}. Every address in the guest's tables is the guest's own."]
    shown = []
    for at, row in enumerate(rows):
        aim = goal(at, guest_levels)
        cells = [{"text": aim, "step": 0}] + [{"text": "", "step": 0} for _ in heads[1:]]
        for place, (number, one) in enumerate(row, 1):
            column = len(heads) - 1 if one.kind == "guest" else place
            cells[column] = {"text": f"{number}: {one.address:#x}", "step": number}
            whose = (
                f"level {host_levels - place + 1} of the host's tables" if one.kind == "host" else "the guest's tables"
            )
            holds = "" if one.value is None else f" It holds {one.value:#x}: {flags(one.value)}."
            way = f"on the way to {aim}" if one.kind == "host" else f"{aim} at last"
            sentences.append(f"Reference {number} of {len(found)}, at {one.address:#x}: {whose}, {way}.{holds}")
        shown.append({"step": 0, "cells": cells})
    return {
        "title": f"{title}: {gva:#x}",
        "strip": [],
        "caption": "References, numbered in their order",
        "heads": heads,
        "rows": shown,
        "sentences": [*sentences, told(found)],
    }


def as_text(run: Mapping[str, Any]) -> str:
    """The walk as aligned columns."""
    table = [list(run["heads"]), *([cell["text"] for cell in row["cells"]] for row in run["rows"])]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([run["title"], *lines, run["sentences"][-1]])


def as_html(run: Mapping[str, Any]) -> str:
    """The same as a table for committed notebooks."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in run["heads"])
    rows = []
    for row in run["rows"]:
        first, *rest = (html.escape(cell["text"]) for cell in row["cells"])
        rows.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{text}</td>" for text in rest)}</tr>')
    caption = f"<caption>{html.escape(run['title'])}</caption>"
    words = f"<p>{html.escape(run['sentences'][-1])}</p>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{words}"
