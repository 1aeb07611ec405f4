"""Read a lesson's answers for `similarity.compare`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..grading.course import Course
from ..similarity import Pair, compare


def pairs(course: Course, lesson: str) -> list[Pair]:
    """Pairs of students whose answers to a lesson share passages; something to look at, no verdict."""
    answers = {
        one.student: "\n".join(_answers(course.path("submitted", one.student, lesson).glob("*.ipynb")))
        for one in course.submissions([lesson])
    }
    released = "\n".join(_answers(course.path("release", ".", lesson).glob("*.ipynb")))
    return compare(answers, released)


def _answers(notebooks: Iterable[Path]) -> Iterable[str]:
    """The code cells that are the student's; nothing of a file that cannot be read."""
    for path in sorted(notebooks):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            for cell in cells:
                if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader", {}).get("locked"):
                    yield "".join(cell["source"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
