"""RISC-V, RV32IM and RV64IM: words of 32 bits, immediates with their bits shuffled.

::

    R   funct7 rs2 rs1 funct3 rd opcode          add, sub, mul …
    I   imm[11:0]      rs1 funct3 rd opcode      addi, lw, jalr …
    S   imm[11:5] rs2 rs1 funct3 imm[4:0] opcode
    B   imm[12|10:5] rs2 rs1 funct3 imm[4:1|11] opcode
    U   imm[31:12] rd opcode
    J   imm[20|10:1|11|19:12] rd opcode

``li`` and ``la`` may take two words; all the rest is one.

Source: The RISC-V Instruction Set Manual, volume I, chapters 2 and 24.
"""

from __future__ import annotations

from ..table import ISAS
from .fields import Kind, Row, Table, register
from .parse import CannotEncode, Place, fits, number

_NAMES = {name: at for at, name in enumerate(ISAS["riscv64"].registers[:32])}
_NAMES |= {f"x{n}": n for n in range(32)} | {"fp": 8}
_CSR = {"sstatus": 0x100, "satp": 0x180, "mstatus": 0x300, "mtvec": 0x305, "mepc": 0x341, "mcause": 0x342,
        "mhartid": 0xF14, "cycle": 0xC00, "time": 0xC01, "instret": 0xC02}  # fmt: skip


def _i_immediate(text: str, place: Place) -> int:
    return fits(number(text), 12, signed=True, what="immediate") << 20


def _s_immediate(text: str, place: Place) -> int:
    value = fits(number(text), 12, signed=True, what="offset")
    return (value >> 5) << 25 | (value & 31) << 7


def _distance(text: str, place: Place, bits: int) -> int:
    distance = place.target(text) - place.address
    if distance % 2:
        raise CannotEncode(f"a branch goes to a multiple of 2 bytes; this distance is {distance}")
    return fits(distance, bits, signed=True, what="branch distance")


def _b_immediate(text: str, place: Place) -> int:
    d = _distance(text, place, 13)
    return (d >> 12 & 1) << 31 | (d >> 5 & 63) << 25 | (d >> 1 & 15) << 8 | (d >> 11 & 1) << 7


def _j_immediate(text: str, place: Place) -> int:
    d = _distance(text, place, 21)
    return (d >> 20 & 1) << 31 | (d >> 1 & 1023) << 21 | (d >> 11 & 1) << 20 | (d >> 12 & 255) << 12


def _u_immediate(text: str, place: Place) -> int:
    value = number(text)
    return fits(value, 20, signed=value < 0, what="immediate") << 12


def _shift(text: str, place: Place) -> int:
    return fits(number(text), 6, signed=False, what="shift") << 20


def _csr(text: str, place: Place) -> int:
    return _CSR[text] << 20 if text in _CSR else fits(number(text), 12, signed=False, what="CSR") << 20


_KINDS: dict[str, Kind] = {
    "rd": register(_NAMES, 7), "rs1": register(_NAMES, 15), "rs2": register(_NAMES, 20), "i": _i_immediate,
    "s": _s_immediate, "bi": _b_immediate, "ji": _j_immediate, "u": _u_immediate, "sh": _shift, "csr": _csr,
}  # fmt: skip
_R = {
    "add": (0, 0), "sub": (0x20, 0), "sll": (0, 1), "slt": (0, 2), "sltu": (0, 3), "xor": (0, 4), "srl": (0, 5),
    "sra": (0x20, 5), "or": (0, 6), "and": (0, 7), "mul": (1, 0), "mulh": (1, 1), "mulhu": (1, 3), "div": (1, 4),
    "divu": (1, 5), "rem": (1, 6), "remu": (1, 7),
}  # fmt: skip
_RW = {"addw": (0, 0), "subw": (0x20, 0), "sllw": (0, 1), "srlw": (0, 5), "sraw": (0x20, 5), "mulw": (1, 0)}
_I = {"addi": 0, "slti": 2, "sltiu": 3, "xori": 4, "ori": 6, "andi": 7}
_LOADS = {"lb": 0, "lh": 1, "lw": 2, "ld": 3, "lbu": 4, "lhu": 5, "lwu": 6}
_STORES = {"sb": 0, "sh": 1, "sw": 2, "sd": 3}
_BRANCHES = {"beq": 0, "bne": 1, "blt": 4, "bge": 5, "bltu": 6, "bgeu": 7}

_ROWS: dict[str, Row | tuple[Row, ...]] = {
    "slli": ("rd rs1 sh", 1 << 12 | 0x13), "srli": ("rd rs1 sh", 5 << 12 | 0x13),
    "srai": ("rd rs1 sh", 1 << 30 | 5 << 12 | 0x13), "slliw": ("rd rs1 sh", 1 << 12 | 0x1B),
    "srliw": ("rd rs1 sh", 5 << 12 | 0x1B), "sraiw": ("rd rs1 sh", 1 << 30 | 5 << 12 | 0x1B),
    "addiw": ("rd rs1 i", 0x1B), "lui": ("rd u", 0x37), "auipc": ("rd u", 0x17),
    "jal": (("rd ji", 0x6F), ("ji", 1 << 7 | 0x6F)),
    "jalr": (("rd rs1 i", 0x67), ("rd i rs1", 0x67), ("rs1", 1 << 7 | 0x67)),
    "j": ("ji", 0x6F), "call": ("ji", 1 << 7 | 0x6F), "jr": ("rs1", 0x67), "ret": ("", 0x8067),
    "nop": ("", 0x13), "mv": ("rd rs1", 0x13), "sext.w": ("rd rs1", 0x1B), "neg": ("rd rs2", 0x20 << 25 | 0x33),
    "not": ("rd rs1", 0xFFF << 20 | 4 << 12 | 0x13), "seqz": ("rd rs1", 1 << 20 | 3 << 12 | 0x13),
    "snez": ("rd rs2", 3 << 12 | 0x33), "beqz": ("rs1 bi", 0x63), "bnez": ("rs1 bi", 1 << 12 | 0x63),
    "ecall": ("", 0x73), "ebreak": ("", 0x100073), "fence.i": ("", 0x100F), "wfi": ("", 0x10500073),
    "csrr": ("rd csr", 2 << 12 | 0x73), "csrw": ("csr rs1", 1 << 12 | 0x73),
}  # fmt: skip
_ROWS |= {name: ("rd rs1 rs2", f7 << 25 | f3 << 12 | 0x33) for name, (f7, f3) in _R.items()}
_ROWS |= {name: ("rd rs1 rs2", f7 << 25 | f3 << 12 | 0x3B) for name, (f7, f3) in _RW.items()}
_ROWS |= {name: ("rd rs1 i", f3 << 12 | 0x13) for name, f3 in _I.items()}
_ROWS |= {name: ("rd i rs1", f3 << 12 | 0x03) for name, f3 in _LOADS.items()}
_ROWS |= {name: ("rs2 s rs1", f3 << 12 | 0x23) for name, f3 in _STORES.items()}
_ROWS |= {name: ("rs1 rs2 bi", f3 << 12 | 0x63) for name, f3 in _BRANCHES.items()}

_ONLY_64 = {*_RW, "ld", "sd", "lwu", "addiw", "slliw", "srliw", "sraiw", "sext.w"}
_words = Table(_KINDS, _ROWS, "little")


def _pair(mnemonic: str, texts: list[str], place: Place, bits: int) -> bytes:
    """``li rd, number`` and ``la rd, label``: an upper part and a signed lower part of 12 bits."""
    if len(texts) != 2:
        raise CannotEncode(f"{mnemonic} takes 2 operands, {len(texts)} were given")
    rd, text = texts
    value = place.target(text) - (place.address if mnemonic == "la" else 0)
    if mnemonic == "li" and -2048 <= value < 2048:
        return _words("addi", [rd, "zero", str(value)], place)
    if not -(1 << 31) <= value < 1 << (31 if bits == 64 else 32):
        raise CannotEncode(f"{value} needs more than one lui and one addi; build it from two parts with slli")
    high, low = (value + 0x800) >> 12 & 0xFFFFF, ((value & 0xFFF) ^ 0x800) - 0x800
    first = _words("auipc" if mnemonic == "la" else "lui", [rd, str(high)], place)
    narrow = "addiw" if bits == 64 and mnemonic == "li" else "addi"
    return first + _words(narrow, [rd, rd, str(low)], place)


def rv32(mnemonic: str, texts: list[str], place: Place) -> bytes:
    """Encode one RV32IM instruction."""
    if mnemonic in _ONLY_64:
        raise CannotEncode(f"{mnemonic} exists only on 64-bit RISC-V")
    if mnemonic in ("slli", "srli", "srai") and len(texts) == 3:
        fits(number(texts[2]), 5, signed=False, what="shift")
    return _pair(mnemonic, texts, place, 32) if mnemonic in ("li", "la") else _words(mnemonic, texts, place)


def rv64(mnemonic: str, texts: list[str], place: Place) -> bytes:
    """Encode one RV64IM instruction."""
    return _pair(mnemonic, texts, place, 64) if mnemonic in ("li", "la") else _words(mnemonic, texts, place)
