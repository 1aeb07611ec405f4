"""A patcher with a flaw, for the bug hunt of lesson 7. Do not copy from it."""

from __future__ import annotations

from typing import Any

from ..isa.disassembler import decode
from .cpu import START

_SENSITIVE = {"pushfq", "popfq", "sgdt", "sidt", "sldt", "str", "smsw"}


def sweep(code: bytes, base: int = START) -> dict[str, Any]:
    """Patch a guest: decode from the first byte to the last, replace each sensitive instruction by int3 and nops.

    Args:
        code: the guest's image.
        base: where it will lie.

    Returns:
        ``"code"``, as long as before, and ``"table"``: address → the bytes that stood there.
    """
    patched, table = bytearray(code), {}
    at = 0
    while at < len(code):
        instruction = next(decode(code[at : at + 15], "x86_64", base + at), None)
        if instruction is None:  # no instruction begins here: try the next byte
            at += 1
            continue
        size = len(instruction.code)
        from_cs = instruction.mnemonic == "mov" and instruction.operands.endswith(", cs")
        if instruction.mnemonic in _SENSITIVE or from_cs:
            table[base + at] = bytes(code[at : at + size])
            patched[at : at + size] = b"\xcc" + b"\x90" * (size - 1)
        at += size
    return {"code": bytes(patched), "table": table}
