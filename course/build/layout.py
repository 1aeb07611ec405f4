"""Where everything of a course lies, relative to its root."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

from ..error import UsageError


@dataclasses.dataclass(frozen=True)
class Layout:
    """The paths of one course.

    Attributes:
        root: the folder that holds ``course/lessons`` and ``nbgrader_config.py``.
        language: which translation is built; English is the source language.
    """

    root: Path
    language: str = "en"

    @classmethod
    def find(cls, start: Path | None = None) -> Layout:
        """Find the course around `start` (default: the working directory).

        Raises:
            UsageError: no folder above holds ``course/lessons``.
        """
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / "course" / "lessons").is_dir():
                return cls(folder)
        raise UsageError(
            f"{start} is not inside the course: no folder above it has course/lessons. Change to a checkout."
        )

    @property
    def lessons(self) -> Path:
        """Lesson texts."""
        return self.root / "course" / "lessons"

    @property
    def source(self) -> Path:
        """Instructor's notebooks, one folder per lesson."""
        return self.root / "source"

    @property
    def release(self) -> Path:
        """Students' notebooks in this language, one folder per lesson."""
        return self.root / "release" / self.language

    @property
    def config(self) -> Path:
        """What plain nbgrader commands read."""
        return self.root / "nbgrader_config.py"

    @property
    def sanitize(self) -> Path:
        """What is volatile in outputs; nbval reads the same file."""
        return self.root / "tests" / "notebooks" / "sanitize.cfg"

    @property
    def stamps(self) -> Path:
        """What was built last, by content; local to this checkout."""
        return self.root / ".stamps" / "build.json"

    def text(self, lesson: str) -> Path:
        """The lesson's text."""
        return self.lessons / f"{lesson}.md"

    def source_notebook(self, lesson: str) -> Path:
        """The instructor's version."""
        return self.source / lesson / f"{lesson}.ipynb"

    def release_notebook(self, lesson: str) -> Path:
        """The student's version."""
        return self.release / lesson / f"{lesson}.ipynb"

    def all_lessons(self) -> list[str]:
        """Every lesson that has a text, in order."""
        return sorted(path.stem for path in self.lessons.glob("[0-9][0-9]-*.md"))

    def select(self, names: Sequence[str]) -> list[str]:
        """Lessons by name, number (``9``, ``09``) or slug; all when none is named.

        Raises:
            UsageError: an unknown name; lists what exists and the closest.
        """
        known = self.all_lessons()
        if not names:
            return known
        by_name = {alias: lesson for lesson in known for alias in _aliases(lesson)}
        for name in names:
            if name not in by_name:
                near = difflib.get_close_matches(name, list(by_name), n=1)
                hint = f" Did you mean {by_name[near[0]]}?" if near else ""
                raise UsageError(f"there is no lesson {name!r}; lessons are: {', '.join(known) or 'none'}.{hint}")
        return list(dict.fromkeys(by_name[name] for name in names))


def _aliases(lesson: str) -> list[str]:
    number, _, slug = lesson.partition("-")
    return [lesson, number, str(int(number)), slug, f"{lesson}.md", f"course/lessons/{lesson}.md"]
