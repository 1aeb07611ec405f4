"""The command ``course report``: pages and tables of what was graded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape


def report(
    lessons: Annotated[list[str] | None, typer.Argument(help="Lessons; all that were graded by default.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder; autograder/work/report by default.")] = None,
    similar: Annotated[bool, typer.Option(help="List answers that resemble each other.")] = True,
) -> None:
    """Write a report per lesson and per class: HTML to read, CSV for a spreadsheet."""
    from ..grading.course import Course, find_root  # noqa: PLC0415 - each command loads what it needs
    from . import measure, pages, read, tables  # noqa: PLC0415
    from .likeness import pairs  # noqa: PLC0415

    console = Console(stderr=True)
    course = Course(find_root())
    folder = to or course.work / "report"
    found = read(course.db_url, course.path("autograded", "student", "lesson").parents[1], lessons or ())
    likeness = {one.name: pairs(course, one.name) for one in found} if similar else {}
    figures = [measure(lesson) for lesson in found]
    written = [*tables.write(figures, folder), *pages.write(figures, folder, likeness=likeness)]
    console.print(f"{len(written)} files; begin with {escape(str(written[-1]))}", highlight=False, soft_wrap=True)
