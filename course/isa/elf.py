"""ELF files: write the smallest that run, read the facts of any.

::

    0    ELF header       52 or 64 bytes: magic, class, byte order, type, machine, entry …
    52+  program header   32 or 56 bytes: one segment, the whole file, read and execute
    84+  code             then whatever data the code refers to

Source: System V ABI, chapter 4 (object files) and 5 (program loading); ``elf.h`` for the machine numbers.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

from ..error import UsageError
from .error import NotElfError
from .table import Isa, lookup

BASE = 0x10000
_EXECUTABLE, _LOAD = 2, 1
_PROGBITS, _STRTAB = 1, 3
PF_X, PF_W, PF_R = 1, 2, 4


def code_address(isa: str | Isa, base: int = BASE) -> int:
    """Where the first byte of the code lies in a program made by `write_elf`."""
    return base + sum(_header_sizes(lookup(isa)))


def _header_sizes(row: Isa) -> tuple[int, int]:
    return (52, 32) if row.bits == 32 else (64, 56)


def _order(row: Isa) -> str:
    return "<" if row.endian == "little" else ">"


def _elf_header(row: Isa, kind: int, entry: int, program_headers: int, sections: tuple[int, int, int]) -> bytes:
    """The first 52 or 64 bytes; `sections` is (offset, number, index of the names)."""
    order = _order(row)
    header, program = _header_sizes(row)
    word = "I" if row.bits == 32 else "Q"
    identity = b"\x7fELF" + bytes([row.bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    section_size = (40 if row.bits == 32 else 64) if sections[1] else 0
    return identity + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        kind, row.machine, 1, entry, header if program_headers else 0, sections[0], row.elf_flags,
        header, program, program_headers, section_size, sections[1], sections[2],
    )  # fmt: skip


def write_elf(code: bytes, isa: str | Isa, *, base: int = BASE, entry: int = 0, flags: int = PF_R | PF_X) -> bytes:
    """Return a static program: two headers and `code`.

    Args:
        code: machine code and its data; it begins at ``code_address(isa)``.
        isa: an instruction set.
        base: address of the file's first byte.
        entry: offset in `code` where it starts.
        flags: what the segment allows: `PF_R`, `PF_W`, `PF_X`.

    Raises:
        UsageError: when the entry lies outside the code.
    """
    row = lookup(isa)
    if not 0 <= entry < len(code):
        raise UsageError(f"the entry {entry} lies outside the {len(code)} bytes of code")
    start, order = code_address(row, base), _order(row)
    size = start - base + len(code)
    head = _elf_header(row, _EXECUTABLE, start + entry, 1, (0, 0, 0))
    if row.bits == 32:
        segment = struct.pack(f"{order}8I", _LOAD, 0, base, base, size, size, flags, 0x10000)
    else:
        segment = struct.pack(f"{order}2I6Q", _LOAD, flags, 0, base, base, size, size, 0x10000)
    return head + segment + code


def with_sections(isa: str | Isa, sections: dict[str, bytes], *, code: str = ".text") -> bytes:
    """Return an ELF file that has named sections (for reading, not for running).

    Args:
        isa: an instruction set.
        sections: name to contents.
        code: the section that is marked as executable.
    """
    row = lookup(isa)
    order, header = _order(row), _header_sizes(row)[0]
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    body, entries = b"", [bytes(40 if row.bits == 32 else 64)]
    for name, content in {**sections, ".shstrtab": names}.items():
        body += bytes(-(header + len(body)) % 16)
        kind = _STRTAB if name == ".shstrtab" else _PROGBITS
        allowed = 6 if name == code else 2 if kind == _PROGBITS else 0
        at = header + len(body)
        where = 0x10000 + at if allowed else 0
        layout = "10I" if row.bits == 32 else "2I4Q2I2Q"
        fields = (names.index(b"\0" + name.encode() + b"\0") + 1, kind, allowed, where, at, len(content), 0, 0, 16, 0)
        entries.append(struct.pack(order + layout, *fields))
        body += content
    body += bytes(-(header + len(body)) % 16)
    table = (header + len(body), len(entries), len(entries) - 1)
    return _elf_header(row, 1, 0, 0, table) + body + b"".join(entries)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an ELF file says of itself.

    Attributes:
        machine: such as ``"EM_PPC"``.
        bits: 32 or 64.
        endian: ``"little"`` or ``"big"``.
        entry: address of the first instruction.
        interpreter: the dynamic loader that it asks for; None for a static program.
        sections: name to (offset in the file, size in bytes, executable or not).
    """

    machine: str
    bits: int
    endian: str
    entry: int
    interpreter: str | None
    sections: dict[str, tuple[int, int, bool]]


def facts(path: str | Path) -> Facts:
    """Read a file's ELF header, sections and interpreter with pyelftools.

    Raises:
        NotElfError: when it is no ELF file or ends too early.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - only readers need it
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        with Path(path).open("rb") as file:
            elf = ELFFile(file)
            loaders: list[Any] = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_INTERP"]
            interpreter = str(loaders[0].get_interp_name()) if loaders else None
            sections = {
                s.name: (s["sh_offset"], s["sh_size"], bool(s["sh_flags"] & 4)) for s in elf.iter_sections() if s.name
            }
            return Facts(
                elf["e_machine"], elf.elfclass, "little" if elf.little_endian else "big", elf["e_entry"], interpreter,
                sections,
            )  # fmt: skip
    except (ELFError, struct.error, UnicodeDecodeError, KeyError) as error:
        reason = str(error) or type(error).__name__
        raise NotElfError(f"{path} is not a complete ELF file: {reason}. It has to begin with 7f 45 4c 46.") from None
