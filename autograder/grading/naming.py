"""Which executions a submission has, without looking into it twice.

The key of an execution is a digest of repaired cells (see `..cache`), for which a submission has to be read, repaired
and given the instructor's tests, which is a worker's business. Here the answer is kept under a digest of the files that
it depends on: naming what has not changed since costs no more than reading it, and does without nbgrader.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..cache import world, write_whole
from .course import CONFIG, Course, Submission

_FORMAT = 1


class Names:
    """The keys of submissions' executions, by what was handed in.

    Args:
        course: the checkout.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self._folder = course.work / "cache" / "names"
        self._asked: dict[Submission, Path] = {}

    def known(self, one: Submission) -> list[str] | None:
        """The keys, if they are known.

        Raises:
            OSError: what was handed in cannot even be read.
        """
        path = self._asked[one] = self._path(one)
        try:
            known = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return known if isinstance(known, list) else None

    def keep(self, one: Submission, names: Sequence[str]) -> None:
        """Keep the keys for another time, unless something has been changed since `known` was asked."""
        with contextlib.suppress(OSError):  # they are found again
            if (path := self._path(one)) == self._asked.get(one):
                write_whole(path, json.dumps(list(names)).encode())

    def _path(self, one: Submission) -> Path:
        folder = self._course.path("submitted", one.student, one.lesson)
        parts = [one.student, *digests(folder), *self._lesson(one.lesson)]
        return self._folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}.json"

    @functools.cache  # noqa: B019 - as long as the command
    def _lesson(self, lesson: str) -> tuple[str, ...]:
        """What all submissions of a lesson depend on."""
        return (*self._course_parts, *lesson_digests(self._course, lesson))

    @functools.cached_property
    def _course_parts(self) -> tuple[str, ...]:
        from ..sandbox import probe  # noqa: PLC0415 - Linux only

        config = (self._course.root / CONFIG).read_text(encoding="utf-8", errors="replace")
        return (str(_FORMAT), world(), str(probe().level), config, canonical(self._course.config))


def lesson_digests(course: Course, lesson: str) -> list[str]:
    """What an instructor's and a released lesson consist of."""
    return [line for kind in ("source", "release") for line in digests(course.path(kind, ".", lesson))]


def digests(folder: Path) -> list[str]:
    """A line for each file of a folder, by name: what it is, and a digest of what is in it."""
    return [f"{path.relative_to(folder)} {_digest(path)}" for path in sorted(folder.rglob("*"))]


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"leads to {path.readlink()}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "folder" if path.is_dir() else "no file"


def canonical(value: Any) -> str:
    """Settings as text that is the same in every process."""
    if isinstance(value, dict):
        return _listed(f"{name!r}: {canonical(part)}" for name, part in value.items())
    if isinstance(value, set | frozenset):
        return _listed(map(canonical, value))
    return repr(value)


def _listed(parts: Iterable[str]) -> str:
    return "{" + ", ".join(sorted(parts)) + "}"
