"""Errors of this room.

::

    CourseError
    └── UsageError
        ├── AssemblyError     a line of assembly that has no encoding here
        └── NotElfError       bytes that are not an ELF file
"""

from __future__ import annotations

from ..error import UsageError


class AssemblyError(UsageError):
    """A line of assembly that cannot be encoded.

    Attributes:
        isa: name of the instruction set.
        line: 1-based number of the line in the source.
        text: the line.
        why: what is wrong with it.
    """

    def __init__(self, isa: str, line: int, text: str, why: str) -> None:
        super().__init__(f"{isa}, line {line}: {text.strip()!r}: {why}")
        self.isa = isa
        self.line = line
        self.text = text
        self.why = why


class NotElfError(UsageError):
    """Bytes that are not an ELF file, or end before its header does."""
