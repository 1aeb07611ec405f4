"""The command line: ``course lab | probe | doctor | guest build | cluster | build | publish``."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from .cluster.cli import cluster_app
from .error import CourseError

FAILED = 2
"""Exit status of a command that could not do its work."""


class CourseGroup(TyperGroup):
    """Commands whose `CourseError` becomes a message and exit status 2, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except CourseError as error:
            Console(stderr=True).print(f"[bold red]course:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(FAILED) from None


app = typer.Typer(
    cls=CourseGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="The course."
)
guest_app = typer.Typer(no_args_is_help=True, help="The guests' images.")
app.add_typer(guest_app, name="guest")
app.add_typer(cluster_app, name="cluster")


@app.command()
def lab(
    arguments: Annotated[list[str] | None, typer.Argument(help="handed on to JupyterLab, after --")] = None,
    browser: Annotated[bool, typer.Option(help="Open a web browser.")] = True,
    port: Annotated[int | None, typer.Option(help="TCP port; the next free one when it is taken.")] = None,
    guests: Annotated[bool, typer.Option(help="Make the guests' images first, when they are missing.")] = True,
) -> None:
    """Open JupyterLab on the lessons."""
    from . import lab as jupyter  # noqa: PLC0415 - each command loads what it needs

    console = Console(stderr=True)
    root = jupyter.course_root()
    chosen = jupyter.free_port(port)
    wanted = jupyter.DEFAULT_PORT if port is None else port
    if chosen != wanted:
        console.print(f"Port {wanted} is taken: using {chosen}.")
    if guests:
        _make_guests_or_warn(console)
    console.print(f"Opening the lessons in {root / jupyter.LESSONS}. Ctrl-C ends JupyterLab.", soft_wrap=True)
    command = jupyter.command(root, port=chosen, browser=browser, arguments=tuple(arguments or ()))
    os.chdir(root)
    os.execve(command[0], command, jupyter.environment())  # noqa: S606 - JupyterLab takes our place


def _make_guests_or_warn(console: Console) -> None:
    """Make the images; without them the lessons open all the same."""
    try:
        _make_guests(console)
    except CourseError as error:
        console.print(f"[yellow]The guests' images are not ready:[/] {escape(str(error))}", soft_wrap=True)
        console.print("The lessons open all the same; `course guest build` tries again.")


def _make_guests(console: Console) -> None:
    guest: Any = importlib.import_module(".guest", __package__)
    with console.status("Making the guests' images (once, about a minute) …") as status:
        guest.build(progress=lambda *step: status.update(" ".join(str(part) for part in step)))


@guest_app.command("build")
def guest_build() -> None:
    """Make the images of all guests: kernel, file system, disks, ISOs, bare-metal programs."""
    console = Console(stderr=True)
    _make_guests(console)
    console.print("The guests' images are ready.")


@app.command()
def probe(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    force: Annotated[bool, typer.Option(help="Look again, even when nothing seems to have changed.")] = False,
    engines: Annotated[bool, typer.Option("--engines", help="Show the virtual CPU's engines, and test them.")] = False,
) -> None:
    """Show what this machine can really do: tiers T0 to T5."""
    from . import capability  # noqa: PLC0415

    report = capability.probe(force=force)
    if engines:
        _show_engines(as_json)
        return
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        Console().print(report)


def _show_engines(as_json: bool) -> None:
    """Print which engines there are and how each did in the conformance suite; exit status 1 when one failed."""
    from .vcpu import availability  # noqa: PLC0415

    report = availability.examine()
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        Console().print(*availability.tables(report))
    if not report.conforms:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what is missing for the course and what to do about it; exit status 1 when something is."""
    from . import doctor as clinic  # noqa: PLC0415

    symptoms = clinic.examine()
    Console().print(clinic.table(symptoms))
    if any(symptom.serious for symptom in symptoms):
        raise typer.Exit(1)


def _add_authors_commands() -> None:
    """Add ``build`` and ``publish`` where the authors' tool is: in a checkout, not in what students install."""
    if (Path(__file__).parent / "build" / "cli.py").is_file():
        author: Any = importlib.import_module(".build.cli", __package__)
        app.command("build")(author.build_command)
        app.command("publish")(author.publish_command)


def _add_other_commands() -> None:
    """Add the commands that other packages of a checkout bring along (entry points ``course.commands``)."""
    for point in importlib.metadata.entry_points(group="course.commands"):
        if importlib.util.find_spec(point.module.partition(".")[0]) is not None:
            app.command(point.name)(point.load())


_add_authors_commands()
_add_other_commands()
