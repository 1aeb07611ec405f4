"""x86 and x86-64: instructions of 1 to 15 bytes.

::

    [66] [REX] opcode(1-2) [ModRM [SIB] [disp8|disp32]] [imm8|imm16|imm32]

    ModRM   mod(2) reg(3) rm(3)        SIB   scale(2) index(3) base(3)
    REX     0100 W R X B               only on x86-64: 64-bit operands and registers r8 to r15

Intel order: destination first. Operands are registers of 32 or 64 bits, numbers, and addresses such as
``dword [rdi + rsi*4 + 8]``; 8- and 16-bit registers are left out, 8- and 16-bit stores of numbers are not.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapters 2 to 5.
"""

from __future__ import annotations

import dataclasses
import re

from .fields import unknown
from .parse import CannotEncode, Place, fits

_32 = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"]
_64 = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
_REGISTERS = {name: (at, 32) for at, name in enumerate(_32)} | {name: (at, 64) for at, name in enumerate(_64)}
_REGISTERS |= {f"r{n}": (n, 64) for n in range(8, 16)} | {f"r{n}d": (n, 32) for n in range(8, 16)}
_SIZES = {"byte": 8, "word": 16, "dword": 32, "qword": 64}
_ARITHMETIC = {"add": 0, "or": 1, "adc": 2, "sbb": 3, "and": 4, "sub": 5, "xor": 6, "cmp": 7}
_SHIFTS = {"rol": 0, "ror": 1, "shl": 4, "sal": 4, "shr": 5, "sar": 7}
_UNARY = {"not": 2, "neg": 3, "mul": 4, "div": 6, "idiv": 7}
_CODES = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]
_CONDITIONS = {f"j{code}": at for at, code in enumerate(_CODES)} | {"jz": 4, "jnz": 5, "jc": 2, "jnc": 3}
_FIXED = {"ret": "c3", "nop": "90", "leave": "c9", "cdq": "99", "hlt": "f4", "int3": "cc", "clc": "f8", "stc": "f9",
          "cmc": "f5", "cld": "fc", "pushf": "9c", "popf": "9d", "cli": "fa", "sti": "fb"}  # fmt: skip
_KNOWN = [*_ARITHMETIC, *_SHIFTS, *_UNARY, *_CONDITIONS, *_FIXED, "mov", "lea", "imul", "inc", "dec", "push", "pop",
          "jmp", "call", "test", "int", "syscall", "xchg", "loop"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Register:
    """A register: its number, 0 to 15, and its size in bits."""

    number: int
    bits: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """An address ``[base + index*scale + displacement]``; `bits` is 0 when no size was written."""

    base: Register | None
    index: Register | None
    scale: int
    displacement: int
    bits: int


Operand = Register | Memory | int


def _operand(text: str, place: Place, mode: int) -> Operand:
    name = text.lower().lstrip("%")
    if name in _REGISTERS:
        return _register(name, mode)
    if found := re.fullmatch(r"(?:(byte|word|dword|qword)\s+)?(?:ptr\s+)?\[(.*)\]", name):
        return _memory(found[2], _SIZES.get(found[1] or "", 0), place, mode)
    if re.fullmatch(r"[a-d][lhx]|[sd]il?|[bs]pl?|r\d+[bw]", name):
        raise CannotEncode(f"{text!r}: this small assembler knows the registers of 32 and 64 bits only")
    return place.target(text)


def _register(name: str, mode: int) -> Register:
    at, bits = _REGISTERS[name]
    if mode == 32 and (bits == 64 or at > 7):
        raise CannotEncode(f"{name} exists only on x86-64")
    return Register(at, bits)


def _memory(text: str, bits: int, place: Place, mode: int) -> Memory:
    plain: list[Register] = []
    scaled: list[tuple[Register, int]] = []
    displacement = 0
    for sign, term in re.findall(r"([+-]?)\s*([^+\-\s][^+\-]*)", text):
        if "*" in term:
            scaled.append(_scaled(term, text, mode))
        elif term.strip() in _REGISTERS:
            plain.append(_register(term.strip(), mode))
        else:
            value = place.target(term.strip())
            displacement += -value if sign == "-" else value
    if len(plain) + len(scaled) > 2 or len(scaled) > 1:
        raise CannotEncode(f"[{text}] has more than a base and one scaled register")
    if any(r.bits != mode for r in [*plain, *(r for r, _ in scaled)]):
        raise CannotEncode(f"an address on this processor uses {mode}-bit registers")
    if len(plain) == 2:
        if plain[1].number == 4:  # the stack pointer can only be a base
            plain.reverse()
        scaled = [(plain.pop(), 1)]
    index, scale = scaled[0] if scaled else (None, 1)
    if index is not None and index.number == 4:
        raise CannotEncode("the stack pointer cannot be scaled")
    return Memory(plain[0] if plain else None, index, scale, displacement, bits)


def _scaled(term: str, text: str, mode: int) -> tuple[Register, int]:
    """Read ``rsi*4`` or ``4*rsi``."""
    left, _, right = (part.strip() for part in term.partition("*"))
    if left not in _REGISTERS:
        left, right = right, left
    if left not in _REGISTERS or right not in ("1", "2", "4", "8"):
        raise CannotEncode(f"in [{text}] a register can be scaled by 1, 2, 4 or 8 only")
    return _register(left, mode), int(right)


def _rm_bytes(reg: int, rm: Register | Memory, mode: int) -> tuple[int, bytes]:
    """ModRM, SIB and displacement; also the R, X and B bits of a REX prefix."""
    rex = (reg >> 3) << 2
    reg = (reg & 7) << 3
    if isinstance(rm, Register):
        return rex | rm.number >> 3, bytes([0xC0 | reg | rm.number & 7])
    if rm.base is None and rm.index is None:
        where = fits(rm.displacement, 32, signed=rm.displacement < 0, what="address").to_bytes(4, "little")
        return rex, (bytes([reg | 4, 0x25]) if mode == 64 else bytes([reg | 5])) + where
    small = -128 <= rm.displacement < 128
    if rm.base is None:
        mod, displacement_bytes = 0, 4
    elif rm.displacement == 0 and rm.base.number & 7 != 5:
        mod, displacement_bytes = 0, 0
    else:
        mod, displacement_bytes = (1, 1) if small else (2, 4)
    field = fits(rm.displacement, 8 * displacement_bytes, signed=True) if displacement_bytes else 0
    tail = field.to_bytes(displacement_bytes, "little")
    base = 5 if rm.base is None else rm.base.number
    if rm.index is None and base & 7 != 4:
        return rex | base >> 3, bytes([mod << 6 | reg | base & 7]) + tail
    index = 4 if rm.index is None else rm.index.number
    sib = {1: 0, 2: 1, 4: 2, 8: 3}[rm.scale] << 6 | (index & 7) << 3 | base & 7
    return rex | (index >> 3) << 1 | base >> 3, bytes([mod << 6 | reg | 4, sib]) + tail


def _instruction(opcode: str, reg: int, rm: Register | Memory, bits: int, mode: int) -> bytes:
    if bits == 64 and mode == 32:
        raise CannotEncode("operands of 64 bits exist only on x86-64")
    rex, rest = _rm_bytes(reg, rm, mode)
    rex |= 8 if bits == 64 else 0
    return (b"\x66" if bits == 16 else b"") + (bytes([0x40 | rex]) if rex else b"") + bytes.fromhex(opcode) + rest


def _immediate(value: int, bits: int) -> bytes:
    """An immediate: 1, 2 or 4 bytes; with 64-bit operands it is sign-extended from 4."""
    width = min(bits, 32)
    signed = value < 0 or bits == 64
    return fits(value, width, signed=signed, what="immediate").to_bytes(width // 8, "little")


def _size(*given: Operand) -> int:
    sizes = {op.bits for op in given if isinstance(op, Register)}
    if len(sizes) > 1:
        raise CannotEncode("registers of 32 and 64 bits cannot be mixed here")
    sizes |= {op.bits for op in given if isinstance(op, Memory) and op.bits}
    if len(sizes) > 1:
        raise CannotEncode("the operands have different sizes")
    if not sizes:
        raise CannotEncode("how many bytes? write byte, word, dword or qword before the bracket")
    return sizes.pop()


def _mov_number(left: Register | Memory, right: int, bits: int, mode: int) -> bytes:
    if isinstance(left, Register) and bits == 64 and not -(1 << 31) <= right < 1 << 31:
        prefix = bytes([0x48 | left.number >> 3, 0xB8 | left.number & 7])
        return prefix + fits(right, 64, signed=right < 0).to_bytes(8, "little")
    if isinstance(left, Register) and bits == 32:
        prefix = b"\x41" if left.number > 7 else b""
        return prefix + bytes([0xB8 | left.number & 7]) + _immediate(right, 32)
    return _instruction("c6" if bits == 8 else "c7", 0, left, bits, mode) + _immediate(right, bits)


def _two(mnemonic: str, ops: list[Operand], mode: int) -> bytes:
    left, right = ops
    if isinstance(left, int):
        raise CannotEncode("a number cannot be the destination")
    if isinstance(left, Memory) and isinstance(right, Memory):
        raise CannotEncode("only one operand can lie in memory")
    bits = _size(left, right)
    byte = bits == 8
    if mnemonic == "mov" and isinstance(right, int):
        return _mov_number(left, right, bits, mode)
    if mnemonic == "mov":
        forms = ("89", "8b")
    elif mnemonic in _ARITHMETIC:
        op = _ARITHMETIC[mnemonic]
        if isinstance(right, int):
            short = -128 <= right < 128 and not byte
            opcode = "80" if byte else "83" if short else "81"
            return _instruction(opcode, op, left, bits, mode) + _immediate(right, 8 if short else bits)
        forms = (f"{op << 3 | 1:02x}", f"{op << 3 | 3:02x}")
    elif mnemonic == "test":
        if isinstance(right, int):
            return _instruction("f6" if byte else "f7", 0, left, bits, mode) + _immediate(right, bits)
        forms = ("85", "85")
    else:  # xchg
        forms = ("87", "87")
        if isinstance(right, int):
            raise CannotEncode("xchg takes registers or an address")
    if byte or bits == 16:
        raise CannotEncode("only numbers can be stored in 8 or 16 bits with this small assembler")
    if isinstance(right, Register):
        return _instruction(forms[0], right.number, left, bits, mode)
    assert isinstance(left, Register)
    assert isinstance(right, Memory)
    return _instruction(forms[1], left.number, right, bits, mode)


def _imul(ops: list[Operand], mode: int) -> bytes:
    if len(ops) == 1 and not isinstance(ops[0], int):
        return _instruction("f7", 5, ops[0], _size(ops[0]), mode)
    if len(ops) == 2 and isinstance(ops[1], int):
        ops = [ops[0], *ops]
    if not ops or not isinstance(ops[0], Register) or isinstance(ops[1], int):
        raise CannotEncode("imul takes a register, then a register or an address, and perhaps a number")
    bits = _size(*ops[:2])
    if len(ops) == 2:
        return _instruction("0faf", ops[0].number, ops[1], bits, mode)
    value = ops[2]
    if not isinstance(value, int):
        raise CannotEncode("the third operand of imul is a number")
    short = -128 <= value < 128
    return _instruction("6b" if short else "69", ops[0].number, ops[1], bits, mode) + _immediate(
        value, 8 if short else bits
    )


def _jump(mnemonic: str, target: int, place: Place) -> bytes:
    """Short form when it reaches and was short before (a branch never shrinks again), near form otherwise."""
    long = {"jmp": "e9", "call": "e8"}.get(mnemonic) or f"0f{0x80 | _CONDITIONS[mnemonic]:02x}"
    distance = target - place.address - 2
    if mnemonic != "call" and place.minimum <= 2 and -128 <= distance < 128:
        short = 0xEB if mnemonic == "jmp" else 0x70 | _CONDITIONS[mnemonic]
        return bytes([short, distance & 0xFF])
    opcode = bytes.fromhex(long)
    return opcode + ((target - place.address - len(opcode) - 4) & 0xFFFFFFFF).to_bytes(4, "little")


def _one(mnemonic: str, op: Operand, mode: int) -> bytes:
    if isinstance(op, int):
        if mnemonic == "push":
            short = -128 <= op < 128
            return (b"\x6a" if short else b"\x68") + _immediate(op, 8 if short else 32)
        raise CannotEncode(f"{mnemonic} takes a register or an address")
    if mnemonic in ("push", "pop"):
        if isinstance(op, Memory):
            return _instruction("ff" if mnemonic == "push" else "8f", 6 if mnemonic == "push" else 0, op, 32, mode)
        if op.bits != mode:
            raise CannotEncode(f"{mnemonic} takes a {mode}-bit register here")
        return (b"\x41" if op.number > 7 else b"") + bytes([(0x50 if mnemonic == "push" else 0x58) | op.number & 7])
    bits = _size(op)
    if mnemonic in ("inc", "dec"):
        at = int(mnemonic == "dec")
        if mode == 32 and isinstance(op, Register):
            return bytes([0x40 | at << 3 | op.number])
        return _instruction("ff", at, op, bits, mode)
    return _instruction("f7", _UNARY[mnemonic], op, bits, mode)


def _shift(mnemonic: str, ops: list[Operand], text: str, mode: int) -> bytes:
    if isinstance(ops[0], int):
        raise CannotEncode("a number cannot be the destination")
    bits = _size(ops[0])
    if len(ops) == 1 or ops[1] == 1:
        return _instruction("d1", _SHIFTS[mnemonic], ops[0], bits, mode)
    if not isinstance(ops[1], int):
        raise CannotEncode(f"{text!r}: the distance of a shift is a number (or cl, which is not known here)")
    distance = fits(ops[1], 8, signed=False, what="shift").to_bytes(1, "little")
    return _instruction("c1", _SHIFTS[mnemonic], ops[0], bits, mode) + distance


def _encode(mnemonic: str, texts: list[str], place: Place, mode: int) -> bytes:  # noqa: PLR0911, PLR0912 - one per family
    if mnemonic not in _KNOWN:
        raise CannotEncode(unknown(mnemonic, _KNOWN))
    counts = _counts(mnemonic)
    if len(texts) not in counts:
        raise CannotEncode(f"{mnemonic} takes {' or '.join(map(str, counts))} operands, {len(texts)} were given")
    if mnemonic == "syscall":
        if mode == 32:
            raise CannotEncode("syscall exists only on x86-64; 32-bit Linux takes int 0x80")
        return b"\x0f\x05"
    if mnemonic in _FIXED:
        return bytes.fromhex(_FIXED[mnemonic])
    ops = [_operand(text, place, mode) for text in texts]
    first = ops[0]
    if mnemonic in ("jmp", "call") and not isinstance(first, int):
        return _instruction("ff", 4 if mnemonic == "jmp" else 2, first, 32, mode)
    if mnemonic in _CONDITIONS or mnemonic in ("jmp", "call"):
        if not isinstance(first, int):
            raise CannotEncode("a conditional jump goes to a label")
        return _jump(mnemonic, first, place)
    if mnemonic == "int":
        return b"\xcd" + fits(first if isinstance(first, int) else -1, 8, signed=False).to_bytes(1, "little")
    if mnemonic == "loop":
        target = first if isinstance(first, int) else 0
        return b"\xe2" + fits(target - place.address - 2, 8, signed=True, what="distance").to_bytes(1, "little")
    if mnemonic == "imul":
        return _imul(ops, mode)
    if mnemonic == "lea":
        if not (isinstance(first, Register) and isinstance(ops[1], Memory)):
            raise CannotEncode("lea takes a register and an address in brackets")
        return _instruction("8d", first.number, ops[1], first.bits, mode)
    if mnemonic in _SHIFTS:
        return _shift(mnemonic, ops, texts[-1], mode)
    return _two(mnemonic, ops, mode) if len(ops) == 2 else _one(mnemonic, first, mode)


def _counts(mnemonic: str) -> tuple[int, ...]:
    if mnemonic in _FIXED or mnemonic == "syscall":
        return (0,)
    if mnemonic == "imul":
        return (1, 2, 3)
    if mnemonic in _SHIFTS:
        return (1, 2)
    if mnemonic in _ARITHMETIC or mnemonic in ("mov", "lea", "test", "xchg"):
        return (2,)
    return (1,)


def x86(mnemonic: str, texts: list[str], place: Place) -> bytes:
    """Encode one 32-bit instruction."""
    return _encode(mnemonic, texts, place, 32)


def x86_64(mnemonic: str, texts: list[str], place: Place) -> bytes:
    """Encode one 64-bit instruction."""
    return _encode(mnemonic, texts, place, 64)
