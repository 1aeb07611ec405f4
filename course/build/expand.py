"""Make a notebook's cells from a lesson's: nbgrader metadata from ``ng``, ids from grade ids and headings.

=========================  =======================================  ================================
``ng``                     what it is                               nbgrader's flags
=========================  =======================================  ================================
``answer ID``              code that the student completes          solution
``test ID POINTS``         checks, visible then hidden              grade, locked
``manual ID POINTS``       an answer that a person grades           grade, solution
``task ID POINTS``         a task that a person grades              task, locked
``locked ID``              code that nobody may change              locked
=========================  =======================================  ================================

Cell ids are never random: the grade id, else the slug of the heading above and a number, so that a change moves only
the ids of its own section. Everything that nbgrader would only notice later, or not at all, is refused here with its
line.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from ..error import BuildError
from .markers import Block, MarkerError, Region, is_marker, regions, without
from .text import Cell, Lesson, read


class _Kind(NamedTuple):
    grade: bool
    solution: bool
    locked: bool
    task: bool
    cells: tuple[str, ...]

    @property
    def scored(self) -> bool:
        return self.grade or self.task


KINDS = {
    "answer": _Kind(False, True, False, False, ("code",)),
    "test": _Kind(True, False, True, False, ("code",)),
    "manual": _Kind(True, True, False, False, ("markdown", "code")),
    "task": _Kind(False, False, True, True, ("markdown",)),
    "locked": _Kind(False, False, True, False, ("code",)),
}
_REGIONS = {
    "answer": {Region.SOLUTION},
    "manual": {Region.SOLUTION, Region.MARK_SCHEME},
    "test": {Region.HIDDEN_TESTS},
    "task": {Region.MARK_SCHEME},
}
_USAGE = "`answer ID`, `test ID POINTS`, `manual ID POINTS`, `task ID POINTS` or `locked ID`"
_GRADE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*#*$")

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}


def load(path: Path) -> Lesson:
    """Read and expand the lesson's text at `path`.

    Raises:
        BuildError: the text cannot become a notebook.
    """
    lesson = read(path)
    expand(lesson)
    return lesson


def expand(lesson: Lesson) -> None:
    """Give every cell of `lesson` its id and, where it has ``ng``, its nbgrader metadata.

    Raises:
        BuildError: what cannot be meant; with line and cell.
    """
    section, number = lesson.name, 0
    seen: dict[str, int] = {}
    lesson.cells = [part for cell in lesson.cells for part in _split(lesson.name, cell)]
    for cell in lesson.cells:
        titles = headings(cell.source) if cell.kind == "markdown" else []
        if titles:
            section, number = slug(titles[0].text), 0
        spec = cell.metadata.pop("ng", None)
        if spec is not None:
            cell.metadata["nbgrader"] = _grade(lesson.name, cell, str(spec))
            cell.id = cell.grade["grade_id"]
        else:
            cell.id = _free(section, number, seen)
            number += 1
        if cell.id in seen:
            message = f"grade id {cell.id!r} is used twice, first in line {seen[cell.id]}; choose another"
            raise BuildError(lesson.name, message, line=cell.line, cell=cell.id)
        seen[cell.id] = cell.line
        _check_regions(lesson.name, cell)


def notebook(lesson: Lesson) -> dict[str, Any]:
    """The notebook of an expanded lesson, not executed: plain data in nbformat 4.5."""
    return {
        "cells": [_notebook_cell(cell) for cell in lesson.cells],
        "metadata": {"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO, "title": lesson.title},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


class Heading(NamedTuple):
    """A heading of a Markdown cell; `at` is its 0-based line."""

    level: int
    text: str
    at: int


def headings(source: str) -> list[Heading]:
    """Find the headings of a Markdown cell, outside its fences."""
    found, fence = [], ""
    for index, line in enumerate(source.split("\n")):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
        elif mark:
            fence = mark[1]
        elif (match := _HEADING.match(line)) and not is_marker(line):
            found.append(Heading(len(line) - len(line.lstrip("#")), match[1], index))
    return found


def _split(lesson: str, cell: Cell) -> list[Cell]:
    """Cut prose before each of its headings: JupyterLab folds sections and lists them by cells that begin with one."""
    cuts = [heading.at for heading in headings(cell.source) if heading.at] if cell.kind == "markdown" else []
    if not cuts:
        return [cell]
    if "ng" in cell.metadata:
        message = "a heading inside a graded cell; end the cell above it with a line `+++`"
        raise BuildError(lesson, message, line=cell.line + cuts[0], cell=str(cell.metadata["ng"]))
    lines = cell.source.split("\n")
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
        source = "\n".join(lines[start:end]).strip("\n")
        parts.append(dataclasses.replace(cell, source=source, metadata=dict(cell.metadata), line=cell.line + start))
    return parts


def slug(text: str) -> str:
    """ASCII letters, digits and dashes; at most 48."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:48].strip("-") or "section"


def _free(section: str, number: int, seen: dict[str, int]) -> str:
    """An id for a cell without grade; equal headings are told apart by a letter."""
    base = section
    for suffix in ("", *(f"-{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")):
        base = section + suffix
        candidate = base if number == 0 else f"{base}-{number}"
        if candidate not in seen:
            return candidate
    return f"{base}-{number}-{len(seen)}"


def _grade(lesson: str, cell: Cell, spec: str) -> dict[str, Any]:
    """Nbgrader's metadata for one ``ng`` line."""

    def refuse(why: str) -> BuildError:
        return BuildError(lesson, f"ng: {spec}: {why}", line=cell.line, cell=words[1] if len(words) > 1 else None)

    words = spec.split()
    if not words or words[0] not in KINDS:
        raise refuse(f"unknown kind; expected {_USAGE}")
    kind = KINDS[words[0]]
    if len(words) < 2 or not _GRADE_ID.fullmatch(words[1]):
        raise refuse(f"the grade id is missing or not made of letters, digits, _ and -; expected {_USAGE}")
    if cell.kind not in kind.cells:
        raise refuse(f"a {words[0]} cell is {' or '.join(kind.cells)}, this one is {cell.kind}")
    if len(words) != (3 if kind.scored else 2):
        problem = "points are missing" if kind.scored and len(words) == 2 else "too many or too few words"
        raise refuse(f"{problem}; expected {_USAGE}")
    metadata = {
        "cell_type": cell.kind,
        "grade": kind.grade,
        "grade_id": words[1],
        "locked": kind.locked,
        "schema_version": 3,
        "solution": kind.solution,
        "task": kind.task,
    }
    if kind.scored:
        if not re.fullmatch(r"\d+(\.\d+)?", words[2]):
            raise refuse(f"points have to be a number of at least 0, not {words[2]!r}")
        metadata["points"] = float(words[2]) if "." in words[2] else int(words[2])
    return metadata


def kind_of(cell: Cell) -> str | None:
    """Which ``ng`` kind an expanded cell has; None for an ordinary one."""
    flags = cell.grade
    for name, kind in KINDS.items():
        if flags and (kind.grade, kind.solution, kind.locked, kind.task) == tuple(
            flags[key] for key in ("grade", "solution", "locked", "task")
        ):
            return name
    return None


def _check_regions(lesson: str, cell: Cell) -> None:
    """Refuse regions that nbgrader would misread, answers without a solution, tests without a check."""
    kind = kind_of(cell)
    try:
        found = regions(cell.source)
    except MarkerError as error:
        raise BuildError(lesson, str(error), line=cell.line + error.index, cell=cell.id) from None
    for block in found:
        if block.region not in _REGIONS.get(kind or "", set()):
            where = f"a {kind} cell" if kind else "a cell without ng"
            message = f"{block.region.value} region in {where}; nbgrader would not remove it"
            raise BuildError(lesson, message, line=cell.line + block.first, cell=cell.id)
    if kind in ("answer", "manual") and not any(block.region is Region.SOLUTION for block in found):
        message = "no solution: put it between ### BEGIN SOLUTION and ### END SOLUTION, or students get an empty cell"
        raise BuildError(lesson, message, line=cell.line, cell=cell.id)
    if kind == "test":
        _check_test(lesson, cell, found)


def _check_test(lesson: str, cell: Cell, found: list[Block]) -> None:
    visible = without(cell.source, Region.HIDDEN_TESTS)
    for block in found:
        _parse(lesson, cell, "\n".join(block.lines), block.first + 1)
    body = _parse(lesson, cell, visible, 0).body
    if not any(isinstance(node, ast.Call | ast.Assert) for statement in body for node in ast.walk(statement)):
        message = "a test without a check: call the exercise's check, such as `check.step(step)`"
        raise BuildError(lesson, message, line=cell.line, cell=cell.id)


def _parse(lesson: str, cell: Cell, code: str, offset: int) -> ast.Module:
    try:
        tree = compile(code, cell.id, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        line = cell.line + offset + (error.lineno or 1) - 1
        raise BuildError(lesson, f"not Python: {error.msg}", line=line, cell=cell.id) from None
    assert isinstance(tree, ast.Module)
    return tree


def _notebook_cell(cell: Cell) -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": cell.kind, "id": cell.id, "metadata": cell.metadata, "source": cell.source}
    if cell.kind == "code":
        made |= {"execution_count": None, "outputs": []}
    return made
