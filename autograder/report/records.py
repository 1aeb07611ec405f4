"""Read what grading left behind: the gradebook's marks and the graded notebooks' verdicts, as plain records."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from course.error import CourseError

KEY = "course"
"""Key of a graded notebook's metadata under which the grader leaves what the checks said (see `..execute`)."""
MANUAL = "graded by hand"
NO_VERDICT = "no verdict"


class ReportError(CourseError):
    """There is nothing to report on, or it cannot be read."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One graded cell of a lesson.

    Attributes:
        cell: its grade id.
        points: what it is worth.
        by_hand: whether a person grades it.
    """

    cell: str
    points: float
    by_hand: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """What one student got for one item, and why.

    Attributes:
        points: marks given; None while a person has not graded it yet.
        state: a verdict's state in words, `MANUAL` or `NO_VERDICT`.
        exercise: name of the function that was checked; empty without a verdict.
        misconception: the id of the first one found; empty without.
        message: what the check observed.
        seconds: how long its tests took.
    """

    points: float | None
    state: str = NO_VERDICT
    exercise: str = ""
    misconception: str = ""
    message: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Submission:
    """A student's graded submission.

    Attributes:
        student: their id.
        name: first and last name, or the id where the gradebook has none.
        time: when it was handed in (UTC), if known.
        late_s: seconds after the due date, 0 when in time or without a date.
        penalty: marks taken for lateness.
        score: marks before the penalty.
        marks: by the item's cell.
        sandbox: what kept the answers apart from the grader while they ran; empty when it was not recorded.
    """

    student: str
    name: str
    time: datetime.datetime | None
    late_s: float
    penalty: float
    score: float
    marks: Mapping[str, Mark]
    sandbox: str = ""

    @property
    def total(self) -> float:
        """Marks after the penalty, never below 0."""
        return max(0.0, self.score - self.penalty)

    @property
    def seconds(self) -> float:
        """How long all its tests took."""
        return sum(mark.seconds for mark in self.marks.values())


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A lesson with all that was handed in for it.

    Attributes:
        name: such as ``"05-emulation"``.
        max_score: marks of a perfect submission.
        items: graded cells in the notebook's order.
        submissions: sorted by student.
        missing: ids of the class list's students who handed in nothing.
    """

    name: str
    max_score: float
    items: tuple[Item, ...]
    submissions: tuple[Submission, ...]
    missing: tuple[str, ...] = ()


def read(db_url: str, autograded: Path, lessons: Iterable[str] = ()) -> list[Lesson]:
    """Read the graded lessons.

    Args:
        db_url: the gradebook's address, such as ``"sqlite:////…/gradebook.db"``.
        autograded: the folder of graded notebooks (``autograded/<student>/<lesson>/*.ipynb``).
        lessons: names; empty for all that the gradebook has.

    Raises:
        ReportError: no gradebook at that address, or it has no such lesson.
    """
    if db_url.startswith("sqlite:///") and not Path(path := db_url.removeprefix("sqlite:///")).is_file():
        raise ReportError(
            f"there is no gradebook at {path}; expected the one that grading makes. "
            "Run `course grade` or `nbgrader autograde` first."
        )
    from nbgrader.api import Gradebook  # noqa: PLC0415 - slow to import

    with Gradebook(db_url) as gradebook:
        known = {assignment.name: assignment for assignment in gradebook.assignments}
        wanted = list(lessons) or sorted(known)
        if strange := [name for name in wanted if name not in known]:
            raise ReportError(
                f"the gradebook has no lesson {', '.join(map(repr, strange))}; "
                f"it has {', '.join(sorted(known)) or 'none'}"
            )
        students = {student.id: student for student in gradebook.students}
        return [_lesson(known[name], students, autograded) for name in wanted]


def _lesson(assignment: Any, students: Mapping[str, Any], autograded: Path) -> Lesson:
    submissions: list[Submission] = []
    order: dict[str, int] = {}
    for submitted in sorted(assignment.submissions, key=lambda one: one.student_id):
        graded = _Graded.read(autograded / submitted.student_id / assignment.name)
        order = order or {name: number for number, name in enumerate(graded.cells)}
        marks = {
            grade.cell.name: _mark(grade, graded.said.get(grade.cell.name, {}))
            for notebook in submitted.notebooks
            for grade in notebook.grades
        }
        student = students.get(submitted.student_id)
        name = " ".join(filter(None, (student.first_name, student.last_name))) if student else ""
        submissions.append(
            Submission(
                submitted.student_id,
                name or submitted.student_id,
                submitted.timestamp,
                float(submitted.total_seconds_late or 0),
                float(submitted.late_submission_penalty or 0),
                float(submitted.score),
                marks,
                graded.sandbox,
            )
        )
    items = [
        Item(cell.name, float(cell.max_score), by_hand=_by_hand(cell))
        for notebook in assignment.notebooks
        for cell in notebook.grade_cells
    ]
    handed_in = {submission.student for submission in submissions}
    return Lesson(
        assignment.name,
        float(assignment.max_score),
        # The gradebook has no order of cells: take that of a graded notebook.
        tuple(sorted(items, key=lambda item: (order.get(item.cell, len(order)), item.cell))),
        tuple(submissions),
        tuple(sorted(students.keys() - handed_in)),
    )


def _by_hand(cell: Any) -> bool:
    """A cell that is answer and graded at once is for a person."""
    return any(other.name == cell.name for other in cell.notebook.solution_cells)


def _mark(grade: Any, said: Mapping[str, Any]) -> Mark:
    points = None if grade.needs_manual_grade and grade.manual_score is None else float(grade.score)
    if _by_hand(grade.cell):
        return Mark(points, MANUAL)
    seconds = float(said.get("seconds", 0))
    verdicts = said.get("checks", ())
    if not verdicts:
        return Mark(points, seconds=seconds)
    told = next((verdict for verdict in verdicts if verdict["state"] != "correct"), verdicts[-1])
    return Mark(points, told["state"], told["exercise"], told["misconception"], told["message"], seconds)


@dataclasses.dataclass(frozen=True)
class _Graded:
    """What a graded notebook tells besides marks."""

    cells: tuple[str, ...] = ()
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sandbox: str = ""

    @classmethod
    def read(cls, folder: Path) -> _Graded:
        """Read the notebooks of a folder; one that cannot be read tells nothing: its marks are in the gradebook."""
        cells: list[str] = []
        said: dict[str, Any] = {}
        sandbox = ""
        for path in sorted(folder.glob("*.ipynb")):
            try:
                notebook = json.loads(path.read_text(encoding="utf-8"))
                found = [cell["metadata"].get("nbgrader", {}) for cell in notebook["cells"]]
                left = notebook["metadata"].get(KEY, {})
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            cells += [grading["grade_id"] for grading in found if grading.get("grade")]
            said |= left.get("verdicts", {})
            sandbox = str(left.get("sandbox", sandbox))
        return cls(tuple(cells), said, sandbox)
