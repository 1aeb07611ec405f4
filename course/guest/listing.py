"""Turn a listing, machine code beside its assembly text, into bytes.

The programs that boot here are written as bytes, so that nothing but Python is needed to make them, and a reader sees
what each byte does::

    start:
        be {text:2}      ; mov si, text        an address of 2 (or 4) bytes
        ac               ; lodsb al, byte ptr [si]
        74 {done:r}      ; je done             a jump of one byte, counted from the next instruction
    done:
        f4               ; hlt

Names are labels of the listing, pieces of data put after the code, or constants. The text after ``;`` is what a
disassembler says of the bytes; tests hold it to that.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

_TOKEN = re.compile(r"\{(?P<name>\w+):(?P<kind>[124r])\}|(?P<hex>[0-9a-f]{2})")
_NOTHING: Mapping[str, bytes] = {}
_NO_CONSTANTS: Mapping[str, int] = {}


@dataclasses.dataclass(frozen=True)
class Line:
    """One instruction of a listing: its tokens and its assembly text; or a label, with neither."""

    label: str
    tokens: tuple[re.Match[str], ...]
    text: str

    @property
    def size(self) -> int:
        """Bytes of the instruction."""
        return sum(int(token["kind"].replace("r", "1")) if token["name"] else 1 for token in self.tokens)


def parse(listing: str) -> Iterator[Line]:
    """Yield the lines of a listing that are labels or instructions."""
    for written in listing.splitlines():
        code, _, text = written.strip().partition(";")
        if code.endswith(":"):
            yield Line(code[:-1], (), "")
        elif code:
            yield Line("", tuple(_TOKEN.finditer(code)), text.strip())


def link(
    listing: str,
    origin: int,
    *,
    data: Mapping[str, bytes] = _NOTHING,
    constants: Mapping[str, int] = _NO_CONSTANTS,
) -> bytes:
    """Return the bytes of a listing followed by its data.

    Args:
        listing: see the module's head.
        origin: address at which the first byte will lie.
        data: named pieces put after the code, in order.
        constants: other names, with their values.
    """
    lines = list(parse(listing))
    names, address = dict(constants), origin
    for line in lines:
        if line.label:
            names[line.label] = address
        address += line.size
    for name, piece in data.items():
        names[name] = address
        address += len(piece)
    code = bytearray()
    for line in lines:
        for token in line.tokens:
            code += _encoded(token, names, origin + len(code))
    return bytes(code) + b"".join(data.values())


def _encoded(token: re.Match[str], names: Mapping[str, int], here: int) -> bytes:
    if token["hex"]:
        return bytes.fromhex(token["hex"])
    value = names[token["name"]]
    if token["kind"] == "r":
        return (value - (here + 1)).to_bytes(1, "little", signed=True)
    return value.to_bytes(int(token["kind"]), "little")
