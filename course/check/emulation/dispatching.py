"""Checks of a dispatcher: same result as Unicorn, and each block translated as often as its content demands."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...isa import rv32
from ..answer import Elsewhere, Outcome, call
from ..compare import shorten
from ..exercise import Exercise, Trial
from .cases import wire
from .programs import Work, across_pages, calls, counting, endless, nested, rewriting, work

run = Exercise("run", deadline_s=30.0)
_KEYS = {"regs": list, "memory": bytes, "halted": bool, "translated": list, "executed": int}
BUDGET = 20_000


def observe(answer: Callable[[rv32.State, int], Any], machine: rv32.State, budget: int) -> dict[str, Any]:
    """Run in the child: call the answer and count, from outside, how much text it turns into code meanwhile."""
    compiled = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal compiled
        if event == "exec" and not str(getattr(arguments[0], "co_filename", "")).endswith((".py", ">>")):
            compiled += not str(getattr(arguments[0], "co_filename", "")).startswith("<frozen")

    sys.addaudithook(watch)  # it cannot be taken away again: this child ends with the call
    result = answer(machine, budget)
    return {"result": result, "compiled": compiled}


def result_of(trial: Trial, machine: rv32.State, budget: int = BUDGET) -> tuple[dict[str, Any], int | None]:
    """Let the answer run a program; return its result and, where it is seen, how many texts were compiled."""
    plain = wire(machine)
    asked = f"run(a machine with pc = {machine['pc']:#x}, {budget})"
    if isinstance(trial.answer, Elsewhere):
        return _shaped(trial, trial.value_of(trial.attempt(plain, budget), asked)), None
    done = call(observe, trial.answer, plain, budget, deadline_s=trial.deadline_s)
    if done.outcome is Outcome.UNANSWERED:
        trial.call(plain, budget)
    value = trial.value_of(done, asked)
    return _shaped(trial, value["result"]), value["compiled"]


def _shaped(trial: Trial, got: Any) -> dict[str, Any]:
    """The result has the form that was asked for."""
    if got is None:
        trial.wrong("forgot-return", "run returned None.", "Did you forget return?")
    missing = [key for key in _KEYS if not isinstance(got, dict) or key not in got]
    if missing:
        trial.wrong("misshapen", f"run returned {shorten(got)}; missing: {', '.join(missing)}.", "See the docstring.")
    for key, kind in _KEYS.items():
        good = isinstance(got[key], kind)
        trial.expect(good, "misshapen", f"result[{key!r}] is {shorten(got[key])}; expected {kind.__name__}.")
    strange = [address for address in got["translated"] if type(address) is not int]
    trial.expect(
        not strange,
        "not-addresses",
        f"`translated` holds {shorten(strange[:1])}; expected addresses, which are numbers.",
        "Append the pc itself.",
    )
    return dict(got)


def judge_run(trial: Trial, machine: rv32.State, what: str) -> None:
    """Compare a run with Unicorn: the work, then the result."""
    truth = work(machine)
    got, compiled = result_of(trial, machine)
    _judge_stale(trial, truth, got, what)
    _judge_result(trial, truth, got, what)
    _judge_counts(trial, truth, got, what)
    _judge_witness(trial, got, compiled, what)


def _judge_stale(trial: Trial, truth: Work, got: dict[str, Any], what: str) -> None:
    """A block whose code was changed and not translated again explains all that is wrong besides."""
    made = Counter(got["translated"])
    for pc, least in sorted(truth.least.items()):
        if 0 < made[pc] < least:
            trial.wrong(
                "stale-block",
                f"{what} The code at {pc:#x} had {least} different contents while it ran; you translated it "
                f"{made[pc]} time(s).",
                "The program wrote new instructions and said so with fence.i. Which function did you run afterwards?",
            )


def _judge_result(trial: Trial, truth: Work, got: dict[str, Any], what: str) -> None:
    if not got["halted"]:
        trial.wrong(
            "not-halted",
            f"{what} It reaches ebreak after {len(truth.entries)} blocks; you stopped after {got['executed']} with "
            f"halted False (budget {BUDGET}).",
            "Which value of a block means ebreak?",
        )
    wrong = [n for n in range(32) if got["regs"][n : n + 1] != [truth.after["regs"][n]]]
    if wrong:
        n = wrong[0]
        obtained = got["regs"][n] if n < len(got["regs"]) else None
        made = Counter(got["translated"])
        changed = [pc for pc, least in sorted(truth.least.items()) if least > 1]
        if changed and all(made[pc] >= least for pc, least in truth.least.items()):
            trial.wrong(
                "translates-old-memory",
                f"{what} At the end x{n} is {shorten(obtained)}; in Unicorn it is {truth.after['regs'][n]}. You "
                f"translated the block at {changed[0]:#x} again and again, as you should.",
                "From which memory: as it was at the beginning, or as the program has made it?",
            )
        trial.wrong(
            "wrong-registers",
            f"{what} At the end x{n} is {shorten(obtained)}; in Unicorn it is {truth.after['regs'][n]}.",
            "Does `translate` pass its check? If so: which function runs at which pc?",
        )
    if got["memory"] != bytes(truth.after["memory"]):
        trial.wrong(
            "wrong-memory", f"{what} At the end memory differs from Unicorn's.", "Is it the memory that blocks wrote?"
        )


def _judge_counts(trial: Trial, truth: Work, got: dict[str, Any], what: str) -> None:
    entered, instructions = len(truth.entries), sum(len(entry.words) for entry in truth.entries)
    made = Counter(got["translated"])
    strange = sorted(set(made) - set(truth.most), key=repr)
    if strange:
        trial.wrong(
            "never-entered", f"{what} You translated at {shorten(strange[0])}, where no block is entered.", "Which pc?"
        )
    absent = sorted(set(truth.least) - set(made))
    if absent:
        trial.wrong(
            "not-recorded",
            f"{what} A block begins at {absent[0]:#x}; `translated` says nothing of it.",
            "One per miss.",
        )
    if sum(made.values()) == entered > sum(truth.most.values()):
        trial.wrong(
            "translates-every-time",
            f"{what} {entered} blocks were executed and {entered} translated; {len(truth.most)} addresses are entered.",
            "What is the cache for? Look there first.",
        )
    for pc, most in sorted(truth.most.items()):
        if made[pc] > most:
            trial.wrong(
                "translates-again",
                f"{what} The block at {pc:#x} was translated {made[pc]} times; {most} would do: nothing but fence.i "
                "makes a translation invalid.",
                "When do you throw translations away?",
            )
    if got["executed"] == instructions != entered:
        trial.wrong(
            "counts-instructions", f"{what} You executed {entered} blocks; you report {instructions}, its instructions."
        )
    if got["executed"] != entered:
        trial.wrong(
            "wrong-count", f"{what} {entered} blocks are entered; you report {got['executed']}.", "One per call."
        )


def _judge_witness(trial: Trial, got: dict[str, Any], compiled: int | None, what: str) -> None:
    """Where the answer ran elsewhere, its record has to do."""
    told = len(got["translated"])
    if compiled == 0:
        trial.wrong(
            "interprets",
            f"{what} The result is right, and Python compiled nothing while run worked; `translated` has {told} "
            "entries.",
            "A dispatcher calls functions: load(translate(…)) makes them.",
        )
    if compiled not in (None, told):
        trial.wrong(
            "record-is-not-true",
            f"{what} Python compiled {compiled} texts while run worked; `translated` has {told} entries.",
            "One compilation per translation: is every one in the list, and is each function kept?",
        )


@run.step("a loop gives the result of Unicorn, and each of its blocks is translated once")
def _loop(trial: Trial) -> None:
    judge_run(trial, counting(trial.rng), "A loop that sums.")
    judge_run(trial, nested(trial.rng), "A loop within a loop.")


@run.step("functions are left to where they were called from")
def _calls(trial: Trial) -> None:
    judge_run(trial, calls(trial.rng), "A function called from several places through a table.")


@run.step("a program that rewrites itself runs its new instructions after fence.i")
def _rewriting(trial: Trial) -> None:
    judge_run(trial, rewriting(trial.rng), "A program that rewrites one of its functions.")


@run.step("the budget ends a loop that never ends")
def _budget(trial: Trial) -> None:
    judge_budget(trial, 50)


def judge_budget(trial: Trial, budget: int) -> None:
    """An endless loop is left when the budget is spent."""
    got, _ = result_of(trial, endless(), budget)
    what = f"An endless loop with a budget of {budget} blocks."
    if got["halted"] and got["executed"] == budget:
        trial.wrong(
            "halted-by-budget",
            f"{what} You stopped in time and report halted True.",
            "The machine has not met ebreak; it would go on. Who was it that stopped?",
        )
    if got["halted"] or got["executed"] != budget:
        trial.wrong(
            "wrong-budget", f"{what} You report {got['executed']} blocks, halted {got['halted']}.", "Count, then stop."
        )


def judge_pages(trial: Trial) -> None:
    """A loop over the end of a page."""
    judge_run(trial, across_pages(trial.rng), "A loop whose body crosses the end of a page.")
