"""A tiny course for the grader: three exercises, with tests of each kind; submissions are its release, changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import nbformat
from nbgrader.utils import determine_grade

from autograder.execute import SplitExecute
from autograder.judge import Court
from autograder.repair import rebuild

SETUP = "import math\n\nfrom course.check import passport as check\n"
ANSWERS = {
    "double": "def double(number):\n    return 2 * number",
    "total": "def total(last):\n    return sum(range(1, last + 1))",
    "uptime_s": "def uptime_s(text):\n    return float(text.split()[0])",
}
STUBS = {name: f"{text.partition(':')[0]}:\n    raise NotImplementedError" for name, text in ANSWERS.items()}
TESTS = {
    "double": '''"""`double` returns twice its argument."""
assert double(3) == 6, "double(3) is 6"
### BEGIN HIDDEN TESTS
assert double(-1717171717) == -3434343434, "of negative numbers too"
### END HIDDEN TESTS''',
    "total": '''"""`total` adds the numbers from 1 to its argument."""
assert math.isclose(total(3), 6)
### BEGIN HIDDEN TESTS
from course.check import Exercise

hidden = Exercise("total", hidden=True, deadline_s=5.0)


@hidden.step("the sum of no numbers is zero")
def _no_numbers(trial):
    trial.equal(0, trial.call(0), "starts-at-one", "For no numbers at all:")


hidden(total)
### END HIDDEN TESTS''',
    "uptime_s": '''"""`uptime_s` reads the first number."""
check.uptime_s(uptime_s)''',
}
POINTS = {"double": 2, "total": 3, "uptime_s": 1}
FULL = {f"correct_{name}": float(points) for name, points in POINTS.items()}


def cell(name: str, source: str, kind: str = "code", **flags: Any) -> Any:
    """A cell, with nbgrader's flags if any are given."""
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    made = make(source, id=name)
    if flags:
        base = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
        made.metadata["nbgrader"] = base | {"grade_id": name} | flags
    return made


def notebook(answers: Mapping[str, str]) -> Any:
    """The course's notebook with these answers, hidden tests included."""
    cells = [cell("title", "# Tiny", "markdown"), cell("setup", SETUP)]
    for name, points in POINTS.items():
        cells += [
            cell(name, answers[name], solution=True),
            cell(f"correct_{name}", TESTS[name], grade=True, locked=True, points=points),
        ]
    cells.append(cell("explain", "Because.", "markdown", grade=True, solution=True, points=4))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})


SOURCE = notebook(ANSWERS)


def submission(answers: Mapping[str, str] | None = None, *, first: str = "", last: str = "") -> Any:
    """The blank release with some answers, and cells of the student's own before and behind all others.

    Args:
        answers: sources by name; the others are stubs.
        first: code of a cell before the first answer.
        last: code of a cell behind the last test.
    """
    made = notebook(STUBS | dict(answers or {}))
    if first:
        made.cells.insert(2, cell("own-first", first))
    if last:
        made.cells.append(cell("own-last", last))
    return made


def graded(made: Any, court: Court | None = None, folder: str = "", **options: Any) -> Any:
    """The notebook after repair and execution, as nbgrader would go on with it."""
    rebuilt, _ = rebuild(made, notebook(STUBS))
    executor = SplitExecute(**{"timeout": 60, "shutdown_kernel": "immediate", "sandbox": "none", **options})
    executor.source, executor.court = copy.deepcopy(SOURCE), court
    executor.log.handlers.clear()
    names = {"student": "s", "assignment": "tiny", "notebook": "tiny"}
    done, _ = executor.preprocess(rebuilt, {"metadata": {"path": folder}, "nbgrader": names})
    return done


def marks(done: Any) -> dict[str, float]:
    """What nbgrader reads from each test."""
    tests = [one for one in done.cells if one.id in FULL]
    found = {one.id: determine_grade(one)[0] for one in tests}
    assert found == {one.id: done.metadata["course"]["verdicts"][one.id]["marks"] for one in tests}
    return found


def shown(done: Any, name: str) -> str:
    """All text of a cell's outputs."""
    outputs = next(one for one in done.cells if one.id == name or own(one) == name).outputs
    parts = [str(output.get(key, "")) for output in outputs for key in ("text", "data", "ename", "evalue", "traceback")]
    return "\n".join(parts)


def own(one: Any) -> str:
    """Name of a student's own cell: rebuilding gives it a new id, so its first line has to say it."""
    line = one.source.partition("\n")[0]
    return line.removeprefix("# ") if line.startswith("# ") else ""
