"""Every registered answer of every lesson meets its checks, visible then hidden, on several seeds.

A mutant has to be rejected with its own misconception's id and in words that no other mutant of the exercise gets; an
alternative, and the solution that stands in the lesson's text, have to be accepted. The last lines of the run show how
many of each exercise were (see ``tests/summary.py``).
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autograder import answers
from course.check import Exercise, State, Verdict

LESSONS = Path(__file__).parents[2] / "course" / "lessons"
SEEDS = (1, 2, 3)
# A whole cell of MyST text: options, then code.
_CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXAMINED = re.compile(r"^check\.(\w+)\((\w+)\)$", re.MULTILINE)

REGISTERED = answers.load()


def checks(lesson: str, exercise: str) -> tuple[Exercise, Exercise]:
    """Return the visible and the hidden check of one exercise."""
    visible = importlib.import_module(f"course.check.{lesson}")
    hidden = importlib.import_module(f"autograder.checks.{lesson}")
    return getattr(visible, exercise), getattr(hidden, exercise)


def verdict_on(lesson: str, exercise: str, function: Callable[..., Any], seed: int) -> Verdict:
    """Examine a function as grading does: the visible check, then the hidden one."""
    for check in checks(lesson, exercise):
        verdict = check.examine(function, seed=seed)
        if not verdict.ok:
            break
    return verdict


@functools.cache
def verdict(answer: answers.Answer, seed: int) -> Verdict:
    """Examine a registered answer once per seed."""
    return verdict_on(answer.lesson, answer.exercise, answer.function, seed)


def solutions() -> list[tuple[str, str, str]]:
    """List (lesson, exercise, function) of all check calls in the lessons' texts."""
    found = []
    for path in sorted(LESSONS.glob("[0-9][0-9]-*.md")):
        lesson = path.stem.split("-", 1)[1].replace("-", "_")
        found += [(lesson, *names) for names in _EXAMINED.findall(path.read_text(encoding="utf-8"))]
    return found


@functools.cache
def namespace(lesson: str) -> dict[str, Any]:
    """Define what a lesson's cells import and define, without running its experiments."""
    [path] = LESSONS.glob(f"[0-9][0-9]-{lesson.replace('_', '-')}.md")
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names: dict[str, Any] = {"__name__": f"solutions_of_{lesson}"}
    for source in _CELL.findall(path.read_text(encoding="utf-8")):
        code = re.sub(r"^(:\w+:|[%!]).*\n", "", source, flags=re.MULTILINE)
        if "from autograder" in code:
            continue
        for node in ast.parse(code).body:
            if isinstance(node, kept) or _is_constant(node):
                # A constant that an experiment has to measure first has no value here.
                with contextlib.suppress(NameError) if isinstance(node, ast.Assign) else contextlib.nullcontext():
                    exec(compile(ast.Module([node], []), path.name, "exec"), names)  # the lesson's own code
    return names


def _is_constant(node: ast.stmt) -> bool:
    """Tell whether a statement is like ``MIB = 1 << 20``."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return False
    return node.targets[0].id.isupper() and not any(isinstance(n, ast.Call | ast.Await) for n in ast.walk(node.value))


def _id(answer: answers.Answer) -> str:
    return f"{answer.lesson}-{answer.name}"


MUTANTS = [a for a in REGISTERED if a.misconception]
ALTERNATIVES = [a for a in REGISTERED if not a.misconception]
EXERCISES = sorted({(a.lesson, a.exercise) for a in REGISTERED} | {(lesson, name) for lesson, name, _ in solutions()})


@pytest.mark.qemu
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("answer", MUTANTS, ids=_id)
def test_a_mutant_is_rejected_for_its_own_reason(answer, seed, record_property):
    """A wrong answer gets the id of its misconception, on every seed."""
    got = verdict(answer, seed)
    record_property(
        "answer", (answer.lesson, answer.exercise, "rejected", not got.ok and got.misconception == answer.misconception)
    )
    assert not got.ok, f"{answer.name} was accepted"
    assert got.misconception == answer.misconception, f"{answer.name} was told:\n{got}"
    assert got.message


@pytest.mark.qemu
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("answer", ALTERNATIVES, ids=_id)
def test_an_alternative_is_accepted(answer, seed, record_property):
    """A right answer is accepted, however it is written."""
    got = verdict(answer, seed)
    record_property("answer", (answer.lesson, answer.exercise, "accepted", got.ok))
    assert got.state is State.CORRECT, f"{answer.name} was told:\n{got}"


@pytest.mark.qemu
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("lesson", "exercise", "function"), solutions())
def test_the_lesson_s_own_solution_is_accepted(lesson, exercise, function, seed, record_property):
    """What the lesson's text itself gives as the solution is accepted."""
    got = verdict_on(lesson, exercise, namespace(lesson)[function], seed)
    record_property("answer", (lesson, exercise, "accepted", got.ok))
    assert got.state is State.CORRECT, str(got)


@pytest.mark.qemu
@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_each_mutant_gets_words_of_its_own(lesson, exercise):
    """No two wrong answers of an exercise get the same message: it is made from what was observed."""
    mine = [a for a in MUTANTS if (a.lesson, a.exercise) == (lesson, exercise)]
    told: dict[str, str] = {}
    for answer in mine:
        other = told.setdefault(verdict(answer, SEEDS[0]).message, answer.name)
        assert other == answer.name, f"{other} and {answer.name} are told the same:\n{verdict(answer, SEEDS[0])}"


@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_an_exercise_has_answers_of_both_kinds(lesson, exercise):
    """Each exercise comes with wrong answers and with a right one besides the lesson's own."""
    mine = [a for a in REGISTERED if (a.lesson, a.exercise) == (lesson, exercise)]
    assert sum(a.misconception is not None for a in mine) >= 2
    assert sum(a.misconception is None for a in mine) >= 1
