"""The one writer of the gradebook: plain nbgrader's autograde, submission by submission, behind a lock."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..cache import write_whole
from .course import Course, GradingError, Submission
from .naming import lesson_digests

_DEAD_LETTERS = 12


@contextlib.contextmanager
def writing(course: Course) -> Iterator[None]:
    """Be the only ``course grade`` that writes this course's gradebook.

    Raises:
        GradingError: another one does.
    """
    course.work.mkdir(parents=True, exist_ok=True)
    with (course.work / "grading.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise GradingError(
                f"another `course grade` (process {lock.read().strip() or '?'}) is writing this gradebook; "
                "wait for it or end it, nothing is lost by either"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Ledger:
    """Which execution of a submission was graded last: what is in the gradebook needs no second look.

    Args:
        course: whose submissions.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self._folder = course.work / "graded"

    def is_graded(self, one: Submission, keys: Sequence[str], known: set[Submission]) -> bool:
        """Whether the gradebook and the graded notebook hold what these executions gave.

        Args:
            one: the submission.
            keys: of its executions.
            known: all submissions in the gradebook.
        """
        folder = self._course.path("autograded", one.student, one.lesson)
        if one not in known or not any(folder.glob("*.ipynb")):
            return False
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads(self._path(one).read_text()) == self._entry(one, keys))
        return False

    def add(self, one: Submission, keys: Sequence[str]) -> None:
        """Note that these executions are in the gradebook."""
        write_whole(self._path(one), json.dumps(self._entry(one, keys)).encode())

    def _entry(self, one: Submission, keys: Sequence[str]) -> dict[str, Any]:
        folder = self._course.path("submitted", one.student, one.lesson)
        stamp = folder / "timestamp.txt"
        handed_in = stamp.read_text().strip() if stamp.is_file() else ""
        return {"executions": list(keys), "handed_in": handed_in, "lesson": self._lesson(one.lesson)}

    @functools.cache  # noqa: B019 - as long as the command
    def _lesson(self, lesson: str) -> str:
        """What the gradebook was to know of the lesson; not all of it takes part in executions."""
        return hashlib.sha256("\n".join(lesson_digests(self._course, lesson)).encode()).hexdigest()

    def _path(self, one: Submission) -> Path:
        name = hashlib.sha256(f"{one.lesson}\0{one.student}".encode()).hexdigest()[:24]
        return self._folder / f"{name}.json"


class Gradebook:
    """nbgrader's gradebook, written through nbgrader's own commands.

    Args:
        course: the checkout.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        # nbgrader starts `alembic` by name when it makes a gradebook, also where no environment was activated.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        sys.path[:0] = [] if str(course.root) in sys.path else [str(course.root)]

    @functools.cached_property
    def _api(self) -> Any:
        directory = self._course.directory
        from nbgrader.apps.api import NbGraderAPI  # noqa: PLC0415 - slow to import

        return NbGraderAPI(directory, config=self._course.config)

    def known(self) -> set[Submission]:
        """All submissions that have marks.

        Raises:
            GradingError: the gradebook cannot be opened.
        """
        import sqlalchemy  # noqa: PLC0415 - slow to import

        url = sqlalchemy.make_url(self._course.db_url)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            return set()
        with self._told():
            engine = sqlalchemy.create_engine(url)
            try:
                with engine.connect() as base:
                    if not sqlalchemy.inspect(base).has_table("submitted_assignment"):
                        return set()
                    return {Submission(str(lesson), str(student)) for lesson, student in base.execute(_known())}
            finally:
                engine.dispose()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        with self._told(), self._api.gradebook as gradebook:
            yield gradebook

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what to do about a gradebook that cannot be used."""
        import sqlalchemy.exc  # noqa: PLC0415 - slow to import

        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise GradingError(
                f"the gradebook {self._course.db_url} cannot be used: {type(error).__name__}: {error}. "
                "Put a copy of it back, or move it away: a new one is made, and marks given by hand are lost with it"
            ) from error

    def enter(self, lesson: str) -> str:
        """Make sure that the gradebook knows the lesson as the instructor's notebook has it.

        Returns:
            What was done, in words; empty when nothing had to be.

        Raises:
            GradingError: the lesson cannot be entered; nbgrader's own words say why.
        """
        want = [_tests(path) for path in self._course.source_notebooks(lesson)]
        have = self._entered(lesson)
        if have == want:
            return ""
        with tempfile.TemporaryDirectory(prefix="release-") as scratch:
            directory = self._course.directory
            before = directory.release_directory
            directory.release_directory = scratch
            try:
                said = self._api.generate_assignment(lesson, force=True, create=True)
            finally:
                directory.release_directory = before
        if not said["success"]:
            raise GradingError(f"{lesson} cannot be entered into the gradebook: {_last_words(said)}")
        if have is None:
            return f"{lesson} was entered into the gradebook"
        return f"{lesson} has changed since it was entered into the gradebook; its tests are the new ones from now on"

    def _entered(self, lesson: str) -> list[dict[str, tuple[str, float]]] | None:
        from nbgrader.api import MissingEntry  # noqa: PLC0415

        with self._opened() as gradebook:
            try:
                notebooks = sorted(gradebook.find_assignment(lesson).notebooks, key=lambda one: str(one.name))
            except MissingEntry:
                return None
            entered = []
            for notebook in notebooks:
                points = {str(cell.name): float(cell.max_score) for cell in notebook.grade_cells}
                entered.append(
                    {
                        str(cell.name): (str(cell.source).strip(), points.get(str(cell.name), 0.0))
                        for cell in notebook.source_cells
                        if cell.locked
                    }
                )
            return entered

    def grade(self, one: Submission) -> str:
        """Write one submission's marks, as ``nbgrader autograde --force`` does.

        Returns:
            Empty when they are written; otherwise nbgrader's last words.
        """
        student = glob.escape(one.student)  # nbgrader looks for it as a pattern
        said = self._api.autograde(one.lesson, student, force=True, create=True)
        return "" if said["success"] else _last_words(said)

    def marks(self, one: Submission) -> tuple[float, float]:
        """A submission's marks and the most there are to have."""
        with self._opened() as gradebook:
            found = gradebook.find_submission(one.lesson, one.student)
            return float(found.score), float(found.max_score)


def _tests(path: Path) -> dict[str, tuple[str, float]]:
    """By grade id: text and points of an instructor's notebook's locked cells."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tests = {}
    for cell in cells:
        grading = cell["metadata"].get("nbgrader", {})
        if grading.get("locked"):
            points = float(grading.get("points", 0) or 0) if grading.get("grade") else 0.0
            tests[grading["grade_id"]] = ("".join(cell["source"]).strip(), points)
    return tests


def _known() -> Any:
    import sqlalchemy  # noqa: PLC0415 - slow to import

    return sqlalchemy.text(
        "select assignment.name, submitted_assignment.student_id from submitted_assignment "
        "join assignment on assignment.id = submitted_assignment.assignment_id"
    )


def _last_words(said: dict[str, Any]) -> str:
    lines = [line for line in (said.get("error") or said.get("log") or "").splitlines() if line.strip()]
    return " | ".join(lines[-_DEAD_LETTERS:]) or "nbgrader gave no reason"
