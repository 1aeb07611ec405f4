"""Checks of the bug hunt: a program on which a broken emulator and Unicorn disagree."""

from __future__ import annotations

from typing import Any

from ...isa import rv32, sabotage
from ...isa.child import ChildError, in_child
from ..compare import shorten
from ..exercise import Exercise, Trial

expose = Exercise("expose")
LIMIT_BYTES, FUEL = 256, 500
_CONCERNED = {"carry": "add with rd", "order": "blt with rs1", "byte": "lbu with rd", "link": "jalr with rd and rs1"}


def compare(code: str, fault: str, register: int) -> dict[str, Any]:
    """Run in a child: the program on Unicorn and on the broken emulator; JSON-able."""
    machine = rv32.state(bytes.fromhex(code))
    try:
        done, right = rv32.trace(machine, FUEL)
    except rv32.AstrayError as error:
        return {"astray": str(error)}
    met = sum(_concerns(fault, here.word, register) for here in done)
    try:
        wrong = sabotage.run(machine, fault, register, FUEL)
    except rv32.AstrayError as error:
        return {"differs": str(error), "met": met}
    same = right["regs"] == wrong["regs"] and bytes(right["memory"]) == bytes(wrong["memory"])
    return {"differs": "" if same else "the final registers or memory differ", "met": met, "steps": len(done)}


def _concerns(fault: str, word: int, register: int) -> bool:
    """Is this the instruction that the fault is about, with the register?"""
    opcode, rd, funct3, rs1 = word & 0x7F, word >> 7 & 31, word >> 12 & 7, word >> 15 & 31
    return {
        "carry": (opcode, funct3, word >> 25, rd) == (0x33, 0, 0, register),
        "order": (opcode, funct3, rs1) == (0x63, 4, register),
        "byte": (opcode, funct3, rd) == (0x03, 4, register),
        "link": (opcode, rd, rs1) == (0x67, register, register),
    }[fault]


def judge_program(trial: Trial, fault: str, register: int) -> None:
    """Let the answer write a program against one fault and run it on both."""
    code = trial.call(fault, register)
    asked = f"expose({fault!r}, {register})"
    good = isinstance(code, bytes) and 0 < len(code) <= LIMIT_BYTES and len(code) % 4 == 0
    trial.expect(
        good,
        "not-code",
        f"{asked} returned {shorten(code)}; expected 4 to {LIMIT_BYTES} bytes of code, whole words.",
        'isa.assemble(text, "riscv32", 0) makes bytes of a text.',
    )
    try:
        got = in_child(compare, code.hex(), fault, register, timeout_s=20.0)
    except ChildError as error:
        trial.wrong("crashed", f"{asked}: {error}", "Run your program with rv32.run first.")
    if "astray" in got:
        trial.wrong(
            "astray",
            f"{asked}: on Unicorn your program does not reach ebreak: {got['astray']}.",
            "A program that is wrong on every machine convicts none.",
        )
    if got["differs"]:
        return
    where = f"{_CONCERNED[fault]} x{register}"
    if not got["met"]:
        trial.wrong(
            "never-met",
            f"{asked}: in {got['steps']} instructions there is no {where}: the faulty code never ran.",
            "Which instruction, and which of its registers, does the fault's source ask for?",
        )
    trial.wrong(
        "met-and-equal",
        f"{asked}: {where} was executed {got['met']} time(s), and both emulators ended alike.",
        "With which operands does the faulty line give something else, and does your program keep that result?",
    )


def _ask_fault(fault: str) -> None:
    @expose.step(f"the program against the fault {fault!r} ends differently on the broken emulator")
    def _fault(trial: Trial) -> None:
        judge_program(trial, fault, trial.rng.randrange(5, 16))


for _fault in sabotage.FAULTS:
    _ask_fault(_fault)
