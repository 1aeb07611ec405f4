"""What the little assemblers share: lines, labels, numbers, directives, and the search for a layout that holds.

A target gives one function, ``encode(mnemonic, operands, place) -> bytes``. The driver calls it for every line, again
and again, until the addresses of the labels no longer move: x86 branches have a short and a long form, so where a label
lies depends on how long the code before it is. An instruction may only grow from one round to the next, hence it ends.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Mapping

from ..error import AssemblyError


class CannotEncode(ValueError):  # noqa: N818 - becomes an AssemblyError with its line
    """Raised by a target: the text says why."""


@dataclasses.dataclass
class Place:
    """Where an instruction lies, and the labels known in this round.

    Attributes:
        address: the instruction's own address.
        labels: name to address; in the first round, labels further down stand at `address`.
        minimum: number of bytes the instruction had in the round before.
    """

    address: int
    labels: Mapping[str, int]
    minimum: int = 0

    def target(self, text: str) -> int:
        """The address that a label or a number names."""
        if text in self.labels:
            return self.labels[text]
        if re.fullmatch(r"[A-Za-z_.][\w.]*", text):
            raise CannotEncode(f"there is no label {text!r}")
        return number(text)


Encode = Callable[[str, list[str], Place], bytes]


@dataclasses.dataclass
class _Line:
    number: int
    text: str
    labels: list[str]
    mnemonic: str
    rest: str


def number(text: str) -> int:
    """Read ``42``, ``-0x2a``, ``0b101``, ``'A'`` or ``#42``.

    Raises:
        CannotEncode: for anything else.
    """
    text = text.strip().lstrip("#$")
    if re.fullmatch(r"'.'", text):
        return ord(text[1])
    try:
        return int(text, 0)
    except ValueError:
        raise CannotEncode(f"{text!r} is neither a number nor a register that fits here") from None


def fits(value: int, bits: int, *, signed: bool, what: str = "number") -> int:
    """Return `value` as an unsigned field of `bits` bits.

    Raises:
        CannotEncode: when it does not fit; the message names the range.
    """
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise CannotEncode(f"the {what} {value} does not fit; here it has to be {low} to {high}")
    return value & ((1 << bits) - 1)


def operands(rest: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts = re.findall(r"(?:\[[^\]]*\]|[^,])+", rest)
    return [part.strip() for part in parts if part.strip()]


def assemble(source: str, isa: str, endian: str, encode: Encode, address: int) -> tuple[bytes, dict[str, int]]:
    """Assemble `source` for one target.

    Args:
        source: one instruction, label or directive per line; ``;``, ``//`` and ``# `` begin comments.
        isa: name for messages.
        endian: byte order of ``.word`` and its like.
        encode: the target.
        address: where the first byte will lie.

    Returns:
        The bytes, and each label's address.

    Raises:
        AssemblyError: naming the line and what is wrong with it.
    """
    lines = _lines(source, isa)
    names = [label for line in lines for label in line.labels]
    for name in names:
        if names.count(name) > 1:
            first = [line for line in lines if name in line.labels][1]
            raise AssemblyError(isa, first.number, first.text, f"the label {name!r} exists already")
    labels: dict[str, int] = {}
    pieces: list[bytes] = [b""] * len(lines)
    for _ in range(32):
        before, labels_before, here = pieces, labels, address
        labels, pieces = {}, []
        guess = {name: labels_before.get(name, here) for name in names}
        for line, old in zip(lines, before, strict=True):
            labels.update(dict.fromkeys(line.labels, here))
            pieces.append(_piece(line, isa, endian, encode, Place(here, guess | labels, len(old))))
            here += len(pieces[-1])
        if labels == labels_before and pieces == before:
            break
    return b"".join(pieces), labels


def _lines(source: str, isa: str) -> list[_Line]:
    out = []
    for at, text in enumerate(source.splitlines(), 1):
        line = text if '"' in text else re.sub(r"(;|//|#(?=\s|$)|#(?=[A-Za-z])).*", "", text)
        labels = []
        while found := re.match(r"\s*([A-Za-z_.][\w.]*):", line):
            labels.append(found[1])
            line = line[found.end() :]
        mnemonic, _, rest = line.strip().partition(" ")
        if not mnemonic.isascii():
            raise AssemblyError(isa, at, text, "only plain ASCII letters are understood")
        if labels or mnemonic:
            out.append(_Line(at, text, labels, mnemonic.lower(), rest.strip()))
    return out


def _piece(line: _Line, isa: str, endian: str, encode: Encode, place: Place) -> bytes:
    try:
        if not line.mnemonic:
            return b""
        if line.mnemonic.startswith("."):
            return _directive(line.mnemonic, line.rest, endian, place)
        return encode(line.mnemonic, operands(line.rest), place)
    except CannotEncode as error:
        raise AssemblyError(isa, line.number, line.text, str(error)) from None


_SIZES = {".byte": 1, ".short": 2, ".half": 2, ".word": 4, ".long": 4, ".quad": 8, ".dword": 8}


def _directive(name: str, rest: str, endian: str, place: Place) -> bytes:
    if name in _SIZES:
        size = _SIZES[name]
        values = [place.target(text) for text in operands(rest)]
        return b"".join(
            fits(v, 8 * size, signed=v < 0).to_bytes(size, "little" if endian == "little" else "big") for v in values
        )
    if name in (".ascii", ".asciz"):
        try:
            text = ast.literal_eval(rest)
        except (ValueError, SyntaxError):
            raise CannotEncode('a text in "double quotes" was expected') from None
        return str(text).encode() + (b"\0" if name == ".asciz" else b"")
    if name == ".align":
        return bytes(-place.address % number(rest))
    if name in (".text", ".globl", ".global", ".section"):
        return b""
    known = ", ".join([*_SIZES, ".ascii", ".asciz", ".align"])
    raise CannotEncode(f"unknown directive; known ones: {known}")
