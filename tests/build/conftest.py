"""A small course in a temporary folder, with this course's own configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from course.build.layout import Layout

ROOT = Path(__file__).parents[2]
LESSON = "01-counting"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A course of one lesson, nothing built."""
    return small_course(tmp_path / "course root")


def small_course(root: Path) -> Layout:
    """Make a course of one lesson below `root`."""
    shutil.copytree(Path(__file__).parent / "lessons", root / "course" / "lessons")
    (root / "tests" / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "notebooks" / "sanitize.cfg", root / "tests" / "notebooks" / "sanitize.cfg")
    (root / "autograder").mkdir()  # the gradebook lies here
    shutil.copy(ROOT / "nbgrader_config.py", root / "nbgrader_config.py")
    return Layout(root)
