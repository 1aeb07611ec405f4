"""CSV tables of a graded lesson, for a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .items import LessonFigures


def write(figures: Sequence[LessonFigures], folder: Path) -> list[Path]:
    """Write ``<lesson>-students.csv`` and ``<lesson>-exercises.csv`` for each lesson and ``class.csv`` for all.

    Returns:
        The files, in the order in which they were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in figures:
        name = one.lesson.name
        written.append(_table(folder / f"{name}-students.csv", _students(one)))
        written.append(_table(folder / f"{name}-exercises.csv", _exercises(one)))
    written.append(_table(folder / "class.csv", _class(figures)))
    return written


def _students(figures: LessonFigures) -> list[list[Any]]:
    items = figures.lesson.items
    columns = [f"{item.cell} (of {item.points:g})" for item in items]
    rows: list[list[Any]] = [
        ["student", "name", "handed_in_utc", "late_s", "penalty", "score", "max_score", "tests_s", "sandbox", *columns]
    ]
    for one in figures.lesson.submissions:
        marks = [one.marks.get(item.cell) for item in items]
        rows.append(
            [
                safe(one.student),
                safe(one.name),
                one.time.isoformat(sep=" ") if one.time else "",
                round(one.late_s),
                one.penalty,
                one.total,
                figures.lesson.max_score,
                round(one.seconds, 2),
                one.sandbox,
                *("" if mark is None or mark.points is None else mark.points for mark in marks),
            ]
        )
    rows += [[safe(student), "", "", "", "", "", figures.lesson.max_score] for student in figures.lesson.missing]
    return rows


def _exercises(figures: LessonFigures) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["cell", "points", "answered", "mean_share", "discrimination", "median_tests_s", "states", "misconceptions"]
    ]
    for item in figures.items:
        rows.append(
            [
                item.item.cell,
                item.item.points,
                item.answered,
                "" if item.share is None else round(item.share, 3),
                "" if item.discrimination is None else round(item.discrimination, 3),
                round(item.seconds, 2),
                "; ".join(f"{state}: {count}" for state, count in item.states.items()),
                "; ".join(f"{name}: {count}" for name, count in item.misconceptions.items()),
            ]
        )
    return rows


def _class(figures: Sequence[LessonFigures]) -> list[list[Any]]:
    """One row a student, one column a lesson."""
    totals = {one.lesson.name: {s.student: s.total for s in one.lesson.submissions} for one in figures}
    students = sorted({student for row in totals.values() for student in row} | _missing(figures))
    rows: list[list[Any]] = [
        ["student", *(f"{one.lesson.name} (of {one.lesson.max_score:g})" for one in figures), "total"]
    ]
    for student in students:
        marks = [row.get(student) for row in totals.values()]
        rows.append([safe(student), *("" if mark is None else mark for mark in marks), sum(filter(None, marks))])
    return rows


def _missing(figures: Sequence[LessonFigures]) -> set[str]:
    return {student for one in figures for student in one.lesson.missing}


def safe(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula (``=``, ``+``, ``-``, ``@`` at its beginning)."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _table(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path
