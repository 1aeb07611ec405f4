"""Checks of what is read from QEMU's log: executions of blocks, and how much code a block becomes."""

from __future__ import annotations

from typing import Any

from ...isa import tcg
from ...isa.userland import program_file
from ..compare import shorten
from ..exercise import Exercise, Trial
from .loops import Counts, count, nested
from .qemu_log import Written, write

# ── tcg_counts ───────────────────────────────────────────────────────────────────────────────────────────────────────

tcg_counts = Exercise("tcg_counts", deadline_s=60.0)
_KEYS = ("translated", "executed")


def judge_counts(trial: Trial, program: bytes, what: str, *, single_step: bool = False) -> None:
    """Let the answer count the blocks of a program, and compare with a trace of its instructions."""
    truth = count(program)
    with program_file(program) as path:
        got = trial.call(str(path), single_step)
    good = isinstance(got, dict) and all(type(got.get(key)) is int for key in _KEYS)
    trial.expect(good, "misshapen", f"tcg_counts returned {shorten(got)}; expected two counts: {', '.join(_KEYS)}.")
    want = {"translated": truth.translated, "executed": truth.executed}
    if single_step:
        want = {"translated": truth.instructions, "executed": truth.executed_instructions}
    got = {key: got[key] for key in _KEYS}
    if got != want:
        _judge_counts(trial, truth, want, got, f"{what}: expected {want}, obtained {got}.", single_step=single_step)


def _judge_counts(
    trial: Trial, truth: Counts, want: dict[str, int], got: dict[str, Any], shown: str, *, single_step: bool
) -> None:
    if single_step and got == {"translated": truth.translated, "executed": truth.executed}:
        trial.wrong(
            "single-step-ignored",
            f"{shown} With single_step each instruction is a block of its own; these are the counts without it.",
            "Which option asks QEMU for that, and is it passed on?",
        )
    single = {"translated": truth.instructions, "executed": truth.executed_instructions}
    if not single_step and got == single:
        trial.wrong(
            "always-single-step",
            f"{shown} These are the counts with single_step, and it was False.",
            "When does the option go along, and when does it not?",
        )
    if got["translated"] == want["translated"] and got["executed"] == got["translated"]:
        trial.wrong(
            "in-is-not-executed",
            f"{shown} You count as many executions as translations.",
            "IN: appears when a block is translated. What does the log write each time a block runs?",
        )
    if got["translated"] == want["executed"]:
        trial.wrong(
            "executed-is-not-translated", f"{shown} You count a translation per execution.", "Which lines say IN:?"
        )
    if got["executed"] in (truth.executed_instructions, truth.listed) and not single_step:
        trial.wrong("counts-instructions", f"{shown} That is a number of instructions.", "A block holds several.")
    if got["executed"] < want["executed"] and got["translated"] == want["translated"]:
        trial.wrong(
            "chained-blocks-missing",
            f"{shown} {want['executed'] - got['executed']} executions are missing.",
            "QEMU lets a block jump straight into the next, and then nothing is logged. How is that forbidden?",
        )
    trial.wrong("wrong-counts", shown, "Look at the log itself: which lines do you count?")


@tcg_counts.step("translations and executions of a counting loop are told apart")
def _loop(trial: Trial) -> None:
    rounds = trial.rng.randrange(20, 200)
    judge_counts(trial, tcg.counting(rounds), f"A loop of {rounds} rounds")


@tcg_counts.step("with one instruction per block, every instruction is counted")
def _single(trial: Trial) -> None:
    rounds = trial.rng.randrange(10, 60)
    judge_counts(trial, tcg.counting(rounds), f"A loop of {rounds} rounds, single-stepped", single_step=True)


@tcg_counts.step("nested loops are counted")
def _nested(trial: Trial) -> None:
    judge_counts(trial, nested(trial.rng), "Two nested loops")


# ── expansion ────────────────────────────────────────────────────────────────────────────────────────────────────────

expansion = Exercise("expansion")


def judge_expansion(trial: Trial, written: Written) -> None:
    """Let the answer read a log whose contents are known."""
    got = trial.call(written.text)
    want = {"guest": written.guest, "ops": written.ops, "host": written.host}
    good = isinstance(got, dict) and set(want) <= set(got)
    trial.expect(good, "misshapen", f"expansion returned {shorten(got)}; expected a dict with {', '.join(want)}.")
    for key, number in want.items():
        if got[key] != number:
            _judge_number(trial, written, key, number, got[key])


def _judge_number(trial: Trial, written: Written, key: str, want: int, got: Any) -> None:
    shown = f"A log of {written.blocks} blocks: {key} expected {want}, obtained {shorten(got)}."
    again = written.optimized
    known = {
        ("host", want + written.prologue): (
            "prologue-counted", "The prologue belongs to no block: QEMU writes it once, at the start."),
        ("host", want + written.data + written.prologue): ("prologue-counted", "What stands before the first IN:?"),
        ("host", want + written.data): ("data-counted", "A line with .quad is a constant, kept behind the code."),
        ("host", 0): ("heading-not-alone", "Behind OUT: there is more in the same line: how long the code is."),
        ("guest", want + written.host): ("host-as-guest", "IN: and OUT: sections both have lines that begin with 0x."),
        ("guest", want + written.host + written.data + written.prologue): (
            "host-as-guest", "IN: and OUT: sections both have lines that begin with 0x."),
        ("guest", written.blocks): ("counts-blocks", "Under IN: stands one line per instruction."),
        ("ops", want + again): ("counted-twice", "The section after OP: shows the same block again."),
        ("ops", want + again + written.guest + written.guest_optimized): (
            "counted-twice", "The section after OP: shows the same block again, and ---- lines are no operations."),
        ("ops", want + written.guest): (
            "markers-counted", "Lines that begin with ---- say where a guest instruction begins; they do nothing."),
    }  # fmt: skip
    if not written.data and (key, got) == ("host", want + 2 * written.blocks):
        trial.wrong("remarks-counted", shown, "An instruction's line begins with its address, 0x…")
    if (key, got) in known:
        misconception, hint = known[key, got]
        trial.wrong(misconception, shown, hint)
    trial.wrong(f"wrong-{key}", shown, "Print the log's first block and mark the lines that you count.")


@expansion.step("one block is read: guest instructions, operations, host instructions")
def _one(trial: Trial) -> None:
    judge_expansion(trial, write(trial.rng, 1, prologue=False, data=False))


@expansion.step("several blocks behind QEMU's prologue are read")
def _several(trial: Trial) -> None:
    judge_expansion(trial, write(trial.rng, 5, data=False))
