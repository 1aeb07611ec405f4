"""Arm 64: words of 32 bits, little endian; bit 31 chooses 64-bit (x) or 32-bit (w) registers.

::

    add/sub (shifted register)   sf op S 01011 shift(2) 0 Rm imm6 Rn Rd
    add/sub (immediate)          sf op S 100010 sh imm12 Rn Rd
    madd                         sf 0011011000 Rm 0 Ra Rn Rd
    movz/movk/movn               sf opc 100101 hw(2) imm16 Rd
    ldr/str (unsigned offset)    size 111001 opc imm12 Rn Rt

Source: Arm Architecture Reference Manual for A-profile, chapter C4.
"""

from __future__ import annotations

import re

from .fields import unknown
from .parse import CannotEncode, Place, fits, number

_CONDITIONS = ["eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al"]
_SHIFTS = {"lsl": 0, "lsr": 1, "asr": 2}
_ADD_SUB = {"add": 0, "adds": 1, "sub": 2, "subs": 3}  # op and S
_LOGIC = {"and": 0, "orr": 1, "eor": 2, "ands": 3}
_FIXED = {"ret": 0xD65F03C0, "nop": 0xD503201F}
_TWO_SOURCE = {"udiv": 2, "sdiv": 3, "lslv": 8, "lsrv": 9}
_LOADS = {"ldr": (2, 1), "str": (2, 0), "ldrb": (0, 1), "strb": (0, 0), "ldrh": (1, 1), "strh": (1, 0)}
_KNOWN = [*_ADD_SUB, *_LOGIC, *_FIXED, *_TWO_SOURCE, *_LOADS, *_SHIFTS, "mov", "movz", "movk", "movn", "mul", "madd",
          "msub", "neg", "cmp", "b", "bl", "cbz", "cbnz", "svc", "adr", "br",
          *(f"b.{c}" for c in _CONDITIONS)]  # fmt: skip


def _register(text: str, *, stack: bool = False) -> tuple[int, int]:
    """(number, 1 for x or 0 for w); 31 is the zero register, or sp where an instruction allows it."""
    name = text.lower()
    if name in ("sp", "wsp"):
        if not stack:
            raise CannotEncode("sp cannot stand here")
        return 31, int(name == "sp")
    if name in ("xzr", "wzr"):
        return 31, int(name[0] == "x")
    name = {"lr": "x30", "fp": "x29"}.get(name, name)
    if not re.fullmatch(r"[xw](\d|[12]\d|30)", name):
        raise CannotEncode(f"{text!r} is not a register of this instruction set (x0 to x30, w0 to w30, xzr, wzr, sp)")
    return int(name[1:]), int(name[0] == "x")


def _registers(texts: list[str], *, stack: bool = False) -> tuple[list[int], int]:
    """Numbers of registers that have to be of one width, and that width's bit."""
    pairs = [_register(text, stack=stack) for text in texts]
    if len({wide for _, wide in pairs}) > 1:
        raise CannotEncode(f"{', '.join(texts)}: w and x registers cannot be mixed here")
    return [n for n, _ in pairs], pairs[0][1]


def _is_number(text: str) -> bool:
    return bool(re.match(r"#|-|\d|'", text))


def _shift(texts: list[str]) -> tuple[int, int]:
    """Read an optional ``lsl #3``: (type, amount)."""
    if not texts:
        return 0, 0
    name, _, amount = texts[0].partition(" ")
    if name not in _SHIFTS:
        raise CannotEncode(f"{texts[0]!r} is not a shift (lsl #n, lsr #n, asr #n)")
    return _SHIFTS[name], number(amount)


def _need(texts: list[str], *counts: int) -> None:
    if len(texts) not in counts:
        raise CannotEncode(f"{' or '.join(map(str, counts))} operands were expected, {len(texts)} were given")


def _add_sub(op: int, texts: list[str]) -> int:
    _need(texts, 3, 4)
    if _is_number(texts[2]):
        (rd, rn), wide = _registers(texts[:2], stack=True)
        value = number(texts[2])
        if value < 0:
            op, value = op ^ 2, -value
        imm = fits(value, 12, signed=False, what="immediate")
        high = int(len(texts) == 4 and _shift(texts[3:]) == (0, 12))
        return wide << 31 | op << 29 | 0b100010 << 23 | high << 22 | imm << 10 | rn << 5 | rd
    (rd, rn, rm), wide = _registers(texts[:3], stack="sp" in texts[:2])
    kind, amount = _shift(texts[3:])
    if "sp" in texts[:2]:  # the extended form, uxtx
        return wide << 31 | op << 29 | 0b01011001 << 21 | rm << 16 | 0b011 << 13 | amount << 10 | rn << 5 | rd
    amount = fits(amount, 6 if wide else 5, signed=False, what="shift")
    return wide << 31 | op << 29 | 0b01011 << 24 | kind << 22 | rm << 16 | amount << 10 | rn << 5 | rd


def _logic(op: int, texts: list[str]) -> int:
    _need(texts, 3, 4)
    if _is_number(texts[2]):
        raise CannotEncode("bitwise operations with a number are not known to this small assembler; use mov first")
    (rd, rn, rm), wide = _registers(texts[:3])
    kind, amount = _shift(texts[3:])
    return wide << 31 | op << 29 | 0b01010 << 24 | kind << 22 | rm << 16 | amount << 10 | rn << 5 | rd


def _shift_instruction(name: str, texts: list[str]) -> int:
    _need(texts, 3)
    if not _is_number(texts[2]):
        (rd, rn, rm), wide = _registers(texts)
        code = {"lsl": 8, "lsr": 9, "asr": 10}[name]
        return wide << 31 | 0b0011010110 << 21 | rm << 16 | code << 10 | rn << 5 | rd
    (rd, rn), wide = _registers(texts[:2])
    size = 64 if wide else 32
    n = fits(number(texts[2]), 6 if wide else 5, signed=False, what="shift")
    immr, imms = ((-n) % size, size - 1 - n) if name == "lsl" else (n, size - 1)
    opc = 0 if name == "asr" else 2
    return wide << 31 | opc << 29 | 0b100110 << 23 | wide << 22 | immr << 16 | imms << 10 | rn << 5 | rd


def _mov(texts: list[str]) -> int:
    _need(texts, 2)
    if not _is_number(texts[1]):
        if "sp" in texts:
            (rd, rn), wide = _registers(texts, stack=True)
            return wide << 31 | 0b100010 << 23 | rn << 5 | rd
        (rd, rm), wide = _registers(texts)
        return wide << 31 | 1 << 29 | 0b01010 << 24 | rm << 16 | 31 << 5 | rd
    rd, wide = _register(texts[0])
    value = number(texts[1])
    opc, value = (0, ~value) if value < 0 else (2, value)
    for half in range(4 if wide else 2):
        if value == (value & 0xFFFF << 16 * half):
            return wide << 31 | opc << 29 | 0b100101 << 23 | half << 21 | (value >> 16 * half) << 5 | rd
    raise CannotEncode(f"{number(texts[1])} does not fit in one mov; use movz and movk")


def _mov_wide(opc: int, texts: list[str]) -> int:
    _need(texts, 2, 3)
    rd, wide = _register(texts[0])
    imm = fits(number(texts[1]), 16, signed=False, what="immediate")
    kind, amount = _shift(texts[2:])
    if kind or amount % 16 or amount > (48 if wide else 16):
        raise CannotEncode("the shift has to be lsl #0, #16, #32 or #48")
    return wide << 31 | opc << 29 | 0b100101 << 23 | amount // 16 << 21 | imm << 5 | rd


def _multiply(name: str, texts: list[str]) -> int:
    _need(texts, 3 if name == "mul" else 4)
    numbers, wide = _registers([*texts, "xzr" if texts[0].startswith("x") else "wzr"][:4])
    rd, rn, rm, ra = numbers
    return wide << 31 | 0b0011011000 << 21 | rm << 16 | int(name == "msub") << 15 | ra << 10 | rn << 5 | rd


def _address(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\[\s*(\w+)\s*(?:,\s*(#?-?\w+)\s*)?\]", text)
    if not found:
        raise CannotEncode(f"{text!r} is not an address such as [sp, #8]")
    base, wide = _register(found[1], stack=True)
    if not wide:
        raise CannotEncode("an address register is an x register or sp")
    return base, number(found[2]) if found[2] else 0


def _memory(name: str, texts: list[str]) -> int:
    _need(texts, 2, 3)
    rt, wide = _register(texts[0])
    size, load = _LOADS[name]
    size += wide if name in ("ldr", "str") else 0
    if len(texts) == 3 or texts[1].endswith("!"):  # post- and pre-index, as in str x30, [sp, #-16]!
        base, offset = _address(texts[1].rstrip("!"))
        post = len(texts) == 3
        imm = fits(number(texts[2]) if post else offset, 9, signed=True, what="offset")
        return size << 30 | 0b111000 << 24 | load << 22 | imm << 12 | (1 if post else 3) << 10 | base << 5 | rt
    base, offset = _address(texts[1])
    if offset % (1 << size):
        raise CannotEncode(f"the offset {offset} is not a multiple of {1 << size}")
    imm = fits(offset >> size, 12, signed=False, what="offset")
    return size << 30 | 0b111001 << 24 | load << 22 | imm << 10 | base << 5 | rt


def _branch_distance(text: str, place: Place, bits: int) -> int:
    distance = place.target(text) - place.address
    if distance % 4:
        raise CannotEncode(f"a branch goes to a multiple of 4 bytes; this distance is {distance}")
    return fits(distance >> 2, bits, signed=True, what="branch distance (in words)")


def _adr(texts: list[str], place: Place) -> int:
    rd, _ = _register(texts[0])
    d = fits(place.target(texts[1]) - place.address, 21, signed=True, what="distance")
    return (d & 3) << 29 | 0b10000 << 24 | (d >> 2) << 5 | rd


def _branch(name: str, texts: list[str], place: Place) -> int:
    if name in ("cbz", "cbnz"):
        _need(texts, 2)
        rt, wide = _register(texts[0])
        return wide << 31 | 0b011010 << 25 | int(name == "cbnz") << 24 | _branch_distance(texts[1], place, 19) << 5 | rt
    _need(texts, 1)
    if name == "br":
        return 0xD61F0000 | _register(texts[0])[0] << 5
    if name in ("b", "bl"):
        return int(name == "bl") << 31 | 0b000101 << 26 | _branch_distance(texts[0], place, 26)
    return 0x54000000 | _branch_distance(texts[0], place, 19) << 5 | _CONDITIONS.index(name[2:])


def _word(name: str, texts: list[str], place: Place) -> int:  # noqa: PLR0911, PLR0912 - one line per family
    if name in _FIXED:
        _need(texts, 0)
        return _FIXED[name]
    if name in _ADD_SUB:
        return _add_sub(_ADD_SUB[name], texts)
    if name in _LOGIC:
        return _logic(_LOGIC[name], texts)
    if name in _SHIFTS:
        return _shift_instruction(name, texts)
    if name in _LOADS:
        return _memory(name, texts)
    if name == "mov":
        return _mov(texts)
    if name in ("movn", "movz", "movk"):
        return _mov_wide({"movn": 0, "movz": 2, "movk": 3}[name], texts)
    if name in ("mul", "madd", "msub"):
        return _multiply(name, texts)
    if name in _TWO_SOURCE:
        _need(texts, 3)
        (rd, rn, rm), wide = _registers(texts)
        return wide << 31 | 0b0011010110 << 21 | rm << 16 | _TWO_SOURCE[name] << 10 | rn << 5 | rd
    zero = "xzr" if texts and texts[0].startswith("x") else "wzr"
    if name == "neg":
        return _add_sub(2, [texts[0], zero, *texts[1:]]) if len(texts) > 1 else _add_sub(2, texts)
    if name == "cmp":
        return _add_sub(3, [zero, *texts]) if not (len(texts) == 2 and _is_number(texts[1])) else _compare(texts)
    if name == "svc":
        return 0xD4000001 | fits(number(texts[0]) if texts else 0, 16, signed=False) << 5
    if name == "adr":
        _need(texts, 2)
        return _adr(texts, place)
    if name in _KNOWN:
        return _branch(name, texts, place)
    raise CannotEncode(unknown(name, _KNOWN))


def _compare(texts: list[str]) -> int:
    """Encode cmp: with a number it is subs into the zero register."""
    (rn,), wide = _registers(texts[:1], stack=True)
    value = number(texts[1])
    op = 1 if value < 0 else 3
    return wide << 31 | op << 29 | 0b100010 << 23 | fits(abs(value), 12, signed=False) << 10 | rn << 5 | 31


def encode(mnemonic: str, texts: list[str], place: Place) -> bytes:
    """Encode one instruction (the driver's `encode`)."""
    return _word(mnemonic, texts, place).to_bytes(4, "little")
