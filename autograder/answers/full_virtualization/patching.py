"""Answers to `patch` and `break_sweep`."""

from __future__ import annotations

import capstone

from autograder.answers import alternative, mutant
from course import isa

SILENT = {"pushfq", "popfq", "sgdt", "sidt", "sldt", "str", "smsw"}


def _sensitive(found, silent=SILENT, cs=True):
    return found.mnemonic in silent or (cs and found.mnemonic == "mov" and found.operands.endswith(", cs"))


def _code_ranges(code, base, data):
    at = base
    for begin, end in [*sorted(data), (base + len(code), 0)]:
        yield at, begin
        at = end


def _patch(code, base, data, *, silent=SILENT, cs=True, key=0, keep=None, fill=True):
    patched, table = bytearray(code), {}
    for begin, end in _code_ranges(code, base, data):
        for found in isa.disassemble(code[begin - base : end - base], "x86_64", begin):
            if _sensitive(found, silent, cs):
                size, at = len(found.code), found.address - base
                table[found.address - key] = found.code if keep is None else keep(found)
                patched[at : at + size] = b"\xcc" + (b"\x90" * (size - 1) if fill else code[at + 1 : at + size])
    return {"code": bytes(patched), "table": table}


@alternative("patch")
def with_disassemble(code, base, data):
    return _patch(code, base, data)


@mutant("patch", "left-silent")
def knows_no_task_register(code, base, data):
    return _patch(code, base, data, silent=SILENT - {"str"})


@mutant("patch", "base-taken-for-granted")
def always_at_one_mib(code, base, data):
    return _patch(code, base, data, key=base - 0x100000)


@alternative("patch")
def leaves_the_rest_of_the_instruction(code, base, data):
    return _patch(code, base, data, fill=False)


@alternative("patch")
def with_capstone_one_at_a_time(code, base, data):
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    holes = dict(data)
    out, table, at = bytearray(code), {}, base
    while at < base + len(code):
        if at in holes:
            at = holes[at]
            continue
        found = next(engine.disasm(code[at - base : at - base + 15], at, 1))
        if found.mnemonic in SILENT or (found.mnemonic == "mov" and found.op_str.endswith(", cs")):
            table[at] = bytes(found.bytes)
            for n in range(found.size):
                out[at - base + n] = 0xCC
        at += found.size
    return {"code": bytes(out), "table": table}


@mutant("patch", "other-code-patched")
def replaces_bytes(code, base, data):
    table = {base + n: bytes([b]) for n, b in enumerate(code) if b in (0x9C, 0x9D)}
    return {"code": code.replace(b"\x9c", b"\xcc").replace(b"\x9d", b"\xcc"), "table": table}


@mutant("patch", "data-patched")
def ignores_the_data(code, base, data):
    result = _patch(code, base, data)
    for begin, end in data:
        for at in range(begin, end):
            if code[at - base] in (0x9C, 0x9D):
                whole = bytearray(result["code"])
                whole[at - base] = 0xCC
                result["code"] = bytes(whole)
                result["table"][at] = code[at - base : at - base + 1]
    return result


@mutant("patch", "length-changed")
def one_byte_for_each(code, base, data):
    out, table, last = b"", {}, base
    for address, old in sorted(_patch(code, base, data)["table"].items()):
        out += code[last - base : address - base] + b"\xcc"
        table[address] = old
        last = address + len(old)
    return {"code": out + code[last - base :], "table": table}


@mutant("patch", "left-silent")
def forgets_cs(code, base, data):
    return _patch(code, base, data, cs=False)


@mutant("patch", "left-silent")
def forgets_pushf(code, base, data):
    return _patch(code, base, data, silent=SILENT - {"pushfq"})


@mutant("patch", "left-silent")
def stops_at_the_first_data(code, base, data):
    first = min((begin for begin, _ in data), default=base + len(code))
    result = _patch(code[: first - base], base, [])
    return {"code": result["code"] + code[first - base :], "table": result["table"]}


@mutant("patch", "offsets-not-addresses")
def offsets_in_the_table(code, base, data):
    return _patch(code, base, data, key=base)


@mutant("patch", "original-lost")
def keeps_the_first_byte(code, base, data):
    return _patch(code, base, data, keep=lambda found: found.code[:1])


@mutant("patch", "original-lost")
def keeps_the_patch(code, base, data):
    return _patch(code, base, data, keep=lambda found: b"\xcc")


@mutant("patch", "wrong-shape")
def keeps_names(code, base, data):
    return _patch(code, base, data, keep=lambda found: found.mnemonic)


@mutant("patch", "too-much")
def lists_the_privileged_too(code, base, data):
    result = _patch(code, base, data)
    for found in isa.disassemble(code, "x86_64", base):
        if found.mnemonic == "hlt":
            result["table"][found.address] = found.code
    return result


@mutant("patch", "other-code-patched")
def patches_hlt(code, base, data):
    return _patch(code, base, data, silent=SILENT | {"hlt"})


@mutant("patch", "unanswered")
def patch_untouched(code, base, data):
    raise NotImplementedError


# ── break_sweep ──────────────────────────────────────────────────────────────────────────────────────────────────────


@alternative("break_sweep")
def reads_a_byte_behind_the_end():
    return bytes.fromhex("8a 05 01 00 00 00 f4 9c")  # mov al, [rip + 1]; hlt; 9c


@alternative("break_sweep")
def hides_a_popf_from_the_sweep():
    # jmp over a byte that begins a mov eax, imm32; what it swallows is pushf, pop rax and a test of IF
    return bytes.fromhex("fa eb 01 b8 9c 58 25 00 02 00 00 f4")


@mutant("break_sweep", "patcher-survives")
def an_immediate():
    return bytes.fromhex("b8 9c 9d 9c 9d f4")


@mutant("break_sweep", "patcher-survives")
def data_that_nobody_reads():
    return bytes.fromhex("b8 01 00 00 00 f4 9c 9d")


@mutant("break_sweep", "patcher-survives")
def honest_pushf():
    return bytes.fromhex("9c 58 25 00 02 00 00 f4")


@mutant("break_sweep", "does-not-halt")
def crashes_anyway():
    return bytes.fromhex("0f 0b f4 9c")


@mutant("break_sweep", "does-not-halt")
def runs_forever():
    return bytes.fromhex("eb fe 9c")


@mutant("break_sweep", "not-a-program")
def a_text():
    return "jmp over"


@mutant("break_sweep", "not-a-program")
def too_long():
    return bytes(100)


@mutant("break_sweep", "unanswered")
def break_untouched():
    raise NotImplementedError
