"""A zygote per level that this machine allows, shared by the tests of a module; and a look at what they leave."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autograder.sandbox import Box, Isolation, Level, Limits, Zygote, probing
from tests.autograder.sandbox.student import Student

collect_ignore_glob = [] if sys.platform.startswith("linux") else ["test_*.py"]  # elsewhere the level is none

LEVELS = {
    "namespaces": Level(Isolation.NAMESPACES, userns=os.getuid() != 0),
    "userns": Level(Isolation.NAMESPACES, userns=True),
    "bubblewrap": Level(Isolation.BUBBLEWRAP),
    "landlock": Level(Isolation.LANDLOCK),
}


def allowed(name: str) -> Level:
    """Return a level, or skip the test where this machine refuses it."""
    if name == "userns" and os.getuid() != 0:
        pytest.skip("not root: namespaces are made in a user namespace anyway")
    if why := probing.attempt(LEVELS[name]):
        pytest.skip(f"{name}: {why}")
    return LEVELS[name]


@pytest.fixture(scope="module")
def zygotes() -> Iterator[Callable[[str], Zygote]]:
    """Return the zygote of a level, starting it on first use."""
    made: dict[str, Zygote] = {}

    def of(name: str) -> Zygote:
        if name not in made:
            made[name] = Zygote(allowed(name))
        return made[name]

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield of
    for zygote in made.values():
        zygote.close()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """Return a submission's folder and a run directory; removed afterwards."""
    base = Path(tempfile.mkdtemp(prefix="t-"))
    base.chmod(0o755)  # without a root of his own, the student of level landlock must get through
    work, run = base / "work", base / "run"
    work.mkdir()
    run.mkdir()
    (work / "problem.ipynb").write_text("hidden tests")
    (work / "data.txt").write_text("numbers")
    yield work, run
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def enter(zygotes: Callable[[str], Zygote], folders: tuple[Path, Path]) -> Iterator[Callable[..., Student]]:
    """Return what makes a box of a level and connects to its kernel; one per test."""
    boxes: list[Box] = []
    students: list[Student] = []

    def into(level: str = "namespaces", limits: Limits | None = None, **options: object) -> Student:
        boxes.append(zygotes(level).box(*folders, limits, **options))  # type: ignore[arg-type]
        students.append(Student(boxes[-1]))
        return students[-1]

    yield into
    for student in students:
        student.__exit__(None, None, None)
    for box in boxes:
        box.kill()
