"""`course build`: decide what is stale, run that, keep what only looks different, make the release."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from ..error import BuildError
from .layout import Layout
from .stamp import Stamps

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass
class Report:
    """What a build did.

    Attributes:
        unchanged: lessons that cost nothing.
        executed: lessons that were run.
        released: lessons whose student version changed.
        errors: one for each lesson that could not be built.
    """

    unchanged: list[str] = dataclasses.field(default_factory=list)
    executed: list[str] = dataclasses.field(default_factory=list)
    released: list[str] = dataclasses.field(default_factory=list)
    errors: list[BuildError] = dataclasses.field(default_factory=list)


def build(
    layout: Layout,
    lessons: Sequence[str],
    *,
    force: bool = False,
    jobs: int | None = None,
    timeout_s: float = 300,
    progress: Progress = lambda lesson, done, total: None,
) -> Report:
    """Bring source/ and release/ of `lessons` up to date.

    Args:
        layout: the course.
        lessons: as `Layout.select` gives them.
        force: run the lessons even when nothing changed.
        jobs: how many lessons run at once; None for one per processor.
        timeout_s: limit of one cell, in seconds.
        progress: told the lesson, and how many of its cells have run.

    Returns:
        What was done; a lesson that fails does not stop the others.
    """
    stamps = Stamps(layout)
    report = Report()
    stale = []
    for lesson in lessons:
        if not force and stamps.fresh(lesson):
            report.unchanged.append(lesson)
        else:
            stale.append(lesson)
    if stale:
        done = _execute_stale(
            layout,
            stale,
            report,
            force=force,
            jobs=jobs or os.cpu_count() or 1,
            timeout_s=timeout_s,
            progress=progress,
        )
        _release(layout, done, report)
        failed = {error.lesson for error in report.errors}
        for lesson in done:
            if lesson not in failed:
                stamps.stamp(lesson)
        stamps.save()
    return report


def _execute_stale(
    layout: Layout,
    lessons: Sequence[str],
    report: Report,
    *,
    force: bool,
    jobs: int,
    timeout_s: float,
    progress: Progress,
) -> list[str]:
    """Run what has to be run; returns the lessons whose source is right now."""
    from .execute import kill_running  # noqa: PLC0415

    done = []
    pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="build")
    try:
        work: dict[Future[bool], str] = {
            pool.submit(_make_source, layout, lesson, force, timeout_s, progress): lesson for lesson in lessons
        }
        for future in as_completed(work):
            lesson = work[future]
            try:
                (report.executed if future.result() else report.unchanged).append(lesson)
                done.append(lesson)
            except BuildError as error:
                report.errors.append(error)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        kill_running()
        raise
    finally:
        pool.shutdown(wait=True)
    for found in (report.executed, report.unchanged, done):
        found.sort()
    report.errors.sort(key=lambda error: error.lesson)
    return done


def _make_source(layout: Layout, lesson: str, force: bool, timeout_s: float, progress: Progress) -> bool:
    """Make one instructor's notebook; False when it was right already."""
    from . import outputs  # noqa: PLC0415
    from .audit import source_problems  # noqa: PLC0415
    from .execute import execute  # noqa: PLC0415
    from .expand import load, notebook  # noqa: PLC0415
    from .figures import figures, write  # noqa: PLC0415

    read = load(layout.text(lesson))
    found = figures(read, layout.lessons)
    if not force and not source_problems(layout, read):
        return False
    total = sum(cell.kind == "code" for cell in read.cells)
    ran = [0]

    def one_more() -> None:
        ran[0] += 1
        progress(lesson, ran[0], total)

    progress(lesson, 0, total)
    made = execute(
        read, notebook(read), timeout_s=timeout_s, figures=lambda folder: write(found, folder), progress=one_more
    )
    path = layout.source_notebook(lesson)
    if path.exists():
        try:
            old = outputs.read(path)
        except (ValueError, KeyError, TypeError, AttributeError):
            old = {"cells": []}
        outputs.keep_old(made, old, outputs.patterns(layout.sanitize))
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(outputs.dumps(made), encoding="utf-8")
    scratch.replace(path)
    write(found, path.parent)
    return True


def _release(layout: Layout, lessons: Sequence[str], report: Report) -> None:
    from .release import release  # noqa: PLC0415 - nbgrader is slow to import

    for lesson in lessons:
        try:
            report.released += release(layout, [lesson])
        except BuildError as error:
            report.errors.append(error)
