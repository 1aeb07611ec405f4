"""nbgrader's regions in a cell's source: solutions, hidden tests, mark schemes.

nbgrader looks for the words anywhere in a line, silently ignores an END without BEGIN and leaves out everything after
a BEGIN without END; a lesson with such a slip would lose text or leak a solution. `regions` refuses both.
"""

from __future__ import annotations

import dataclasses
import enum
import re


class Region(enum.Enum):
    """A kind of region; the value is how nbgrader writes it after BEGIN and END."""

    SOLUTION = "SOLUTION"
    HIDDEN_TESTS = "HIDDEN TESTS"
    MARK_SCHEME = "MARK SCHEME"


@dataclasses.dataclass(frozen=True)
class Block:
    """One region of a cell.

    Attributes:
        region: its kind.
        first: 0-based index of the BEGIN line within the cell.
        last: 0-based index of the END line.
        lines: what is between them.
    """

    region: Region
    first: int
    last: int
    lines: tuple[str, ...]


class MarkerError(ValueError):
    """A marker without its partner; `index` is the 0-based line within the cell."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


_MARKER = re.compile(r"\b(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)\b")
_NEARLY = re.compile(r"^\W*(BEGIN|END)\W+(SOLUTIONS?|HIDDEN\W*TESTS?|MARK\W*SCHEME)\b", re.IGNORECASE)


def regions(source: str) -> list[Block]:
    """Find the regions of a cell, in order.

    Raises:
        MarkerError: a BEGIN without END, an END without BEGIN, one region inside another, or a misspelt marker.
    """
    found: list[Block] = []
    lines = source.split("\n")
    opened: tuple[Region, int] | None = None
    for index, line in enumerate(lines):
        match = _MARKER.search(line)
        if not match:
            if _NEARLY.match(line):
                raise MarkerError(f"misspelt marker {line.strip()!r}; write e.g. `### BEGIN SOLUTION`", index)
            continue
        region = Region(match[2])
        if match[1] == "BEGIN":
            if opened:
                raise MarkerError(f"BEGIN {region.value} inside {opened[0].value}; close that one first", index)
            opened = (region, index)
        elif opened is None or opened[0] is not region:
            raise MarkerError(f"END {region.value} without its BEGIN {region.value}", index)
        else:
            found.append(Block(region, opened[1], index, tuple(lines[opened[1] + 1 : index])))
            opened = None
    if opened:
        raise MarkerError(f"BEGIN {opened[0].value} without its END {opened[0].value}", opened[1])
    return found


def is_marker(line: str) -> bool:
    """True for a BEGIN or END line, which Markdown would take for a heading."""
    return bool(_MARKER.search(line))


def without(source: str, *kinds: Region) -> str:
    """`source` without its regions of these kinds, markers included."""
    lines = source.split("\n")
    for block in reversed(regions(source)):
        if block.region in kinds:
            del lines[block.first : block.last + 1]
    return "\n".join(lines)
