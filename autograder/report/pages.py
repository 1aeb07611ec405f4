"""HTML reports: one page per lesson and one for the class, each a single file that loads nothing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from course.plot import bars

from ..similarity import Pair, groups
from .items import LessonFigures

_TEMPLATES = Path(__file__).parent / "templates"


def write(
    figures: Sequence[LessonFigures],
    folder: Path,
    *,
    likeness: Mapping[str, Sequence[Pair]] | None = None,
    now: datetime.datetime | None = None,
) -> list[Path]:
    """Write ``<lesson>.html`` for each lesson and ``index.html`` for the class.

    Args:
        figures: of the lessons.
        folder: made if need be.
        likeness: by lesson, the pairs of students whose answers resemble each other.
        now: the time shown as that of the report; None for the present.

    Returns:
        The files, ``index.html`` last.
    """
    import jinja2  # noqa: PLC0415 - of the extra "grader"

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": _number, "percent": _percent, "time": _time}
    folder.mkdir(parents=True, exist_ok=True)
    when = (now or datetime.datetime.now(datetime.UTC)).strftime("%Y-%m-%d %H:%M UTC")
    written = []
    for one in figures:
        page = environment.get_template("lesson.html.j2").render(
            figures=one,
            lesson=one.lesson,
            plots=_plots(one),
            alike=groups(likeness[one.lesson.name]) if likeness and one.lesson.name in likeness else None,
            when=when,
        )
        written.append(_save(folder / f"{one.lesson.name}.html", page))
    page = environment.get_template("class.html.j2").render(all=figures, rows=_rows(figures), when=when)
    written.append(_save(folder / "index.html", page))
    return written


def _plots(figures: LessonFigures) -> list[tuple[Markup, str]]:
    """Drawings with their words: how the marks are spread, and how each exercise went."""
    if not figures.lesson.submissions:
        return []
    tenths = [f"{10 * n}–{10 * n + 10}" for n in range(10)]
    best = max(range(10), key=figures.histogram.__getitem__)
    plots = [
        bars(
            tenths,
            {"submissions": figures.histogram},
            title="Marks",
            unit="submissions",
            summary=f"{len(figures.lesson.submissions)} submissions; most of them, {figures.histogram[best]}, have "
            f"{tenths[best]} % of the marks.",
        )
    ]
    items = [item for item in figures.items if item.share is not None]
    if items:
        hardest = min(items, key=lambda item: item.share or 0.0)
        plots.append(
            bars(
                [item.item.cell.replace("_", "\n") for item in items],
                {"mean share of the points": [100 * (item.share or 0.0) for item in items]},
                title="Exercises",
                unit="% of the points",
                summary=f"The hardest is {hardest.item.cell}: {_percent(hardest.share)} of its points were given.",
            )
        )
    return [(Markup(plot.svg[plot.svg.index("<svg") :]), plot.summary) for plot in plots]  # noqa: S704 - drawn by us


def _rows(figures: Sequence[LessonFigures]) -> list[tuple[str, list[float | None], float]]:
    totals = [{one.student: one.total for one in lesson.lesson.submissions} for lesson in figures]
    students = sorted({s for row in totals for s in row} | {s for one in figures for s in one.lesson.missing})
    rows = []
    for student in students:
        marks = [row.get(student) for row in totals]
        rows.append((student, marks, sum(filter(None, marks))))
    return rows


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{round(value, digits):g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _time(value: datetime.datetime | None) -> str:
    return "–" if value is None else value.strftime("%Y-%m-%d %H:%M")


def _save(path: Path, page: str) -> Path:
    path.write_text(page, encoding="utf-8")
    return path
