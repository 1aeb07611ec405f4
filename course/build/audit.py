"""Compare the committed notebooks with what the texts give, without running anything: what CI checks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..error import BuildError
from . import outputs
from .expand import load, notebook
from .figures import figures, present
from .layout import Layout
from .leaks import release_leaks
from .release import files, generated
from .text import Lesson

_SHOWN = 5
_LEAK_REMEDY = "students must not have it: correct the text and build"
_FOLDER_REMEDY = "remove it, or give it a text in course/lessons/"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is not as the texts say.

    Attributes:
        path: the file or folder, relative to the root.
        problem: what is wrong with it.
        remedy: the command or the change that mends it.
    """

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


def audit(layout: Layout, lessons: Sequence[str], *, everything: bool) -> list[Finding]:
    """Look for all that is missing, stale, changed by hand or too much.

    Args:
        layout: the course.
        lessons: which lessons.
        everything: look for folders without a text and for leaked secrets as well.
    """
    found: list[Finding] = []
    sound = []
    readable = True
    for lesson in lessons:
        try:
            problems = source_problems(layout, load(layout.text(lesson)))
        except BuildError as error:
            found.append(Finding(str(layout.text(lesson).relative_to(layout.root)), str(error), "correct the text"))
            readable = False
            continue
        found += problems
        if not problems:
            sound.append(lesson)
    found += release_problems(layout, sound)
    if everything:
        found += _strays(layout)
        if readable:
            found += [
                Finding(leak.path, f"leaks {leak.what!r} of {leak.origin}", _LEAK_REMEDY)
                for leak in release_leaks(layout)
            ]
    return found


def source_problems(layout: Layout, lesson: Lesson) -> list[Finding]:
    """How the instructor's notebook differs from what its text gives, outputs aside."""
    path = layout.source_notebook(lesson.name)
    remedy = f"run `course build {lesson.name}` and commit the result"

    def finding(problem: str) -> Finding:
        return Finding(str(path.relative_to(layout.root)), problem, remedy)

    if not path.exists():
        return [finding("missing")]
    try:
        committed = outputs.read(path)
        canonical = outputs.dumps(committed) == path.read_text(encoding="utf-8")
        found = [finding(problem) for problem in _differences(notebook(lesson), outputs.without_outputs(committed))]
        found += [finding(f"cell {cell} has not been executed") for cell in _unexecuted(committed)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [finding(f"not a notebook ({type(error).__name__}: {error})")]
    if not canonical and not found:
        found = [finding("has not the bytes that `course build` writes (saved by another program?)")]
    if present(path.parent) != figures(lesson, layout.lessons):
        found.append(finding("its figures are not those of course/lessons/figures"))
    return found


def release_problems(layout: Layout, lessons: Sequence[str]) -> Iterator[Finding]:
    """How the students' notebooks differ from what nbgrader makes of the instructor's."""
    if not lessons:
        return
    with generated(layout, lessons) as folder:
        for lesson in lessons:
            want, have = files(folder / lesson), files(layout.release / lesson)
            for name in sorted(want.keys() | have.keys()):
                if want.get(name) != have.get(name):
                    problem = "missing" if name not in have else "not made from source/" if name in want else "too much"
                    path = (layout.release / lesson / name).relative_to(layout.root)
                    yield Finding(str(path), problem, f"run `course build {lesson}` and commit the result")


def _differences(want: dict[str, Any], have: dict[str, Any]) -> list[str]:
    """What differs between two notebooks without outputs, in words."""
    if want == have:
        return []
    if len(want["cells"]) != len(have["cells"]):
        return [f"has {len(have['cells'])} cells, the text gives {len(want['cells'])}"]
    found = []
    for one, other in zip(want["cells"], have["cells"], strict=True):
        if parts := [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]:
            found.append(f"cell {one['id']} is not what the text gives: {', '.join(parts)} differ")
    if len(found) > _SHOWN:
        return [*found[:_SHOWN], f"{len(found) - _SHOWN} more cells are not what the text gives"]
    if found:
        return found
    return [f"its metadata is not what the text gives: {json.dumps(have['metadata'])[:200]}"]


def _unexecuted(committed: dict[str, Any]) -> list[str]:
    return [
        cell["id"]
        for cell in committed["cells"]
        if cell["cell_type"] == "code"
        and cell["execution_count"] is None
        and cell["source"].strip()
        and "skip-execution" not in cell["metadata"].get("tags", [])
    ]


def _strays(layout: Layout) -> Iterator[Finding]:
    """Folders and files that no text asks for."""
    known = set(layout.all_lessons())
    for folder in (layout.source, layout.release):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name not in known and path.name != ".ipynb_checkpoints":
                yield Finding(str(path.relative_to(layout.root)), "belongs to no lesson", _FOLDER_REMEDY)
    for lesson in sorted(known):
        allowed = {f"{lesson}.ipynb", "figures", ".ipynb_checkpoints"}
        yield from _extra_files(layout, layout.source / lesson, allowed)


def _extra_files(layout: Layout, folder: Path, allowed: set[str]) -> Iterator[Finding]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in allowed:
            yield Finding(str(path.relative_to(layout.root)), "is not made by `course build`", "remove it")
