"""Three decoders with one fault each: the bug hunt's suspects. Each is right on nearly every word.

All get one instruction word, as 4 bytes in memory order, and return a tuple as `decode_fixed` does, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Decoded = tuple[str | int, ...] | None


def suspect_addi(word: bytes) -> Decoded:
    """Decode PowerPC addi rD, rA, immediate."""
    value = int.from_bytes(word, "big")
    if value >> 26 != 14:
        return None
    immediate = value & 0xFFFF
    if immediate > 0x8000:
        immediate -= 0x10000
    return ("addi", value >> 21 & 31, value >> 16 & 31, immediate)


def suspect_beq(word: bytes) -> Decoded:
    """Decode RISC-V beq rs1, rs2, offset."""
    value = int.from_bytes(word, "little")
    if value & 0x7F != 0x63 or value >> 12 & 7 != 0:
        return None
    offset = (value >> 8 & 0xF) << 1 | (value >> 25 & 0x3F) << 5 | (value >> 31) << 12
    if offset >> 12:
        offset -= 1 << 13
    return ("beq", value >> 15 & 31, value >> 20 & 31, offset)


def suspect_add(word: bytes) -> Decoded:
    """Decode PowerPC add rD, rA, rB."""
    value = int.from_bytes(word, "big")
    if value >> 26 != 31 or value >> 1 & 0x1FF != 266:
        return None
    return ("add", value >> 21 & 31, value >> 16 & 31, value >> 11 & 31)


SUSPECTS: Mapping[str, Callable[[bytes], Decoded]] = {
    "addi": suspect_addi,
    "beq": suspect_beq,
    "add": suspect_add,
}
