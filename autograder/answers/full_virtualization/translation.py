"""Answers to `translate` and `rewrite`."""

from __future__ import annotations

import struct

from autograder.answers import alternative, mutant
from course import isa
from course.vcpu.deprivileged import TRANSFERS, Translated

SILENT = {"pushfq", "popfq", "sgdt", "sidt", "sldt", "str", "smsw"}


def _sensitive(found):
    return found.mnemonic in SILENT or (found.mnemonic == "mov" and found.operands.endswith(", cs"))


def _block(guest, pc, *, end=True, transfers=TRANSFERS):
    addresses = []
    for found in isa.disassemble(guest.image[pc - guest.base :], "x86_64", pc):
        if _sensitive(found):
            addresses.append(found.address)
        elif found.mnemonic.startswith(transfers):
            if end:
                addresses.append(found.address)
            break
    return addresses


@alternative("translate")
def with_a_dict(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        blocks = {}
        while guest.pc is not None:
            pc = guest.pc
            if pc not in blocks:
                blocks[pc] = _block(guest, pc)
                guest.trap(blocks[pc])
            guest.run_block()
        return guest.report()


@alternative("translate")
def traps_only_what_is_new(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        while (pc := guest.pc) is not None:
            guest.trap(a for a in _block(guest, pc) if a not in guest.trapped)
            guest.run_block()
        return guest.report()


def _translated(engine, code, base, **how):
    with Translated(engine, code, base=base) as guest:
        known = set()
        while (pc := guest.pc) is not None:
            if pc not in known:
                known.add(pc)
                guest.trap(_block(guest, pc, **how))
            guest.run_block()
        return guest.report()


@mutant("translate", "data-patched")
def only_jumps_end_a_block(engine, code, base):
    return _translated(engine, code, base, transfers=("j",))


@mutant("translate", "no-cache")
def translates_again_and_again(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        while (pc := guest.pc) is not None:
            guest.trap(_block(guest, pc))
            guest.run_block()
        return guest.report()


@mutant("translate", "no-block-end")
def forgets_the_end(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        seen = set()
        while (pc := guest.pc) is not None:
            if pc not in seen:
                seen.add(pc)
                guest.trap(_block(guest, pc, end=False))
            guest.run_block()
        return guest.report()


@mutant("translate", "data-patched")
def sweeps_the_image(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        at = 0
        while at < len(code):
            found = isa.disassemble(code[at : at + 15], "x86_64", base + at)[0]
            if _sensitive(found):
                guest.trap([base + at])
            at += 1 if found.mnemonic == ".byte" else len(found.code)
        while guest.pc is not None:
            guest.run_block()
        return guest.report()


@mutant("translate", "data-patched")
def does_not_stop_at_jumps(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        found = isa.disassemble(code, "x86_64", base)
        guest.trap(i.address for i in found if _sensitive(i) or i.mnemonic.startswith(TRANSFERS))
        while guest.pc is not None:
            guest.run_block()
        return guest.report()


@mutant("translate", "wrong-output")
def first_block_only(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        guest.trap(_block(guest, guest.pc))
        while guest.pc is not None:
            guest.run_block()
        return guest.report()


@mutant("translate", "wrong-output")
def one_round(engine, code, base):
    with Translated(engine, code, base=base) as guest:
        guest.trap(_block(guest, guest.pc))
        guest.run_block()
        return guest.report()


@mutant("translate", "not-the-report")
def returns_the_result(engine, code, base):
    return with_a_dict(engine, code, base)["result"]


@mutant("translate", "forgot-return")
def translate_forgets_return(engine, code, base):
    with_a_dict(engine, code, base)


@mutant("translate", "unanswered")
def translate_untouched(engine, code, base):
    raise NotImplementedError


# ── rewrite ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _store(flag, value):
    return b"\xc6\x04\x25" + struct.pack("<IB", flag, value)


def _rewrite(code, flag, *, store=_store, names=("cli", "sti"), values=(0, 1), long=True, move=True):
    listing = list(isa.disassemble(code, "x86_64", 0))
    jump = {i.address: int(i.operands, 16) for i in listing if i.mnemonic.startswith("j")}
    pieces, place, at = {}, {}, 0
    for i in listing:
        place[i.address] = at
        if i.mnemonic in names:
            pieces[i.address] = store(flag, values[i.mnemonic == "sti"])
        elif i.address in jump and long and move:
            pieces[i.address] = b"\xe9" if i.code[0] in (0xEB, 0xE9) else None
            pieces[i.address] = bytes(5 if pieces[i.address] else 6)
        else:
            pieces[i.address] = i.code
        at += len(pieces[i.address])
    place[len(code)] = at
    out = b""
    for i in listing:
        piece = pieces[i.address]
        if i.address in jump and move:
            distance = place[jump[i.address]] - place[i.address] - len(piece)
            if not long:
                piece = i.code[:1] + struct.pack("<B", distance & 0xFF)
            elif len(piece) == 5:
                piece = b"\xe9" + struct.pack("<i", distance)
            else:
                condition = i.code[0] & 15 if i.code[0] != 0x0F else i.code[1] & 15
                piece = bytes([0x0F, 0x80 | condition]) + struct.pack("<i", distance)
        out += piece
    return out


@alternative("rewrite")
def all_jumps_long(code, flag):
    return _rewrite(code, flag)


@alternative("rewrite")
def with_the_assembler(code, flag, jumps=("j",)):
    lines = []
    for i in isa.disassemble(code, "x86_64", 0):
        lines.append(f"at{i.address}:")
        if i.mnemonic in ("cli", "sti"):
            lines.append(f"mov byte [{flag}], {int(i.mnemonic == 'sti')}")
        elif i.mnemonic.startswith(jumps):
            lines.append(f"{i.mnemonic} at{int(i.operands, 16)}")
        else:
            lines.append(".byte " + ", ".join(map(str, i.code)))
    return isa.assemble("\n".join(lines), "x86_64")


@mutant("rewrite", "another-byte")
def a_flag_where_it_always_was(code, flag):
    return _rewrite(code, flag & -4096)


@mutant("rewrite", "register-destroyed")
def through_r12(code, flag):
    def store(flag, value):
        return b"\x41\xbc" + struct.pack("<I", value) + b"\x44\x88\x24\x25" + struct.pack("<I", flag)

    return _rewrite(code, flag, store=store)


@mutant("rewrite", "some-jumps-not-moved")
def three_jumps_are_all(code, flag):
    return with_the_assembler(code, flag, ("jmp", "je", "jne"))


@mutant("rewrite", "flags-destroyed")
def with_and_and_or(code, flag):
    def store(flag, value):
        return (b"\x80\x0c\x25" if value else b"\x80\x24\x25") + struct.pack("<IB", flag, value)

    return _rewrite(code, flag, store=store)


@mutant("rewrite", "register-destroyed")
def through_a_register(code, flag):
    def store(flag, value):
        return b"\xb8" + struct.pack("<I", value) + b"\x88\x04\x25" + struct.pack("<I", flag)

    return _rewrite(code, flag, store=store)


@mutant("rewrite", "jumps-not-moved")
def jumps_as_they_were(code, flag):
    return _rewrite(code, flag, move=False)


@mutant("rewrite", "jump-too-short")
def short_jumps_only(code, flag):
    return _rewrite(code, flag, long=False)


@mutant("rewrite", "still-traps")
def forgets_sti(code, flag):
    return _rewrite(code, flag, names=("cli",))


@mutant("rewrite", "still-traps")
def changes_nothing(code, flag):
    return code


@mutant("rewrite", "wrong-flag")
def the_wrong_way_round(code, flag):
    return _rewrite(code, flag, values=(1, 0))


@mutant("rewrite", "wrong-flag")
def nops(code, flag):
    return _rewrite(code, flag, store=lambda flag, value: b"\x90")


@mutant("rewrite", "numbers-rewritten")
def every_byte_fa(code, flag):
    found = {i.address for i in isa.disassemble(code, "x86_64", 0) if i.mnemonic.startswith("j")}
    if found:
        return _rewrite(code, flag)
    return code.replace(b"\xfa", _store(flag, 0)).replace(b"\xfb", _store(flag, 1))


@mutant("rewrite", "wrong-store")
def an_address_relative_to_nothing(code, flag):
    return _rewrite(code, flag, store=lambda flag, value: b"\xc6\x05" + struct.pack("<IB", flag, value))


@mutant("rewrite", "not-bytes")
def returns_a_list(code, flag):
    return list(_rewrite(code, flag))


@mutant("rewrite", "unanswered")
def rewrite_untouched(code, flag):
    raise NotImplementedError
