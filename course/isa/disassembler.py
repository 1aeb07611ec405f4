"""Machine code back to text, by capstone."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Iterator
from typing import Any

from .table import Isa, lookup


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One decoded instruction.

    Attributes:
        address: where it lies.
        code: its bytes, in memory order.
        mnemonic: such as ``"addi"``.
        operands: such as ``"r3, r3, 1"``.
    """

    address: int
    code: bytes
    mnemonic: str
    operands: str

    def __str__(self) -> str:
        return f"{self.address:#08x}  {self.code.hex(' '):<{max(12, 3 * len(self.code))}} {self.text}"

    @property
    def text(self) -> str:
        """Mnemonic and operands."""
        return f"{self.mnemonic} {self.operands}".strip()


class Listing(tuple[Instruction, ...]):
    """Instructions one below the other, shown as a column."""

    def __repr__(self) -> str:
        width = max((3 * len(i.code) for i in self), default=0)
        return "\n".join(f"{i.address:#08x}  {i.code.hex(' '):<{width}} {i.text}" for i in self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """A column in notebooks too."""
        return {"text/plain": repr(self), "text/html": f"<pre>{html.escape(repr(self))}</pre>"}


@functools.lru_cache
def _engine(name: str) -> Any:
    import capstone  # noqa: PLC0415 - loads a shared library

    arch, *modes = lookup(name).capstone
    return capstone.Cs(getattr(capstone, arch), sum(getattr(capstone, mode) for mode in modes))


def decode(code: bytes, isa: str | Isa, address: int = 0x10000) -> Iterator[Instruction]:
    """Yield instructions one after the other; ends silently at the first bytes that are none (as capstone does)."""
    at = 0
    for where, size, mnemonic, operands in _engine(lookup(isa).name).disasm_lite(bytes(code), address):
        yield Instruction(where, bytes(code[at : at + size]), mnemonic, operands)
        at += size


def disassemble(code: bytes, isa: str | Isa, address: int = 0x10000) -> Listing:
    """Decode from the first byte on, one instruction after the other (a linear sweep).

    Args:
        code: machine code.
        isa: its instruction set.
        address: where the first byte lies.

    Returns:
        The instructions; it ends at the first bytes that are no instruction, which are then shown as ``.byte``.
    """
    found = list(decode(code, isa, address))
    done = sum(len(i.code) for i in found)
    rest = bytes(code[done:])
    if rest:
        numbers = ", ".join(f"{b:#04x}" for b in rest[:8]) + (", …" if len(rest) > 8 else "")
        found.append(Instruction(address + done, rest[:8], ".byte", numbers))
    return Listing(found)
