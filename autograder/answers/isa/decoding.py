"""Answers that decode instruction words."""

from autograder.answers import alternative, mutant


def _sx(value, bits):
    return value - (1 << bits) if value >> (bits - 1) else value


def _ppc(w, signed=_sx, swap=False, loose=False):
    op, d, a, b = w >> 26, w >> 21 & 31, w >> 16 & 31, w >> 11 & 31
    if swap:
        d, a = a, d
    if op == 31 and (w & 0x7FE if loose else w & 0x7FF) == 266 << 1:
        return ("add", d, a, b)
    if op == 14:
        return ("addi", d, a, signed(w & 0xFFFF, 16))
    if op == 32:
        return ("lwz", d, signed(w & 0xFFFF, 16), a)
    if op == 18 and w & 3 == 0:
        return ("b", signed(w & 0x3FFFFFC, 26))
    if op == 16 and w & 0x3FF0003 == 12 << 21 | 2 << 16:
        return ("beq", signed(w & 0xFFFC, 16))
    return None


def _riscv(w, signed=_sx, bits="right"):
    op, d, f, s1, s2 = w & 127, w >> 7 & 31, w >> 12 & 7, w >> 15 & 31, w >> 20 & 31
    if op == 0x33 and f == 0 and w >> 25 == 0:
        return ("add", d, s1, s2)
    if op == 0x13 and f == 0:
        return ("addi", d, s1, signed(w >> 20, 12))
    if op == 0x03 and f == 2:
        return ("lw", d, signed(w >> 20, 12), s1)
    if op == 0x63 and f == 0:
        offset = (w >> 31) << 12 | (w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1
        if bits == "as S format":
            offset = (w >> 25) << 5 | w >> 7 & 31
            return ("beq", s1, s2, signed(offset, 12))
        return ("beq", s1, s2, signed(offset, 13))
    return None


@alternative("decode_fixed")
def shifts_and_masks(word, isa):
    if isa == "ppc":
        return _ppc(int.from_bytes(word, "big"))
    return _riscv(int.from_bytes(word, "little"))


@alternative("decode_fixed")
def text_of_bits(word, isa):
    def number(text):
        return int(text, 2)

    def signed(text):
        return int(text, 2) - (1 << len(text) if text[0] == "1" else 0)

    if isa == "ppc":
        t = f"{int.from_bytes(word, 'big'):032b}"
        op, d, a, b = number(t[:6]), number(t[6:11]), number(t[11:16]), number(t[16:21])
        if op == 31 and t[21:] == "01000010100":
            return ["add", d, a, b]
        if op == 14:
            return ["addi", d, a, signed(t[16:])]
        if op == 32:
            return ["lwz", d, signed(t[16:]), a]
        if op == 18 and t[30:] == "00":
            return ["b", signed(t[6:])]
        if op == 16 and (d, a) == (12, 2) and t[30:] == "00":
            return ["beq", signed(t[16:])]
        return None
    t = f"{int.from_bytes(word, 'little'):032b}"
    funct3, opcode = t[17:20], t[25:]
    d, s1, s2 = number(t[20:25]), number(t[12:17]), number(t[7:12])
    if opcode == "0110011" and funct3 == "000" and t[:7] == "0000000":
        return ["add", d, s1, s2]
    if opcode == "0010011" and funct3 == "000":
        return ["addi", d, s1, signed(t[:12])]
    if opcode == "0000011" and funct3 == "010":
        return ["lw", d, signed(t[:12]), s1]
    if opcode == "1100011" and funct3 == "000":
        return ["beq", s1, s2, signed(t[0] + t[24] + t[1:7] + t[20:24] + "0")]
    return None


@mutant("decode_fixed", "no-sign-extension")
def unsigned(word, isa):
    keep = lambda value, bits: value
    if isa == "ppc":
        return _ppc(int.from_bytes(word, "big"), keep)
    return _riscv(int.from_bytes(word, "little"), keep)


@mutant("decode_fixed", "branch-offset-bits")
def beq_as_a_store(word, isa):
    if isa == "ppc":
        return _ppc(int.from_bytes(word, "big"))
    return _riscv(int.from_bytes(word, "little"), bits="as S format")


@mutant("decode_fixed", "little-endian-ppc")
def both_little(word, isa):
    value = int.from_bytes(word, "little")
    return _ppc(value) if isa == "ppc" else _riscv(value)


@mutant("decode_fixed", "operands-swapped")
def destination_second(word, isa):
    if isa == "ppc":
        return _ppc(int.from_bytes(word, "big"), swap=True)
    return _riscv(int.from_bytes(word, "little"))


@mutant("decode_fixed", "accepts-other")
def takes_add_dot_for_add(word, isa):
    if isa == "ppc":
        return _ppc(int.from_bytes(word, "big"), loose=True)
    return _riscv(int.from_bytes(word, "little"))


@mutant("decode_fixed", "rejects-legal")
def forgets_beq(word, isa):
    found = shifts_and_masks(word, isa)
    return None if found and found[0] == "beq" else found


@mutant("decode_fixed", "names-for-numbers")
def with_names(word, isa):
    found = shifts_and_masks(word, isa)
    return found and (found[0], *(f"r{n}" if i < 2 else n for i, n in enumerate(found[1:])))


@mutant("decode_fixed", "raised")
def no_default(word, isa):
    found = shifts_and_masks(word, isa)
    return tuple(found)


@mutant("decode_fixed", "forgot-return")
def computes_only(word, isa):
    shifts_and_masks(word, isa)


# ── counterexamples ──


@alternative("counterexamples")
def by_thought():
    return {
        "addi": bytes.fromhex("38638000"),
        "beq": bytes.fromhex("e300b500"),
        "add": bytes.fromhex("7c632215"),
    }


@alternative("counterexamples")
def by_other_bits():
    return {
        "addi": (14 << 26 | 5 << 21 | 0x8000).to_bytes(4, "big"),
        "beq": (0x63 | 1 << 7 | 1 << 31).to_bytes(4, "little"),
        "add": (31 << 26 | 1 << 10 | 266 << 1).to_bytes(4, "big"),
    }


@mutant("counterexamples", "agrees")
def minus_one():
    return by_thought() | {"addi": bytes.fromhex("3863ffff")}


@mutant("counterexamples", "no-such-instruction")
def something_else():
    return by_thought() | {"beq": bytes.fromhex("3305b500")}


@mutant("counterexamples", "byte-order")
def wrong_end_first():
    return by_thought() | {"add": bytes.fromhex("1522637c")}


@mutant("counterexamples", "not-a-word")
def a_number():
    return by_thought() | {"addi": 0x38638000}


@mutant("counterexamples", "missing")
def two_of_three():
    return {"addi": bytes.fromhex("38638000"), "beq": bytes.fromhex("e300b500")}
