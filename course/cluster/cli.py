"""``course cluster up | status | down | reset``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from .standing import Standing

cluster_app = typer.Typer(no_args_is_help=True, help="The lab cluster: three nodes of a Proxmox VE on this machine.")
State = Annotated[Path | None, typer.Option(help="State directory; COURSE_CLUSTER_STATE names another default.")]
NOT_RUNNING = 1


@cluster_app.command()
def up(
    state: State = None,
    port: Annotated[int, typer.Option(help="TCP port of the first node; the others have the next two.")] = 8006,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Start the cluster; it goes on running. Returns when all nodes answer."""
    from . import standing  # noqa: PLC0415 - each command loads what it needs
    from .settings import PASSWORD, Settings  # noqa: PLC0415

    password = os.environ.get("COURSE_CLUSTER_PASSWORD", PASSWORD)
    console = Console()
    with console.status("Starting franklin, trevor and michael …"):
        found = standing.up(_state(state), first_port=port, settings=Settings(address=address, password=password))
    _show(console, found, example=password == PASSWORD)


def _show(console: Console, found: Standing, *, example: bool) -> None:
    from .settings import NODES, PASSWORD  # noqa: PLC0415

    console.print("The lab cluster runs:", *(f"  {node:9} https://{found.host_of(node)}" for node in NODES), sep="\n")
    words = f"{PASSWORD} (an example: the cluster listens on loopback only)" if example else "the one that you set"
    console.print(f"User root@pam, password: {escape(words)}", soft_wrap=True)
    console.print(f"Certificate authority, for verify_ssl: {found.ca_path}", soft_wrap=True, highlight=False)
    console.print(f"export LAB_PVE_HOST={found.host_of(NODES[0])}", soft_wrap=True, highlight=False)


@cluster_app.command()
def status(state: State = None) -> None:
    """Show the nodes; exit status 1 when the cluster does not run."""
    from rich.table import Table  # noqa: PLC0415

    from . import standing  # noqa: PLC0415
    from .membership import Members  # noqa: PLC0415
    from .settings import NODES  # noqa: PLC0415
    from .state import State as Files  # noqa: PLC0415

    console, folder = Console(), _state(state)
    found = standing.find(folder)
    if found is None:
        console.print(f"No lab cluster runs on {folder}. Start one: course cluster up", soft_wrap=True)
        raise typer.Exit(NOT_RUNNING)
    members = Members(found.run, NODES)
    guests = Files(folder, found.run).guests().values()
    table = Table("node", "power", "network", "address", "process", "guests")
    for name, slot in found.hardware.status().items():
        power = "on" if slot["ready"] else "starting" if slot["power"] else "off"
        own = sum(place.node == name for place in guests)
        network = "plugged" if slot["plugged"] else "unplugged"
        table.add_row(name, power, network, found.host_of(name), str(slot["pid"] or "–"), str(own))
    console.print(table)
    quorum = "quorate" if members.quorate() else "no quorum: nothing can be changed"
    console.print(f"{len(members.alive())} of {len(NODES)} votes: {quorum}. State: {folder}", soft_wrap=True)
    members.leave()


@cluster_app.command()
def down(state: State = None) -> None:
    """Shut the cluster down, guests first; its files stay."""
    from . import standing  # noqa: PLC0415

    console, folder = Console(), _state(state)
    with console.status("Shutting down …"):
        ended = standing.down(folder)
    console.print("The lab cluster is down." if ended else f"No lab cluster runs on {folder}.", soft_wrap=True)


@cluster_app.command()
def reset(
    state: State = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Shut the cluster down and delete all its files: guests, disks, backups, users."""
    from . import standing  # noqa: PLC0415

    folder = _state(state)
    if not yes:
        typer.confirm(f"Delete all guests, disks, backups and users in {folder}?", abort=True)
    standing.reset(folder)
    Console().print(f"{folder} is gone; `course cluster up` makes a new cluster.", soft_wrap=True)


def _state(chosen: Path | None) -> Path:
    """Return the state directory that is meant."""
    from .standing import default_state  # noqa: PLC0415

    return (chosen or default_state()).absolute()
