"""Answers to `classify` and `violates_pg`."""

from __future__ import annotations

import ctypes
import mmap

import capstone

from autograder.answers import alternative, mutant
from course.vcpu import Breakpoint, Budget, BudgetSpent, Fault, Hlt, Io, Preempted, Privileged, Undefined, Vcpu

_PRIVILEGED = (Privileged, Io, Hlt)


def _landed(engine, code, landing=b"\xf4", limit=1_000):
    with Vcpu.open(engine, code + landing) as cpu:
        end = cpu.regs.rip + len(code)
        return cpu.run(instructions=limit), end


def _label(found):
    if isinstance(found, _PRIVILEGED):
        return "privileged"
    if isinstance(found, Undefined):
        return "undefined"
    return "endless" if isinstance(found, Preempted) else "fault"


@alternative("classify")
def step_by_step(engine, code):
    with Vcpu.open(engine, code) as cpu:
        end = cpu.regs.rip + len(code)
        for _ in range(1_000):
            found = cpu.step()
            if not isinstance(found, Preempted):
                return _label(found)
            if found.rip == end:
                return "silent"
    return "endless"


@alternative("classify")
def landing_on_int3(engine, code):
    found, end = _landed(engine, code, b"\xcc")
    return "silent" if isinstance(found, Breakpoint) and found.rip == end else _label(found)


@alternative("classify")
def by_the_budget(engine, code):
    with Vcpu.open(engine, code + b"\x0f\x05", budget=Budget(instructions=2_000, seconds=60)) as cpu:
        end = cpu.regs.rip + len(code)
        found = cpu.run()
    if isinstance(found, BudgetSpent):
        return "endless"
    return "silent" if found.reason == "Hypercall" and found.rip == end else _label(found)


@mutant("classify", "mnemonic-list")
def looks_at_the_first_mnemonic(engine, code):
    known = {"cli", "sti", "hlt", "in", "out", "mov", "lgdt", "popfq", "pushfq", "rdmsr", "wrmsr"}
    for instruction in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, 0, 1):
        if instruction.mnemonic == "ud2":
            return "undefined"
        if instruction.mnemonic == "div":
            return "fault"
        return "privileged" if instruction.mnemonic in known else "silent"
    return "undefined"


@mutant("classify", "bytes-are-not-instructions")
def looks_for_bytes(engine, code):
    if any(byte in code for byte in (0xFA, 0xFB, 0xF4)):
        return "privileged"
    return step_by_step(engine, code)


@mutant("classify", "not-reached")
def looks_at_every_mnemonic(engine, code):
    listing = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, 0))
    if len(listing) > 1 and any(i.mnemonic in ("cli", "sti", "hlt", "rdmsr", "out") for i in listing):
        return "privileged" if not any(i.mnemonic in ("ud2", "int3") for i in listing) else step_by_step(engine, code)
    return step_by_step(engine, code)


@mutant("classify", "illegal-is-not-privileged")
def sigill_is_privileged(engine, code):
    got = step_by_step(engine, code)
    return "privileged" if got == "undefined" else got


@mutant("classify", "every-trap-is-privilege")
def any_trap_is_privileged(engine, code):
    got = step_by_step(engine, code)
    return "privileged" if got == "fault" else got


@mutant("classify", "segv-is-not-privilege")
def sigsegv_is_privileged(engine, code):
    with Vcpu.open(engine, code) as cpu:
        found = cpu.step()
        if found.reason == "PageFault" and found.rip != cpu.regs.rip - 1 and found.access != "execute":
            return "privileged"
    return step_by_step(engine, code)


@mutant("classify", "gp-is-not-privilege")
def vector_13_is_privileged(engine, code):
    with Vcpu.open(engine, code + b"\xcc") as cpu:
        found = cpu.run(instructions=1_000)
    if isinstance(found, Fault) and found.vector == 13:
        return "privileged"
    return step_by_step(engine, code)


@mutant("classify", "own-landing")
def hlt_is_always_mine(engine, code):
    found, _ = _landed(engine, code)
    return "silent" if isinstance(found, Hlt) else _label(found)


@mutant("classify", "own-landing")
def int3_is_always_mine(engine, code):
    found, _ = _landed(engine, code, b"\xcc")
    return "silent" if isinstance(found, Breakpoint) else _label(found)


@mutant("classify", "own-landing")
def first_byte_only(engine, code):
    with Vcpu.open(engine, code + b"\x0f\x0b") as cpu:
        begin = cpu.regs.rip
        found = cpu.run(instructions=1_000)
    return "silent" if isinstance(found, Undefined) and found.rip != begin else _label(found)


@mutant("classify", "no-time-limit")
def endless_is_silent(engine, code):
    found, end = _landed(engine, code)
    return "silent" if isinstance(found, Preempted) or found.rip == end else _label(found)


@mutant("classify", "too-impatient")
def a_loop_is_endless(engine, code):
    found, end = _landed(engine, code, limit=20)
    return "silent" if isinstance(found, Hlt) and found.rip == end else _label(found)


@mutant("classify", "no-child")
def in_my_own_process(engine, code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code + b"\xc3")
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return "silent"


@mutant("classify", "no-label")
def names_the_exit(engine, code):
    return _landed(engine, code)[0].reason


# ── violates_pg ──────────────────────────────────────────────────────────────────────────────────────────────────────


@alternative("violates_pg")
def grouped(rows):
    by_name = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    return {n for n, group in by_name.items() if any(r["seen"] not in (None, r["perfect"]) for r in group)}


@alternative("violates_pg")
def by_the_outcome(rows):
    return sorted({r["name"] for r in rows if r["outcome"] == "silent" and r["seen"] != r["perfect"]})


@alternative("violates_pg")
def item_by_item(rows):
    found = []
    for row in rows:
        if row["seen"] is None or row["name"] in found:
            continue
        if any(row["seen"].get(key) != value for key, value in row["perfect"].items()):
            found.append(row["name"])
    return found


@mutant("violates_pg", "silent-is-no-crime")
def every_silent_one(rows):
    return {r["name"] for r in rows if r["outcome"] == "silent"}


@mutant("violates_pg", "trapping-is-no-crime")
def every_sensitive_one(rows):
    return {r["name"] for r in rows if r["seen"] != r["perfect"]}


@mutant("violates_pg", "every-state-asked")
def in_all_states(rows):
    return grouped(rows) - {r["name"] for r in rows if r["seen"] == r["perfect"]}


@mutant("violates_pg", "one-state-only")
def last_row_only(rows):
    return by_the_outcome(list({r["name"]: r for r in rows}.values()))


@mutant("violates_pg", "one-state-only")
def first_row_only(rows):
    return by_the_outcome(list({r["name"]: r for r in reversed(rows)}.values()))


@mutant("violates_pg", "interrupt-flag-overlooked")
def registers_only(rows):
    def kept(state):
        return {k: v for k, v in (state or {}).items() if k != "IF"}

    return {r["name"] for r in rows if r["seen"] is not None and kept(r["seen"]) != kept(r["perfect"])}


@mutant("violates_pg", "memory-overlooked")
def without_memory(rows):
    def kept(state):
        return {k: v for k, v in (state or {}).items() if k != "memory"}

    return {r["name"] for r in rows if r["seen"] is not None and kept(r["seen"]) != kept(r["perfect"])}


@mutant("violates_pg", "other-definition")
def the_list_from_the_paper(rows):
    return {r["name"] for r in rows if r["name"] in ("popfq", "pushfq", "sgdt", "smsw", "peek", "hide", "late", "soon")}


@mutant("violates_pg", "twice")
def once_per_row(rows):
    return [r["name"] for r in rows if r["seen"] not in (None, r["perfect"])]


@mutant("violates_pg", "no-names")
def counts_them(rows):
    return len(grouped(rows))
