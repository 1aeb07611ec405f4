"""The references of a two-dimensional walk, laid out as a grid.

Each row leads to one entry of the guest's tables, the last row to the page itself: first the host's tables are read to
find out where it lies, then the guest's entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..error import UsageError

_KINDS = ("guest", "host")


@dataclasses.dataclass(frozen=True)
class Reference:
    """One read of memory.

    Attributes:
        kind: whose table was read: ``"guest"`` or ``"host"``.
        address: where.
        value: the entry; None when it is not known.
    """

    kind: str
    address: int
    value: int | None = None


def references(reads: Sequence[Any], guest_levels: int, host_levels: int) -> list[Reference]:
    """Read a list of addresses, (address, value), (kind, address) or (kind, address, value).

    Without kinds, every read after as many as the host has levels is the guest's, until the guest's levels are done.

    Raises:
        UsageError: naming the read that is none.
    """
    found = []
    for at, one in enumerate(reads):
        parts = list(one) if isinstance(one, (tuple, list)) else [one]
        regular = at % (host_levels + 1) == host_levels and at // (host_levels + 1) < guest_levels
        kind = parts.pop(0) if parts and isinstance(parts[0], str) else "guest" if regular else "host"
        if kind not in _KINDS or not 1 <= len(parts) <= 2 or not all(isinstance(part, int) for part in parts):
            raise UsageError(
                f"reference {at + 1} is {one!r}; expected an address, or (kind, address, value) with kind guest or host"
            )
        found.append(Reference(kind, *parts))
    return found


def grid(found: Sequence[Reference]) -> list[list[tuple[int, Reference]]]:
    """Cut the references into rows, each ending with the guest's; each with its number, from 1."""
    rows: list[list[tuple[int, Reference]]] = [[]]
    for number, one in enumerate(found, 1):
        rows[-1].append((number, one))
        if one.kind == "guest":
            rows.append([])
    return rows if rows[-1] else rows[:-1]


def goal(row: int, guest_levels: int) -> str:
    """What a row of the grid is to find."""
    return f"the guest's level {guest_levels - row} entry" if row < guest_levels else "the page itself"


def told(found: Sequence[Reference]) -> str:
    """How many there are, in words."""
    own = sum(one.kind == "guest" for one in found)
    return f"{len(found)} references in all: {len(found) - own} to the host's tables, {own} to the guest's."
