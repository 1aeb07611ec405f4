"""Marks in the form in which Moodle and Canvas import them: plugins for ``nbgrader export``.

::

    nbgrader export --exporter autograder.export.MoodleExport --to moodle.csv
    nbgrader export --exporter autograder.export.CanvasExport --to canvas.csv

Both write one row a student and one column a lesson (marks after penalties). A student who handed in nothing gets an
empty field, which both systems read as "no change", never a 0 that nobody decided. A cell that still waits for a person
is named on the console, because the marks are not final then.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.plugins import ExportPlugin

from .report.tables import safe

_EMPTY = ""


class _Sheet(ExportPlugin):  # type: ignore[misc]
    """What the two formats share: which students, which lessons, which marks."""

    default_name = ""

    def export(self, gradebook: Gradebook) -> None:
        """Write the file ``self.to``; nbgrader calls this."""
        wanted, students = set(map(str, self.assignment)), set(map(str, self.student))
        lessons = sorted(
            (one for one in gradebook.assignments if not wanted or one.name in wanted), key=lambda one: str(one.name)
        )
        listed = [one for one in gradebook.students if not students or one.id in students]
        path = Path(self.to or self.default_name)
        rows = self.rows(gradebook, listed, lessons)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        self.log.info("Wrote the marks of %d students in %d lessons to %s", len(listed), len(lessons), path)

    def rows(self, gradebook: Gradebook, students: Sequence[Any], lessons: Sequence[Any]) -> list[list[Any]]:
        """Return the table, its head included."""
        raise NotImplementedError

    def mark(self, gradebook: Gradebook, student: Any, lesson: Any) -> float | str:
        """Marks after the penalty, or an empty field when nothing was handed in."""
        try:
            submission = gradebook.find_submission(lesson.name, student.id)
        except MissingEntry:
            return _EMPTY
        if submission.needs_manual_grade:
            self.log.warning("%s, %s: cells wait for a person; the mark is not final", student.id, lesson.name)
        return round(max(0.0, float(submission.score) - float(submission.late_submission_penalty or 0)), 4)


class MoodleExport(_Sheet):
    """For Moodle: Grades → Import → CSV file; map ``username`` or ``email`` to the user, the rest to grade items."""

    default_name = "moodle.csv"

    def rows(self, gradebook: Gradebook, students: Sequence[Any], lessons: Sequence[Any]) -> list[list[Any]]:
        """Head: username, email, names, then the lessons with their maximum."""
        head = ["username", "firstname", "lastname", "email", *(f"{one.name} ({one.max_score:g})" for one in lessons)]
        return [
            head,
            *(
                [
                    safe(one.id), safe(one.first_name or ""), safe(one.last_name or ""), safe(one.email or ""),
                    *(self.mark(gradebook, one, lesson) for lesson in lessons),
                ]
                for one in students
            ),
        ]  # fmt: skip


class CanvasExport(_Sheet):
    """For Canvas: Grades → Import; it matches rows by ``SIS Login ID`` and columns by the assignment's name."""

    default_name = "canvas.csv"

    def rows(self, gradebook: Gradebook, students: Sequence[Any], lessons: Sequence[Any]) -> list[list[Any]]:
        """Head and the row of possible points as Canvas's own export has them, then the students."""
        head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(one.name for one in lessons)]
        possible = ["    Points Possible", "", "", "", "", *(one.max_score for one in lessons)]
        rows: list[list[Any]] = [head, possible]
        for one in students:
            name = ", ".join(filter(None, (one.last_name, one.first_name))) or one.id
            marks = [self.mark(gradebook, one, lesson) for lesson in lessons]
            rows.append([safe(name), "", "", safe(one.id), "", *marks])
        return rows
