"""Visible checks of lesson 6, *Hypervisors*.

What the visible and the hidden checks share (how an answer is judged, and by which witness) is in the modules beside;
which inputs grading uses is not.
"""

from __future__ import annotations

import random

from ..exercise import Exercise, Trial
from . import instructions, live, machines, pills, stacks, turns
from .engines import here

__all__ = ["classify", "identify", "place", "red_pill", "schedule", "violates_pg", "vmm"]

# ── classify ─────────────────────────────────────────────────────────────────────────────────────────────────────────

classify = Exercise("classify", deadline_s=60.0)


@classify.step("well-known instructions are judged by what ring 3 does with them")
def _basic(trial: Trial) -> None:
    instructions.judge_pieces(trial, instructions.BASIC, [here()[0]] * len(instructions.BASIC))


@classify.step("what you put behind the bytes is not mistaken for the bytes")
def _landing(trial: Trial) -> None:
    pieces = instructions.LANDINGS[:3]
    instructions.judge_pieces(trial, pieces, [here()[0]] * len(pieces))


@classify.step("bytes that never end are left")
def _loops(trial: Trial) -> None:
    instructions.judge_piece(trial, instructions.LOOPS[0], here()[0])


# ── violates_pg ──────────────────────────────────────────────────────────────────────────────────────────────────────

violates_pg = Exercise("violates_pg")
_ROWS: list[instructions.Row] = [
    {"name": "tick", "outcome": "privileged", "perfect": {"rax": 1, "IF": 0}, "seen": None},
    {"name": "tock", "outcome": "silent", "perfect": {"rax": 1, "IF": 0}, "seen": {"rax": 1, "IF": 0}},
    {"name": "peek", "outcome": "silent", "perfect": {"rax": 0, "IF": 1}, "seen": {"rax": 3, "IF": 1}},
    {"name": "hide", "outcome": "silent", "perfect": {"rax": 5, "IF": 0}, "seen": {"rax": 5, "IF": 1}},
    {"name": "hide", "outcome": "silent", "perfect": {"rax": 5, "IF": 1}, "seen": {"rax": 5, "IF": 0}},
    {"name": "late", "outcome": "silent", "perfect": {"rax": 7, "IF": 0}, "seen": {"rax": 7, "IF": 0}},
    {"name": "late", "outcome": "silent", "perfect": {"rax": 7, "IF": 1}, "seen": {"rax": 6, "IF": 1}},
    {"name": "soon", "outcome": "silent", "perfect": {"rax": 6, "IF": 0}, "seen": {"rax": 7, "IF": 0}},
    {"name": "soon", "outcome": "silent", "perfect": {"rax": 7, "IF": 1}, "seen": {"rax": 7, "IF": 1}},
]


@violates_pg.step("sensitive and silent in one state is enough; harmless or trapped is not")
def _few_rows(trial: Trial) -> None:
    instructions.judge_violations(trial, _ROWS, "six instructions (tick, tock, peek, hide, late, soon)")


# ── vmm ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

vmm = Exercise("vmm", deadline_s=40.0)


@vmm.step("the guest's greeting appears on the console")
def _hello(trial: Trial) -> None:
    machines.judge_guest(trial, machines.HELLO, here()[0])


@vmm.step("the machine goes on behind the whole instruction, and ends at hlt")
def _lengths(trial: Trial) -> None:
    machines.judge_guest(trial, machines.LENGTHS, here()[0])
    machines.judge_guest(trial, machines.AFTER_HLT, here()[0])


@vmm.step("in writes as much of rax as it says")
def _input(trial: Trial) -> None:
    for guest in (machines.IN_AL, machines.IN_EAX):
        machines.judge_guest(trial, guest, here()[0])


@vmm.step("the interrupt flag and cr3 are the guest's own")
def _own(trial: Trial) -> None:
    for guest in (machines.CLI, machines.STI, machines.CR3):
        machines.judge_guest(trial, guest, here()[0])


@vmm.step("what the machine does not have ends it")
def _unknown(trial: Trial) -> None:
    machines.judge_guest(trial, machines.LGDT, here()[0])


# ── schedule ─────────────────────────────────────────────────────────────────────────────────────────────────────────

schedule = Exercise("schedule", deadline_s=40.0)


@schedule.step("two guests print in turn, each on a console of its own")
def _two(trial: Trial) -> None:
    turns.judge_schedule(trial, here()[0], [turns.printer("a", 6), turns.printer("b", 6)])


@schedule.step("a guest that never asks for anything is stopped all the same")
def _greedy(trial: Trial) -> None:
    turns.judge_schedule(trial, here()[0], [turns.spinner(), turns.printer("b", 4)])


@schedule.step("a guest that crashes takes nobody with it")
def _crash(trial: Trial) -> None:
    turns.judge_schedule(trial, here()[0], [turns.crashing(*turns.CRASHES[0]), turns.printer("b", 4)])


# ── red_pill ─────────────────────────────────────────────────────────────────────────────────────────────────────────

red_pill = Exercise("red_pill", deadline_s=20.0)


@red_pill.step("the code says 1 under trap-and-emulate and 0 on a machine of its own")
def _pill(trial: Trial) -> None:
    pills.judge_pill(trial, here()[:1])


# ── place ────────────────────────────────────────────────────────────────────────────────────────────────────────────

place = Exercise("place")
_NAMES = ["kernel", "monitor", "guest kernel", "guest program", "machine process", ""]


@place.step("in a stack of each kind the pieces are found where they run")
def _known(trial: Trial) -> None:
    for kind in ("monolith", "service guest", "module"):
        stacks.judge_place(trial, stacks.build(kind, _NAMES, random.Random(trial.seed)))


# ── identify ─────────────────────────────────────────────────────────────────────────────────────────────────────────

identify = Exercise("identify", deadline_s=30.0)


@identify.step("one process of each kind that this machine can start is told from the others")
def _kinds(trial: Trial) -> None:
    live.judge_identities(trial, live.KINDS)
