"""The course as nbgrader's configuration describes it: its folders, its lessons, what was handed in."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from course.error import CourseError

CONFIG = "nbgrader_config.py"
_STRUCTURE = os.path.join("{nbgrader_step}", "{student_id}", "{assignment_id}")  # noqa: PTH118 - nbgrader's own


class GradingError(CourseError):
    """Grading cannot begin or go on; the message says what to do."""


@dataclasses.dataclass(frozen=True, order=True)
class Submission:
    """What one student handed in for one lesson."""

    lesson: str
    student: str


class Course:
    """A checkout with its configuration.

    Args:
        root: the folder of nbgrader_config.py.

    Raises:
        GradingError: there is none, or it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        # jsonschema, which nbgrader imports, takes a second to build a parser of addresses that are never asked for.
        sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
        self.config = _configuration(self.root)

    @functools.cached_property
    def directory(self) -> Any:
        """What nbgrader itself knows of the course; a second, to import nbgrader."""
        from nbgrader.coursedir import CourseDirectory  # noqa: PLC0415 - slow to import

        found = CourseDirectory(config=self.config)
        found.root = str(self.root)
        return found

    def path(self, kind: str, student: str, lesson: str) -> Path:
        """One of nbgrader's folders: ``submitted``, ``autograded``, ``release`` or ``source``."""
        said = self.config.CourseDirectory
        structure = str(said.get("directory_structure", _STRUCTURE))
        step = str(said.get(f"{kind}_directory", kind))
        return self.root / structure.format(nbgrader_step=step, student_id=student, assignment_id=lesson)

    @property
    def work(self) -> Path:
        """Where grading keeps what is its own."""
        return self.root / "autograder" / "work"

    @property
    def db_url(self) -> str:
        """The gradebook's address."""
        return str(self.config.CourseDirectory.get("db_url", f"sqlite:///{self.root / 'gradebook.db'}"))

    def source_notebooks(self, lesson: str) -> list[Path]:
        """The instructor's notebooks of a lesson."""
        return sorted(self.path("source", ".", lesson).glob("*.ipynb"))

    def submissions(self, lessons: Iterable[str] = (), students: Iterable[str] = ()) -> list[Submission]:
        """List what was handed in, by lesson and student.

        Raises:
            GradingError: a lesson that is named here is not one of the course.
        """
        wanted, whose = set(lessons), set(students)
        for lesson in sorted(wanted):
            if not self.source_notebooks(lesson):
                known = sorted(path.parent.name for path in self.path("source", ".", "x").parent.glob("*/*.ipynb"))
                raise GradingError(f"there is no lesson {lesson!r}; the course has {', '.join(known) or 'none yet'}")
        folder = self.path("submitted", "student", "lesson").parents[1]
        found = []
        for path in sorted(folder.glob("*/*")):
            one = Submission(path.name, path.parent.name)
            if path.is_dir() and (not wanted or one.lesson in wanted) and (not whose or one.student in whose):
                found.append(one)
        return sorted(found)


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder upwards with nbgrader_config.py.

    Raises:
        GradingError: there is none.
    """
    begin = (start or Path.cwd()).resolve()
    for folder in (begin, *begin.parents):
        if (folder / CONFIG).is_file():
            return folder
    raise GradingError(f"no {CONFIG} in {begin} or above it; go to the checkout of the course and try again")


def _configuration(root: Path) -> Any:
    from traitlets.config.loader import PyFileConfigLoader  # noqa: PLC0415 - slow to import

    try:
        return PyFileConfigLoader(CONFIG, path=str(root)).load_config()
    except Exception as error:
        raise GradingError(f"{root / CONFIG} cannot be read: {type(error).__name__}: {error}") from error
