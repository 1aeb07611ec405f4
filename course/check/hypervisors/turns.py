"""Judgements on `schedule`: several machines on one processor, turn by turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...vcpu.instructions import code as machine_code
from ..answer import Outcome
from ..compare import shorten
from ..exercise import Trial
from .machines import CONTROL, GENERAL, IF

QUANTUM, FUEL = 20, 40
_SPIN = """
48 ff c3        ; inc rbx
eb fb           ; jmp to the inc
"""
_ALONE = "What is each guest's own? Console, interrupt flag, control registers: make them once per guest."


@dataclasses.dataclass(frozen=True)
class Machine:
    """A guest and what must become of it, whoever runs beside it.

    `turns` is how many it needs, one for each of its exits; None for one that makes none.
    """

    text: str
    listing: str
    end: str = "hlt"
    console: bytes = b""
    cr3: int = 0
    flag: int = 0
    turns: int | None = None

    @property
    def code(self) -> bytes:
        """The machine code."""
        return machine_code(self.listing)


def printer(letter: str, times: int) -> Machine:
    """Print a letter several times, then halt."""
    listing = f"""
    b0 {ord(letter):02x}           ; mov al, {letter!r}
    b9 {times:02x} 00 00 00  ; mov ecx, {times}
    e6 e9           ; out 0xe9, al
    ff c9           ; dec ecx
    75 fa           ; jnz to the out
    f4              ; hlt
    """
    return Machine(f"a printer of {times} {letter!r}", listing, console=letter.encode() * times, turns=times + 1)


def spinner() -> Machine:
    """Count in rbx for ever, without a single exit."""
    return Machine("a guest that counts for ever", _SPIN, end="budget")


def keeper(page: int, flag: int) -> Machine:
    """Write cr3, set or clear the interrupt flag, print one letter."""
    listing = f"""
    b8 {page.to_bytes(4, "little").hex(" ")}  ; mov eax, {page:#x}
    {"fb" if flag else "fa"}              ; {"sti" if flag else "cli"}
    0f 22 d8        ; mov cr3, rax
    b0 2e           ; mov al, '.'
    e6 e9           ; out 0xe9, al
    0f 20 db        ; mov rbx, cr3
    39 d8           ; (compares what it wrote)
    f4              ; hlt
    """
    return Machine(f"a guest with cr3 {page:#x}", listing, console=b".", cr3=page, flag=flag, turns=5)


def crashing(code: str, text: str) -> Machine:
    """Print a letter, then do what no machine allows."""
    listing = f"""
    b0 63           ; mov al, 'c'
    e6 e9           ; out 0xe9, al
    {code}          ; {text}
    f4              ; hlt
    """
    return Machine(f"a guest that crashes ({text})", listing, end="fault", console=b"c", turns=2)


CRASHES = (("0f 0b", "ud2"), ("f7 f1", "div by zero"), ("8b 04 25 10 00 00 00", "no memory there"), ("cc", "int3"))


def judge_schedule(trial: Trial, engine: str, machines: Sequence[Machine], *, fuel: int = FUEL) -> dict[str, Any]:
    """Let the answer run machines side by side; judge what became of each, and the order."""
    told = " and ".join(machine.text for machine in machines)
    asked = f"schedule({engine!r}, guests, quantum={QUANTUM}, fuel={fuel}) with {told}"
    done = trial.attempt(engine, [machine.code for machine in machines], quantum=QUANTUM, fuel=fuel)
    if done.outcome is Outcome.RAISED:
        trial.wrong(
            "one-guest-ends-all",
            f"{asked} raised {done.error}: {done.detail}",
            "A guest that does something wrong is that guest's misfortune. Who else suffers from your exception?",
        )
    got = _shape(trial, trial.value_of(done, asked), machines, asked)
    order = got["order"]
    trial.expect(
        len(order) <= fuel,
        "fuel-overdrawn",
        f"{asked}: {len(order)} turns were given, {fuel} allowed.",
        "Every turn costs one of the fuel, whoever gets it.",
    )
    for number, machine in enumerate(machines):
        _judge_machine(trial, machine, got["guests"][number], f"{asked}: guest {number} ({machine.text})", machines)
    _judge_order(trial, order, len(machines), asked)
    _judge_ends(trial, order, machines, asked, fuel)
    _judge_turns(trial, order, machines, asked)
    return got


def _shape(trial: Trial, got: Any, machines: Sequence[Machine], asked: str) -> dict[str, Any]:
    trial.expect(isinstance(got, dict), "not-a-dict", f"{asked} returned {type(got).__name__}, expected a dict.")
    good = isinstance(got.get("order"), list) and isinstance(got.get("guests"), list)
    trial.expect(good, "incomplete", f"{asked} returned {shorten(got)}; expected lists 'order' and 'guests'.")
    n = len(machines)
    trial.expect(
        len(got["guests"]) == n, "guest-missing", f"{asked}: {len(got['guests'])} results for {n} guests.",
        "A guest has a result however it ended.",
    )  # fmt: skip
    odd = [turn for turn in got["order"] if turn not in range(n)]
    trial.expect(not odd, "no-such-guest", f"{asked}: the order names {shorten(odd)}; guests are 0 to {n - 1}.")
    for number, guest in enumerate(got["guests"]):
        whole = isinstance(guest, dict) and isinstance(guest.get("console"), bytes)
        whole = whole and isinstance(guest.get("end"), str) and isinstance(guest.get("registers"), dict)
        whole = whole and all(isinstance(guest["registers"].get(r), int) for r in (*GENERAL, "rflags", *CONTROL))
        trial.expect(
            whole, "incomplete", f"{asked}: guest {number} is {shorten(guest)}; expected what vmm returns for it."
        )
    return dict(got)


def _judge_machine(trial: Trial, machine: Machine, got: dict[str, Any], what: str, machines: Sequence[Machine]) -> None:
    others = {byte for other in machines if other is not machine for byte in other.console} - set(machine.console)
    if others & set(got["console"]):
        trial.wrong("shared-state", f"{what}: its console shows {shorten(got['console'])}, another's output.", _ALONE)
    if got["end"] == "budget" and machine.end != "budget":
        trial.wrong(
            "starved",
            f"{what} had not come to its end when the fuel was used up; its console shows {shorten(got['console'])}.",
            "A guest that never asks for anything must be stopped all the same: which argument of run() does that?",
        )
    ended = f"{what} ended with {got['end']!r}, expected {machine.end!r}."
    trial.expect(
        got["end"] == machine.end, "wrong-end", ended, "hlt, a fault, or neither when the fuel is used up: one each."
    )
    trial.equal(machine.console, got["console"], "wrong-console", f"{what}:", _ALONE)
    flag = int(bool(got["registers"]["rflags"] & IF))
    if machine.end == "hlt" and (got["registers"]["cr3"], flag) != (machine.cr3, machine.flag):
        now = f"cr3 {got['registers']['cr3']:#x} and interrupt flag {flag}"
        trial.wrong("shared-registers", f"{what} has {now}; expected {machine.cr3:#x} and {machine.flag}.", _ALONE)


def _judge_order(trial: Trial, order: list[int], count: int, asked: str) -> None:
    """Between two turns of a guest, each other one that is still alive has had one."""
    last: dict[int, int] = {}
    for at, guest in enumerate(order):
        if guest in last:
            between, later = order[last[guest] + 1 : at], set(order[at:]) - {guest}
            waiting = later - set(between)
            if waiting or any(between.count(other) > 1 for other in range(count) if other in later):
                shown = ", ".join(map(str, order[:12]))
                trial.wrong(
                    "not-in-turn",
                    f"{asked}: the turns went {shown} …; between two turns of guest {guest} the others had {between}.",
                    "Round robin: after its turn a guest goes to the end of the queue.",
                )
        last[guest] = at


def _judge_ends(trial: Trial, order: list[int], machines: Sequence[Machine], asked: str, fuel: int) -> None:
    if any(machine.end == "budget" for machine in machines):
        trial.expect(
            len(order) == fuel,
            "fuel-left",
            f"{asked}: {len(order)} turns were given, though a guest that never ends could have used all {fuel}.",
            "When do you stop: at the first end, or when nobody is left?",
        )


def _judge_turns(trial: Trial, order: list[int], machines: Sequence[Machine], asked: str) -> None:
    """A turn ends at the guest's first exit: who has seven exits has had seven turns."""
    for number, machine in enumerate(machines):
        had = order.count(number)
        if machine.turns is not None and had != machine.turns:
            trial.wrong(
                "turn-not-at-exit",
                f"{asked}: guest {number} ({machine.text}) makes {machine.turns} exits and had {had} turns.",
                "A turn ends at the guest's first exit, used-up quantum or not; and every turn is in the order.",
            )


def judge_share(trial: Trial, engine: str, count: int) -> None:
    """Guests that only compute get equal shares, in turns and in instructions."""
    got = judge_schedule(trial, engine, [spinner()] * count)
    turns = [got["order"].count(n) for n in range(count)]
    counted = [guest["registers"]["rbx"] for guest in got["guests"]]
    for number in range(count):
        share = counted[number] / max(1, sum(counted))
        trial.expect(
            abs(share * count - 1) <= 0.2,
            "unfair",
            f"{count} guests that count for ever came to {counted} in {turns} turns: guest {number} got {share:.0%}.",
            "Everyone gets the same quantum, and as many turns.",
        )
        # Two instructions per round of the loop: the guest itself tells how many it was allowed.
        expected = turns[number] * QUANTUM // 2
        trial.expect(
            abs(counted[number] - expected) <= count,
            "other-quantum",
            f"Guest {number} had {turns[number]} turns of {QUANTUM} instructions, so its loop of two instructions"
            f" should have counted to {expected}; it came to {counted[number]}.",
            "How many instructions does one turn of yours allow?",
        )
