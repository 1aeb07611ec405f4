"""Fixed-width instruction sets as tables: each row is a pattern of operands and the bits that never change.

A pattern is a string of operand kinds, one word each. ``Table`` matches the operands against the kinds and ORs the
fields together; a kind is a function from operand text to a field already shifted into place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

from .parse import CannotEncode, Place

Kind = Callable[[str, Place], int]
Row = tuple[str, int]


def flatten(texts: list[str]) -> list[str]:
    """Turn ``8(r1)`` into ``8``, ``r1`` so that loads and stores have three operands like the rest."""
    out: list[str] = []
    for text in texts:
        if found := re.fullmatch(r"(.*?)\s*\(\s*(\w+)\s*\)", text):
            out += [found[1] or "0", found[2]]
        else:
            out.append(text)
    return out


class Table:
    """Encodes instructions of 32 bits from rows.

    Args:
        kinds: kind name to field function.
        rows: mnemonic to its row, or rows when it has several forms: (pattern, fixed bits).
        endian: byte order of the instruction words.
    """

    def __init__(self, kinds: Mapping[str, Kind], rows: Mapping[str, Row | tuple[Row, ...]], endian: str) -> None:
        self.kinds = kinds
        self.rows = {name: (row if isinstance(row[0], tuple) else (row,)) for name, row in rows.items()}
        self.order = "little" if endian == "little" else "big"

    def __call__(self, mnemonic: str, texts: list[str], place: Place) -> bytes:
        """Encode one instruction (the driver's `encode`)."""
        return self.word(mnemonic, texts, place).to_bytes(4, "little" if self.order == "little" else "big")

    def word(self, mnemonic: str, texts: list[str], place: Place) -> int:
        """The instruction as a number."""
        forms = self.rows.get(mnemonic)
        if forms is None:
            raise CannotEncode(unknown(mnemonic, list(self.rows)))
        given = flatten(texts)
        why = ""
        for pattern, fixed in forms:
            kinds = str(pattern).split()
            if len(kinds) != len(given):
                counts = sorted({len(str(p).split()) for p, _ in forms})
                why = why or f"{mnemonic} takes {' or '.join(map(str, counts))} operands, {len(given)} were given"
                continue
            try:
                word = int(fixed)
                for kind, text in zip(kinds, given, strict=True):
                    word |= self.kinds[kind](text, place)
            except CannotEncode as error:
                why = str(error)
            else:
                return word
        raise CannotEncode(why)


def unknown(mnemonic: str, known: list[str]) -> str:
    """Say that a mnemonic is not known, and which ones come near."""
    near = difflib.get_close_matches(mnemonic, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return (
        f"this small assembler does not know the instruction {mnemonic!r}{hint} "
        "(any other instruction can be given as bytes: .byte 0x90)"
    )


def register(names: Mapping[str, int], shift: int, what: str = "register") -> Kind:
    """A kind for a register whose number goes to bit `shift`."""

    def field(text: str, place: Place) -> int:
        key = text.lower().lstrip("%")
        if key not in names:
            raise CannotEncode(f"{text!r} is not a {what} of this instruction set")
        return names[key] << shift

    return field
