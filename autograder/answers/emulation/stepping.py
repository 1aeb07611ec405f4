"""Answers to `immediate` and `step`."""

from __future__ import annotations

import struct

from autograder.answers import alternative, mutant
from course.isa import rv32

MASK = 0xFFFFFFFF


def signed(value, bits=32):
    return value - (1 << bits) if value >> (bits - 1) else value


def good_immediate(word):
    opcode = word & 0x7F
    if opcode == 0x37:
        return word & 0xFFFFF000
    if opcode == 0x23:
        return signed((word >> 25) << 5 | word >> 7 & 31, 12)
    if opcode == 0x63:
        return signed((word >> 31) << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 63) << 5 | (word >> 8 & 15) << 1, 13)
    if opcode == 0x6F:
        raw = (word >> 31) << 20 | (word >> 12 & 255) << 12 | (word >> 20 & 1) << 11 | (word >> 21 & 1023) << 1
        return signed(raw, 21)
    return signed(word >> 20, 12)


# ── immediate ────────────────────────────────────────────────────────────────────────────────────────────────────────


@alternative("immediate")
def by_text_of_bits(word):
    bits = f"{word:032b}"
    forms = {
        "0110111": bits[:20] + "0" * 12,
        "0100011": bits[:7] + bits[20:25],
        "1100011": bits[0] + bits[24] + bits[1:7] + bits[20:24] + "0",
        "1101111": bits[0] + bits[12:20] + bits[11] + bits[1:11] + "0",
    }
    text = forms.get(bits[25:], bits[:12])
    return int(text, 2) - (int(text[0]) << len(text))


@alternative("immediate")
def by_arithmetic_shift(word):
    n = signed(word)
    opcode = word & 0x7F
    if opcode == 0x37:
        return n & ~0xFFF
    if opcode == 0x23:
        return n >> 25 << 5 | word >> 7 & 31
    if opcode == 0x63:
        return n >> 31 << 12 | (word & 0x80) << 4 | word >> 20 & 0x7E0 | word >> 7 & 0x1E
    if opcode == 0x6F:
        return n >> 31 << 20 | word & 0xFF000 | word >> 9 & 0x800 | word >> 20 & 0x7FE
    return n >> 20


@mutant("immediate", "no-sign-extension")
def never_negative(word):
    value = good_immediate(word)
    bits = {0x23: 12, 0x63: 13, 0x6F: 21, 0x37: 32}.get(word & 0x7F, 12)
    return value & (1 << bits) - 1


@mutant("immediate", "s-read-as-i")
def store_like_load(word):
    return signed(word >> 20, 12) if word & 0x7F == 0x23 else good_immediate(word)


@mutant("immediate", "b-bits")
def branch_bits_in_order(word):
    if word & 0x7F == 0x63:
        return signed((word >> 25) << 6 | (word >> 7 & 31) << 1, 13)
    return good_immediate(word)


@mutant("immediate", "half-the-distance")
def branch_without_its_zero(word):
    return good_immediate(word) // 2 if word & 0x7F == 0x63 else good_immediate(word)


@mutant("immediate", "not-shifted")
def upper_not_shifted(word):
    return word >> 12 if word & 0x7F == 0x37 else good_immediate(word)


@mutant("immediate", "j-bits")
def jump_bits_in_order(word):
    return signed(word >> 12, 20) * 2 if word & 0x7F == 0x6F else good_immediate(word)


@mutant("immediate", "forgot-return")
def only_computes(word):
    good_immediate(word)


@mutant("immediate", "sign-one-bit-off")
def sign_of_twenty_bits(word):
    value = good_immediate(word)
    return signed(value & 0x1FFFFF, 20) if word & 0x7F == 0x6F else value


# ── step ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def execute(state, flaw=""):
    """Execute one instruction, right but for one flaw."""
    pc, x, memory = state["pc"], list(state["regs"]), bytearray(state["memory"])
    word = int.from_bytes(memory[pc : pc + 4], "little")
    opcode, rd, funct3, rs1, rs2 = word & 0x7F, word >> 7 & 31, word >> 12 & 7, word >> 15 & 31, word >> 20 & 31
    a, b, number = x[rs1], x[rs2], good_immediate(word)
    if flaw == "unsigned immediates" and opcode == 0x13:
        number &= 0xFFF
    if flaw == "andi zero-extends" and (opcode, funct3) == (0x13, 7):
        number &= 0xFFF
    address, result, target, halted = (a + number) & MASK, None, pc + 4, False
    kind = (opcode, funct3)
    if kind == (0x33, 0) and word >> 25 in (0, 0x20):
        result = a - b if word >> 30 else a + b
    elif kind == (0x13, 0):
        result = a + number
    elif kind == (0x13, 7):
        result = a & number
    elif opcode == 0x37:
        result = number
    elif kind == (0x03, 2):
        if flaw == "aligned only" and address % 4:
            raise ValueError(f"misaligned address {address:#x}")
        at = address & ~3 if flaw == "aligned down" else address
        result = int.from_bytes(memory[at : at + 4], "big" if flaw == "big endian" else "little")
    elif kind == (0x03, 4):
        result = signed(memory[address], 8) if flaw == "signed bytes" else memory[address]
    elif kind == (0x23, 2):
        memory[address : address + 4] = b.to_bytes(4, "big" if flaw == "stores big endian" else "little")
    elif opcode == 0x63 and funct3 in (0, 1, 4):
        less = a < b if flaw == "unsigned compare" else signed(a) < signed(b)
        if {0: a == b, 1: a != b, 4: less}[funct3]:
            target = pc + 4 + number if flaw == "offset from the next" else pc + number
    elif opcode == 0x6F:
        result, target = pc + 4, pc + number
    elif kind == (0x67, 0):
        if flaw == "link first" and rd:
            x[rd] = pc + 4
        address = (x[rs1] + number) & MASK
        result, target = pc + 4, address if flaw == "odd targets" else address & ~1
    elif word == 0x00100073:
        halted, target = True, pc if flaw != "runs on" else pc + 4
    elif kind != (0x0F, 1) and flaw != "skips unknown":
        raise ValueError(f"{word:#010x} at {pc:#x} is no instruction")
    if result is not None and (rd or flaw == "x0"):
        x[rd] = result if flaw == "no wrap" else result & MASK
    if flaw == "link is pc" and opcode in (0x6F, 0x67) and rd:
        x[rd] = pc
    return {
        "pc": pc if flaw == "pc stays" and opcode == 0x13 else target,
        "regs": x,
        "memory": memory,
        "halted": halted,
    }


@alternative("step")
def with_a_chain_of_ifs(state):
    return execute(state)


@alternative("step")
def with_a_table(state):
    pc, x = state["pc"], list(state["regs"])
    (word,) = struct.unpack_from("<I", state["memory"], pc)
    memory = state["memory"]
    rd, rs1, rs2, number = word >> 7 & 31, word >> 15 & 31, word >> 20 & 31, good_immediate(word)
    a, b = x[rs1], x[rs2]
    where = (a + number) % 2**32
    table = {
        (0x13, 0): lambda: (a + number, pc + 4),
        (0x13, 7): lambda: (a & number, pc + 4),
        (0x03, 2): lambda: (struct.unpack_from("<I", memory, where)[0], pc + 4),
        (0x03, 4): lambda: (memory[where], pc + 4),
        (0x63, 0): lambda: (None, pc + (number if a == b else 4)),
        (0x63, 1): lambda: (None, pc + (number if a != b else 4)),
        (0x63, 4): lambda: (None, pc + (number if a ^ 2**31 < b ^ 2**31 else 4)),
        (0x67, 0): lambda: (pc + 4, where & -2),
        (0x0F, 1): lambda: (None, pc + 4),
    }
    key = (word & 0x7F, word >> 12 & 7)
    if word == 0x00100073:
        return dict(state, halted=True)
    if key == (0x23, 2):
        memory = memory[:where] + struct.pack("<I", b) + memory[where + 4 :]
        result, target = None, pc + 4
    elif key == (0x33, 0) and word >> 25 in (0, 32):
        result, target = (a - b if word >> 25 else a + b), pc + 4
    elif key[0] in (0x37, 0x6F):
        result, target = (number, pc + 4) if key[0] == 0x37 else (pc + 4, pc + number)
    elif key in table:
        result, target = table[key]()
    else:
        raise ValueError(hex(word))
    if result is not None:
        x[rd] = result % 2**32
    x[0] = 0
    return {"pc": target, "regs": x, "memory": memory, "halted": False}


@mutant("step", "x0-writable")
def zero_is_a_register(state):
    return execute(state, "x0")


@mutant("step", "no-wrap")
def endless_integers(state):
    return execute(state, "no wrap")


@mutant("step", "no-sign-extension")
def unsigned_immediates(state):
    return execute(state, "unsigned immediates")


@mutant("step", "andi-zero-extended")
def andi_like_mips(state):
    return execute(state, "andi zero-extends")


@mutant("step", "big-endian")
def loads_from_the_other_end(state):
    return execute(state, "big endian")


@mutant("step", "wrong-store")
def stores_from_the_other_end(state):
    return execute(state, "stores big endian")


@mutant("step", "unaligned-refused")
def refuses_unaligned(state):
    return execute(state, "aligned only")


@mutant("step", "aligned-down")
def rounds_addresses_down(state):
    return execute(state, "aligned down")


@mutant("step", "lbu-signed")
def bytes_with_signs(state):
    return execute(state, "signed bytes")


@mutant("step", "unsigned-compare")
def compares_unsigned(state):
    return execute(state, "unsigned compare")


@mutant("step", "offset-from-elsewhere")
def offset_from_the_next(state):
    return execute(state, "offset from the next")


@mutant("step", "odd-target")
def keeps_bit_0(state):
    return execute(state, "odd targets")


@mutant("step", "link-before-target")
def links_first(state):
    return execute(state, "link first")


@mutant("step", "wrong-link")
def links_to_itself(state):
    return execute(state, "link is pc")


@mutant("step", "runs-past-ebreak")
def goes_on_after_ebreak(state):
    return execute(state, "runs on")


@mutant("step", "pc-stays")
def forgets_the_pc(state):
    return execute(state, "pc stays")


@mutant("step", "unknown-passed-over")
def skips_what_it_does_not_know(state):
    return execute(state, "skips unknown")


@mutant("step", "forgot-return")
def changes_and_returns_nothing(state):
    state.update(execute(state))


@mutant("step", "unicorn-s-instructions")
def lets_unicorn_do_it(state):
    try:
        return rv32.step({**state, "memory": bytearray(state["memory"])})
    except rv32.AstrayError as error:
        raise ValueError(str(error)) from None


def _instead(state, opcode, change):
    """Do as `execute`, and change the outcome of one kind of instruction."""
    after = execute(state)
    word = int.from_bytes(state["memory"][state["pc"] : state["pc"] + 4], "little")
    if word & 0x7F == opcode:
        change(after, word, state)
    return after


@mutant("step", "sub-is-add")
def knows_no_sub(state):
    def add(after, word, before):
        if rd := word >> 7 & 31:
            after["regs"][rd] = before["regs"][word >> 15 & 31] + before["regs"][word >> 20 & 31] & MASK

    return _instead(state, 0x33, add)


@mutant("step", "operands-exchanged")
def subtracts_the_first(state):
    def exchange(after, word, before):
        if word >> 30 and (rd := word >> 7 & 31):
            after["regs"][rd] = before["regs"][word >> 20 & 31] - before["regs"][word >> 15 & 31] & MASK

    return _instead(state, 0x33, exchange)


@mutant("step", "no-link")
def jumps_without_a_link(state):
    def forget(after, word, before):
        after["regs"] = list(before["regs"])

    return _instead(state, 0x6F, forget)


@mutant("step", "less-or-equal")
def branches_when_equal(state):
    def branch(after, word, before):
        if word >> 12 & 7 == 4 and before["regs"][word >> 15 & 31] == before["regs"][word >> 20 & 31]:
            after["pc"] = before["pc"] + good_immediate(word)

    return _instead(state, 0x63, branch)


@mutant("step", "memory-of-another-size")
def assigns_four_bytes_to_one(state):
    def grow(after, word, before):
        after["memory"] = bytes(after["memory"]) + bytes(3)

    return _instead(state, 0x23, grow)


@mutant("step", "stores-the-address")
def stores_rs1(state):
    def store(after, word, before):
        a = before["regs"][word >> 15 & 31]
        at = a + good_immediate(word) & MASK
        after["memory"] = bytearray(before["memory"])
        after["memory"][at : at + 4] = a.to_bytes(4, "little")

    return _instead(state, 0x23, store)
