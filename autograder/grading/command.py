"""The command ``course grade``: execute with many workers, then write the marks."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import warnings
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from course.error import CourseError

from ..cache import Cache
from ..sandbox import probing
from . import execution, pool
from .course import Course, GradingError, Submission, find_root
from .gradebook import Gradebook, Ledger, writing
from .naming import Names
from .swift import swift


@dataclasses.dataclass
class Batch:
    """One run of the command.

    Attributes:
        graded: submissions whose marks were written now.
        unchanged: those that the gradebook had already.
        failed: those without marks, each with the reason.
        remarks: what the instructor should know, by submission.
    """

    graded: list[Submission] = dataclasses.field(default_factory=list)
    unchanged: list[Submission] = dataclasses.field(default_factory=list)
    failed: dict[Submission, str] = dataclasses.field(default_factory=dict)
    remarks: dict[Submission, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def grade(
    lessons: Annotated[list[str] | None, typer.Argument(help="Lessons, such as 05-emulation; all by default.")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Worker processes.")] = os.cpu_count() or 1,
    student: Annotated[list[str] | None, typer.Option(help="Only these students.")] = None,
    force: Annotated[bool, typer.Option(help="Execute again what was executed before.")] = False,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Scheduler of a Dask cluster that executes.")] = "",
) -> None:
    """Grade what was handed in; run it again to go on where it ended."""
    console = Console(stderr=True)
    course = Course(find_root())
    probing.begin()
    with _quick_start(), writing(course), warnings.catch_warnings():
        _make_guests(console)
        warnings.simplefilter("ignore")  # nbgrader's own, about its own objects: nothing that an instructor could mend
        batch = run(course, lessons or (), student or (), jobs=jobs, force=force, dask=dask, console=console)
    _tell(console, course, batch)
    if batch.failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _quick_start() -> Iterator[None]:
    """Look for no garbage while there is none: a fifth of the time in which a thousand modules are imported."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _make_guests(console: Console) -> None:
    """Have the guests' images ready: in a box, each kernel would have to make its own."""
    from course import guest  # noqa: PLC0415 - each command loads what it needs

    try:
        with console.status("Making the guests' images (once, about a minute) …"):
            guest.build()
    except CourseError as error:
        console.print(f"[yellow]The guests' images are not ready:[/] {escape(str(error))}", soft_wrap=True)


def run(
    course: Course,
    lessons: list[str] | tuple[str, ...] = (),
    students: list[str] | tuple[str, ...] = (),
    *,
    jobs: int = 1,
    force: bool = False,
    dask: str = "",
    console: Console | None = None,
) -> Batch:
    """Grade submissions; the caller holds `writing`.

    Args:
        course: the checkout.
        lessons: names; empty for all.
        students: ids; empty for all.
        jobs: number of worker processes.
        force: whether to execute again what was executed before.
        dask: address of a Dask scheduler to execute on instead.
        console: shows progress; None for a quiet run.

    Raises:
        GradingError: nothing was handed in, or the course or the gradebook cannot be used.
    """
    submissions = course.submissions(lessons, students)
    if not submissions:
        folder = course.path("submitted", "STUDENT", "LESSON")
        raise GradingError(f"nothing was handed in; expected {folder}. `nbgrader collect` or a copy puts it there")
    batch, cache = Batch(), Cache(course.work / "cache")
    book, ledger = Gradebook(course), Ledger(course)
    known = book.known()
    naming = Names(course)
    names = _names(naming, submissions, batch)
    batch.unchanged = [] if force else [one for one in names if ledger.is_graded(one, names[one], known)]
    waiting = [one for one in submissions if one not in {*batch.unchanged, *batch.failed}]
    todo = [one for one in waiting if force or one not in names or not all(key in cache for key in names[one])]
    if not waiting:
        return batch
    ended = pool.dask(course, todo, dask) if dask else pool.local(course, todo, jobs, anew=force)
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    with contextlib.closing(ended), _progress(console) as progress:
        for note in filter(None, map(book.enter, sorted({one.lesson for one in waiting}))):
            if console:
                console.print(escape(note), highlight=False)
        executing = progress.add_task("execute", total=len(todo), visible=bool(todo))
        marking = progress.add_task("marks", total=len(waiting))

        def mark(one: Submission) -> None:
            progress.advance(marking)
            if one in batch.failed:
                return
            if not force and ledger.is_graded(one, names[one], known):
                batch.unchanged.append(one)
            elif why := book.grade(one):
                batch.failed[one] = why
            else:
                batch.graded.append(one)
                if all(key in cache for key in names[one]):  # what could not be judged is tried again by the next run
                    ledger.add(one, names[one])

        with swift():
            for one, result in ended:
                progress.advance(executing)
                if isinstance(result, Exception):
                    batch.failed[one] = _words(result)
                else:
                    _keep(one, result, cache, batch)
                    names[one] = list(result.names)
                    naming.keep(one, names[one])
                mark(one)
            for one in filter(set(waiting).difference(todo).__contains__, waiting):
                mark(one)
    return batch


def _names(naming: Names, submissions: list[Submission], batch: Batch) -> dict[Submission, list[str]]:
    """The keys of executions, as far as they are known; a submission that cannot even be read fails for itself."""
    names: dict[Submission, list[str]] = {}
    for one in submissions:
        try:
            if (found := naming.known(one)) is not None:
                names[one] = found
        except OSError as error:
            batch.failed[one] = _words(error)
    return names


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, GradingError) else f"{type(error).__name__}: {error}"


def _keep(one: Submission, result: execution.Executed, cache: Cache, batch: Batch) -> None:
    """Put what came of a submission into the cache."""
    if result.remarks:
        batch.remarks[one] = result.remarks
    for name, outcome in result.outcomes.items():
        try:
            cache.put(name, outcome)
        except OSError as error:
            batch.failed[one] = f"its outcome cannot be kept in {cache.folder}: {error}"


def _progress(console: Console | None) -> Progress:
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=console is None, transient=False)


def _tell(console: Console, course: Course, batch: Batch) -> None:
    for one, lines in sorted(batch.remarks.items()):
        for line in lines:
            said = line.removeprefix(f"{one.student}, {one.lesson}/{one.lesson}: ")
            console.print(f"[yellow]{escape(one.student)}[/], {one.lesson}: {escape(said)}", highlight=False)
    if batch.failed:
        table = Table(title="Not graded", title_justify="left")
        for head in ("student", "lesson", "why"):
            table.add_column(head)
        for one, why in sorted(batch.failed.items()):
            table.add_row(escape(one.student), one.lesson, escape(why))
        console.print(table)
    console.print(
        f"{len(batch.graded)} graded, {len(batch.unchanged)} unchanged, {len(batch.failed)} without marks. "
        f"Marks: {course.db_url}. Next: `course report`, `nbgrader generate_feedback LESSON`.",
        highlight=False,
        soft_wrap=True,
    )
