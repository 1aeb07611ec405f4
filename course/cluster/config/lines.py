"""The lines of a guest's configuration file, one by one and without loss.

::

    #a description%3A with its colon escaped      Comment
    cores: 2                                      Setting
    lxc.idmap = u 0 100000 65536                  Setting with a dotted key
                                                  Blank
    [PENDING]                                     Header

Reading and writing again gives the same bytes, whatever the order of the keys. What the lines mean is `guest`'s work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

_HEADER = re.compile(r"\[(?P<name>[^\]]+)\](?P<rest>\s*)")
_SETTING = re.compile(r"(?P<key>[a-z][a-z0-9_.\-]*)(?P<mark>\s*[:=][ \t]*)(?P<value>.*?)(?P<rest>\s*)", re.IGNORECASE)
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%:")


@dataclass(frozen=True, slots=True)
class Comment:
    """A line of a description, still escaped."""

    escaped: str

    def __str__(self) -> str:
        return f"#{self.escaped}"


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a section."""

    name: str
    rest: str = ""

    def __str__(self) -> str:
        return f"[{self.name}]{self.rest}"


@dataclass(frozen=True, slots=True)
class Setting:
    """A key and its value."""

    key: str
    value: str
    mark: str = ": "
    rest: str = ""

    def __str__(self) -> str:
        return f"{self.key}{self.mark}{self.value}{self.rest}"


@dataclass(frozen=True, slots=True)
class Blank:
    """An empty line."""

    text: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Unknown:
    """A line that is none of the others."""

    text: str

    def __str__(self) -> str:
        return self.text


Line = Comment | Header | Setting | Blank | Unknown


def parse(text: str) -> Iterator[Line]:
    """Read the lines of a file; an end without a newline is one more, empty, line's lack."""
    for line in text.removesuffix("\n").split("\n") if text else ():
        yield parse_line(line)


def parse_line(line: str) -> Line:
    """Read one line."""
    if line.startswith("#"):
        return Comment(line[1:])
    if not line.strip():
        return Blank(line)
    if found := _HEADER.fullmatch(line):
        return Header(found["name"], found["rest"])
    if found := _SETTING.fullmatch(line):
        return Setting(found["key"], found["value"], found["mark"], found["rest"])
    return Unknown(line)


def render(lines: Iterable[Line]) -> str:
    """Write lines, each with its end."""
    return "".join(f"{line}\n" for line in lines)


def escape(text: str) -> str:
    """Escape one line of a description: control characters, ``%``, ``:`` and all that is not ASCII."""
    return quote(text, safe=_PLAIN, errors="surrogateescape")


def unescape(text: str) -> str:
    """Undo `escape`."""
    return unquote(text, errors="surrogateescape")
