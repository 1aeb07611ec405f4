"""PowerPC: every instruction is one 32-bit word.

::

    D-form   opcd(6) rD(5) rA(5) immediate(16)          addi, lwz, stw …
    XO-form  opcd(6) rD(5) rA(5) rB(5) OE XO(9) Rc      add, subf, mullw …
    I-form   opcd(6) offset(24) AA LK                   b, bl
    B-form   opcd(6) BO(5) BI(5) offset(14) AA LK       beq, bne, bdnz …

Source: Power ISA 2.07 book I, sections 1.6 and 3.3.
"""

from __future__ import annotations

from .fields import Kind, Row, Table, register
from .parse import CannotEncode, Place, fits, number

_NAMES = {f"r{n}": n for n in range(32)} | {str(n): n for n in range(32)} | {"sp": 1}


def _imm(bits: int, shift: int, *, signed: bool, what: str = "immediate") -> Kind:
    return lambda text, place: fits(number(text), bits, signed=signed, what=what) << shift


def _high(text: str, place: Place) -> int:
    value = number(text)
    return fits(value, 16, signed=value < 0, what="immediate")


def _branch(bits: int) -> Kind:
    def field(text: str, place: Place) -> int:
        distance = place.target(text) - place.address
        if distance % 4:
            raise CannotEncode(f"a branch goes to a multiple of 4 bytes; this distance is {distance}")
        return fits(distance, bits, signed=True, what="branch distance")

    return field


def _condition(text: str, place: Place) -> int:
    if not (text.startswith("cr") and text[2:].isdigit() and int(text[2:]) < 8):
        raise CannotEncode(f"{text!r} is not a condition register (cr0 to cr7)")
    return int(text[2:]) << 23


def _shift_left(text: str, place: Place) -> int:
    """Encode slwi rA,rS,n as rlwinm rA,rS,n,0,31-n."""
    n = fits(number(text), 5, signed=False, what="shift")
    return n << 11 | (31 - n) << 1


def _shift_right(text: str, place: Place) -> int:
    """Encode srwi rA,rS,n as rlwinm rA,rS,32-n,n,31."""
    n = fits(number(text), 5, signed=False, what="shift")
    return ((32 - n) & 31) << 11 | n << 6 | 31 << 1


def _double(text: str, place: Place) -> int:
    value = fits(number(text), 16, signed=True, what="offset")
    if value & 3:
        raise CannotEncode(f"the offset {number(text)} is not a multiple of 4")
    return value


def _spr(text: str, place: Place) -> int:
    n = fits(number(text), 10, signed=False)
    return (n & 31) << 16 | (n >> 5) << 11


_KINDS: dict[str, Kind] = {
    "d": register(_NAMES, 21),
    "a": register(_NAMES, 16),
    "b": register(_NAMES, 11),
    "s16": _imm(16, 0, signed=True),
    "u16": _imm(16, 0, signed=False),
    "hi": _high,
    "i26": _branch(26),
    "i16": _branch(16),
    "crf": _condition,
    "sh": _imm(5, 11, signed=False, what="shift"),
    "mb": _imm(5, 6, signed=False),
    "me": _imm(5, 1, signed=False),
    "slwi": _shift_left,
    "srwi": _shift_right,
    "ds": _double,
    "spr": _spr,
}


def _xo(code: int, record: int = 0) -> int:
    return 31 << 26 | code << 1 | record


def _mr(text: str, place: Place) -> int:
    return register(_NAMES, 21)(text, place) | register(_NAMES, 11)(text, place)


_KINDS["ss"] = _mr

_ROWS: dict[str, Row | tuple[Row, ...]] = {
    "addi": ("d a s16", 14 << 26),
    "addis": ("d a hi", 15 << 26),
    "addic": ("d a s16", 12 << 26),
    "li": ("d s16", 14 << 26),
    "lis": ("d hi", 15 << 26),
    "la": ("d s16 a", 14 << 26),
    "mulli": ("d a s16", 7 << 26),
    "subfic": ("d a s16", 8 << 26),
    "ori": ("a d u16", 24 << 26),
    "oris": ("a d u16", 25 << 26),
    "xori": ("a d u16", 26 << 26),
    "andi.": ("a d u16", 28 << 26),
    "nop": ("", 24 << 26),
    "cmpwi": (("a s16", 11 << 26), ("crf a s16", 11 << 26)),
    "cmplwi": (("a u16", 10 << 26), ("crf a u16", 10 << 26)),
    "cmpw": (("a b", _xo(0)), ("crf a b", _xo(0))),
    "cmplw": (("a b", _xo(32)), ("crf a b", _xo(32))),
    "add": ("d a b", _xo(266)),
    "add.": ("d a b", _xo(266, 1)),
    "subf": ("d a b", _xo(40)),
    "sub": ("d b a", _xo(40)),
    "neg": ("d a", _xo(104)),
    "mullw": ("d a b", _xo(235)),
    "divw": ("d a b", _xo(491)),
    "divwu": ("d a b", _xo(459)),
    "and": ("a d b", _xo(28)),
    "or": ("a d b", _xo(444)),
    "xor": ("a d b", _xo(316)),
    "mr": ("a ss", _xo(444)),
    "slw": ("a d b", _xo(24)),
    "srw": ("a d b", _xo(536)),
    "sraw": ("a d b", _xo(792)),
    "srawi": ("a d sh", _xo(824)),
    "slwi": ("a d slwi", 21 << 26),
    "srwi": ("a d srwi", 21 << 26),
    "rlwinm": ("a d sh mb me", 21 << 26),
    "lwz": ("d s16 a", 32 << 26),
    "lbz": ("d s16 a", 34 << 26),
    "lhz": ("d s16 a", 40 << 26),
    "lha": ("d s16 a", 42 << 26),
    "stw": ("d s16 a", 36 << 26),
    "stwu": ("d s16 a", 37 << 26),
    "stb": ("d s16 a", 38 << 26),
    "sth": ("d s16 a", 44 << 26),
    "ld": ("d ds a", 58 << 26),
    "std": ("d ds a", 62 << 26),
    "b": ("i26", 18 << 26),
    "bl": ("i26", 18 << 26 | 1),
    "blr": ("", 0x4E800020),
    "bctr": ("", 0x4E800420),
    "sc": ("", 0x44000002),
    "mflr": ("d", _xo(339) | 8 << 16),
    "mtlr": ("d", _xo(467) | 8 << 16),
    "mfctr": ("d", _xo(339) | 9 << 16),
    "mtctr": ("d", _xo(467) | 9 << 16),
    "bdnz": ("i16", 16 << 26 | 16 << 21),
    "trap": ("", 0x7FE00008),
}
for _name, _bo, _bi in (
    ("beq", 12, 2), ("bne", 4, 2), ("blt", 12, 0), ("bge", 4, 0), ("bgt", 12, 1), ("ble", 4, 1),
):  # fmt: skip
    _ROWS[_name] = (("i16", 16 << 26 | _bo << 21 | _bi << 16), ("bif i16", 16 << 26 | _bo << 21 | _bi << 16))


def _bi_field(text: str, place: Place) -> int:
    return _condition(text, place) >> 23 << 18


_KINDS["bif"] = _bi_field

big = Table(_KINDS, _ROWS, "big")
little = Table(_KINDS, _ROWS, "little")
