"""The commands ``course build`` and ``course publish``: plain functions with typer's annotations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..error import CourseError
from .layout import Layout
from .pipeline import Progress, build


def build_command(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Names, numbers or slugs; all when none is given.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Run nothing: say what is missing, stale or leaks.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run the lessons even when nothing changed.")] = False,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, help="Lessons run at once; one per processor by default.")
    ] = None,
) -> None:
    """Make source/ and release/ from the lesson texts."""
    with _errors_told():
        layout = Layout.find()
        selected = layout.select(lessons or [])
        if check:
            _check(layout, selected, everything=not lessons)
        else:
            _build(layout, selected, force, jobs)


def _check(layout: Layout, lessons: list[str], *, everything: bool) -> None:
    from .audit import audit  # noqa: PLC0415 - slow imports

    findings = audit(layout, lessons, everything=everything)
    for finding in findings:
        typer.echo(f"✘ {finding}")
    if findings:
        typer.echo(f"{len(findings)} thing(s) to do.", err=True)
        raise typer.Exit(1)
    typer.echo(f"✔ {len(lessons)} lesson(s): source/ and release/ are what the texts give.")


def _build(layout: Layout, lessons: list[str], force: bool, jobs: int | None) -> None:
    with _progress() as progress:
        report = build(layout, lessons, force=force, jobs=jobs, progress=progress)
    for title, names in (("executed", report.executed), ("released", report.released), ("unchanged", report.unchanged)):
        if names:
            typer.echo(f"{title}: {', '.join(names)}")
    for error in report.errors:
        typer.echo(f"✘ {error}", err=True)
    if report.errors:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Progress]:
    """One bar over all cells that run, on stderr; nothing is imported or shown while there is nothing to run."""
    totals: dict[str, int] = {}
    done: dict[str, int] = {}
    bars: list[Any] = []

    def show(lesson: str, cells: int, total: int) -> None:
        from tqdm import tqdm  # noqa: PLC0415

        if not bars:
            bars.append(tqdm(desc="build", unit="cell", file=sys.stderr, leave=False, dynamic_ncols=True, disable=None))
        totals[lesson], done[lesson] = total, cells
        bar = bars[0]
        bar.total, bar.n = sum(totals.values()), sum(done.values())
        bar.set_postfix_str(lesson, refresh=False)
        bar.refresh()

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()


@contextmanager
def _errors_told() -> Iterator[None]:
    """Tell an error of ours in its own words, without a traceback."""
    try:
        yield
    except CourseError as error:
        typer.echo(f"✘ {error}", err=True)
        raise typer.Exit(1) from None


def publish_command(
    folder: Annotated[Path, typer.Argument(help="Where the student bundle is made; empty or not there yet.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Make the student bundle: release, wheel, Binder recipe; refuses to let a solution out."""
    with _errors_told():
        from .publish import publish  # noqa: PLC0415

        publish(Layout.find(), folder, force=force)
        typer.echo(f"✔ student bundle in {folder}")
