"""Backups of guests: archives, their making and restoring, retention, and jobs that run at their times.

- `vma`, `packing`: the formats of archives.
- `copying`: disks as they are at one moment.
- `machine`, `container`: the backup of one guest; `dump`: a job of several.
- `restore`, `containers`: the way back.
- `jobs`: ``jobs.cfg`` and the scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..node import Node


def attach(node: Node) -> None:
    """Let a node look after its backup jobs."""
    from .jobs import TICK_S, Scheduler  # noqa: PLC0415 - the layers below are loaded by then

    node.every(TICK_S, Scheduler(node).tick, "pvescheduler")
