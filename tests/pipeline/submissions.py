"""Submissions made from a lesson's own notebooks, and the marks they deserve."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]

BROKEN = (
    "copied-answer",
    "copied-answer-emptied",
    "deleted-test",
    "deleted-answer",
    "lost-ids-and-metadata",
    "skipped-tests",
    "reversed-order",
    "other-kernel",
    "old-format",
    "newer-format",
    "kernel-ended",
    "truncated",
    "empty",
    "no-notebook",
    "cells-of-no-kind",
    "no-cells",
)
"""What `broken` makes, by name."""


class Submissions:
    """Makes submissions of one lesson.

    Args:
        source: the instructor's notebook: every answer is right.
        release: the student's notebook: no answer is given.
    """

    def __init__(self, source: Path, release: Path) -> None:
        self.source: Notebook = json.loads(source.read_text())
        self.release: Notebook = json.loads(release.read_text())

    def ids(self, kind: str) -> list[str]:
        """Grade ids of all ``answer`` or ``test`` cells, in order."""
        return [cell["id"] for cell in self.source["cells"] if _kind(cell) == kind]

    @property
    def points(self) -> dict[str, float]:
        """Points of each test, from the notebook."""
        return {
            cell["id"]: cell["metadata"]["nbgrader"]["points"] for cell in self.source["cells"] if _kind(cell) == "test"
        }

    @property
    def full_marks(self) -> float:
        """What a perfect submission gets without a person's part."""
        return sum(self.points.values())

    def perfect(self) -> Notebook:
        """Every answer is the lesson's own, in the released notebook."""
        return self.with_answers(self.ids("answer"))

    def untouched(self) -> Notebook:
        """The release as it is."""
        return copy.deepcopy(self.release)

    def with_answers(self, answered: list[str]) -> Notebook:
        """The release with some of the lesson's own answers."""
        right = {cell["id"]: cell["source"] for cell in self.source["cells"]}
        made = self.untouched()
        for cell in made["cells"]:
            if cell["id"] in answered:
                cell["source"] = right[cell["id"]]
        return made

    def marks_of(self, answered: list[str]) -> float:
        """What `with_answers` deserves: the points of each test whose answers (since the test before) are given."""
        total, waiting = 0.0, set[str]()
        for cell in self.source["cells"]:
            if _kind(cell) == "answer":
                waiting.add(cell["id"])
            elif _kind(cell) == "test":
                if waiting <= set(answered):
                    total += self.points[cell["id"]]
                waiting = set()
        return total

    def first_half(self) -> list[str]:
        """The first half of the answers, so that none depends on one that is missing."""
        answers = self.ids("answer")
        return answers[: max(1, len(answers) // 2)]


def broken(submissions: Submissions) -> dict[str, tuple[str, float]]:
    """Submissions that students really send: text of the file and deserved marks, by name."""
    full = submissions.full_marks
    first_answer, first_test = submissions.ids("answer")[0], submissions.ids("test")[0]
    rest = submissions.ids("answer")[1:]
    text = json.dumps(submissions.perfect())

    def changed(change: Callable[[list[dict[str, Any]]], object], base: Notebook | None = None) -> str:
        made = copy.deepcopy(base or submissions.perfect())
        change(made["cells"])
        return json.dumps(made)

    def duplicate(name: str, **edit: Any) -> Callable[[list[dict[str, Any]]], object]:
        def change(cells: list[dict[str, Any]]) -> None:
            at = next(i for i, cell in enumerate(cells) if cell["id"] == name)
            cells.insert(at + 1, copy.deepcopy(cells[at]) | edit)

        return change

    def without(name: str) -> Callable[[list[dict[str, Any]]], object]:
        def change(cells: list[dict[str, Any]]) -> None:
            cells[:] = [cell for cell in cells if cell["id"] != name]

        return change

    def lose_ids_and_metadata(cells: list[dict[str, Any]]) -> None:
        for number, cell in enumerate(cells):
            cell["metadata"], cell["id"] = {}, f"colab-{number}"

    def skip_tests(cells: list[dict[str, Any]]) -> None:
        for cell in cells:
            cell["metadata"]["tags"] = ["skip-execution"]

    def end_the_kernel(cells: list[dict[str, Any]]) -> None:
        last = submissions.ids("answer")[-1]
        next(cell for cell in cells if cell["id"] == last)["source"] = "import os\n\nos._exit(1)"

    other_kernel = submissions.perfect()
    other_kernel["metadata"]["kernelspec"] = {"name": "julia-1.10", "display_name": "Julia", "language": "julia"}
    return {
        "copied-answer": (changed(duplicate(first_answer)), full),
        "copied-answer-emptied": (changed(duplicate(first_answer, source="")), full),
        "deleted-test": (changed(without(first_test)), full),
        "deleted-answer": (changed(without(first_answer)), submissions.marks_of(rest)),
        "lost-ids-and-metadata": (changed(lose_ids_and_metadata), full),
        "skipped-tests": (changed(skip_tests, submissions.release), 0),
        "reversed-order": (changed(lambda cells: cells.reverse()), full),
        "other-kernel": (json.dumps(other_kernel), full),
        "old-format": (json.dumps(_format_3(submissions.perfect())), full),
        "newer-format": (json.dumps(submissions.perfect() | {"nbformat": 9}), 0),
        "kernel-ended": (changed(end_the_kernel), submissions.marks_of(submissions.ids("answer")[:-1])),
        "truncated": (text[: len(text) // 2], 0),
        "empty": ("", 0),
        "no-notebook": ("[1, 2, 3]", 0),
        "cells-of-no-kind": (json.dumps(submissions.perfect() | {"cells": [{"cell_type": 3}, "x"]}), 0),
        "no-cells": (json.dumps(submissions.perfect() | {"cells": []}), 0),
    }


def _format_3(notebook: Notebook) -> Notebook:
    """The notebook as IPython wrote it before 2015: worksheets, `input`, no cell ids."""
    cells = [
        {"cell_type": cell["cell_type"], "metadata": cell["metadata"]}
        | (
            {"input": cell["source"], "outputs": [], "language": "python", "collapsed": False}
            if cell["cell_type"] == "code"
            else {"source": cell["source"]}
        )
        for cell in notebook["cells"]
    ]
    worksheet = {"metadata": {}, "cells": cells}
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [worksheet]}


def _kind(cell: dict[str, Any]) -> str | None:
    flags = cell["metadata"].get("nbgrader", {})
    if flags.get("grade"):
        return "manual" if flags.get("solution") else "test"
    return "answer" if flags.get("solution") else None
