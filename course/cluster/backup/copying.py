"""The disks of a machine as they are at one moment, as raw files.

A running machine goes on while its disks are copied. QEMU's ``blockdev-backup`` begins for all disks in one
transaction: from that moment on, before the guest overwrites a block that was not copied yet, the old block is copied
first. So the copy is what all disks were when the transaction began, however long it takes::

    guest ──write──▶ drive-scsi0 ──old block first──▶ backup-scsi0     raw file, a hole where the disk has zeros
                          └───────everything else────────▲

A stopped machine's disks are read with qemu-img.

Source: QEMU's documentation "Live Block Device Operations"; QAPI schema, transaction and BlockdevBackup.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...error import ClusterError
from ..storage import images
from ..tasks import Task

POLL_S = 0.1
CANCEL_S = 60.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that goes into a backup.

    Attributes:
        key: such as ``scsi0``.
        volid: its volume.
        path: its file.
        driver: the file's format.
        size: that the guest sees, in bytes.
        format: as the configuration of the archive calls it.
    """

    key: str
    volid: str
    path: Path
    driver: str
    size: int
    format: str

    @property
    def name(self) -> str:
        """Its name in an archive."""
        return f"drive-{self.key}"


class Machine(Protocol):
    """What is needed of a running machine."""

    def execute(self, command: str, arguments: Any = None, /, **keywords: Any) -> Any:
        """Execute a QMP command."""

    def node_of(self, key: str) -> str:
        """Return the name of the block node behind a drive."""


Progress = Callable[[int, int], None]


def stopped(disks: Sequence[Disk], folder: Path, task: Task, progress: Progress) -> None:
    """Copy the disks of a machine that does not run.

    Args:
        disks: which.
        folder: where ``scsi0.copy`` and so on are made.
        task: whose stop ends this.
        progress: is told bytes done and in all.
    """
    total, before = sum(disk.size for disk in disks), 0
    for disk in disks:
        begun = before
        images.convert(
            disk.path,
            disk.driver,
            folder / f"{disk.key}.copy",
            "raw",
            progress=lambda done, _, begun=begun: progress(begun + done, total),  # type: ignore[misc]
            check_stop=task.check_stop,
        )
        before += disk.size


@contextlib.contextmanager
def live(machine: Machine, disks: Sequence[Disk], folder: Path) -> Iterator[Live]:
    """Begin to copy the disks of a running machine; the block ends with the copy finished or cancelled."""
    copying = Live(machine, disks, folder)
    try:
        copying.begin()
        yield copying
    finally:
        copying.end()


class Live:
    """The copies of a running machine's disks, while they are being made."""

    def __init__(self, machine: Machine, disks: Sequence[Disk], folder: Path) -> None:
        self._machine = machine
        self._disks = disks
        self._folder = folder
        self._targets: list[str] = []
        self._jobs: list[str] = []

    def begin(self) -> None:
        """Fix the moment: from here on the guest may write what it likes."""
        for disk in self._disks:
            path = self._folder / f"{disk.key}.copy"
            with path.open("wb") as file:
                file.truncate(disk.size)
            target = f"backup-{disk.key}"
            below = {"driver": "file", "filename": str(path), "discard": "unmap"}
            options = {"driver": "raw", "node-name": target, "discard": "unmap", "detect-zeroes": "unmap"}
            self._machine.execute("blockdev-add", {**options, "file": below})
            self._targets.append(target)
        actions = [
            {
                "type": "blockdev-backup",
                "data": {
                    "job-id": f"vzdump-{disk.key}",
                    "device": self._machine.node_of(disk.key),
                    "target": f"backup-{disk.key}",
                    "sync": "full",
                    "auto-dismiss": False,
                },
            }
            for disk in self._disks
        ]
        if actions:
            self._machine.execute("transaction", {"actions": actions, "properties": {"completion-mode": "grouped"}})
            self._jobs = [f"vzdump-{disk.key}" for disk in self._disks]

    def wait(self, task: Task, progress: Progress) -> None:
        """Wait until all is copied.

        Raises:
            ClusterError: QEMU could not copy it, or the machine ended meanwhile.
        """
        total = sum(disk.size for disk in self._disks)
        while True:
            task.check_stop()
            jobs = self._mine()
            done = sum(int(job["current-progress"]) for job in jobs)
            expected = sum(int(job["total-progress"]) for job in jobs)
            if all(job["status"] == "concluded" for job in jobs):
                break
            progress(int(total * done / expected) if expected else 0, total)
            time.sleep(POLL_S)
        for job in jobs:
            if job.get("error"):
                raise ClusterError(f"job failed with err - {job['error']}")
        progress(total, total)

    def _mine(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self._machine.execute("query-jobs")
        mine = [job for job in jobs if job["id"] in self._jobs]
        if len(mine) != len(self._jobs):
            raise ClusterError("job failed - a part of it is gone")
        return mine

    def end(self) -> None:
        """Cancel what still runs and let go of the files; a machine that is gone has let go already."""
        with contextlib.suppress(ClusterError):
            self._cancel()
        for target in self._targets:
            with contextlib.suppress(ClusterError):
                self._machine.execute("blockdev-del", {"node-name": target})

    def _cancel(self) -> None:
        end = time.monotonic() + CANCEL_S
        while self._jobs and time.monotonic() < end:
            there = {job["id"]: job["status"] for job in self._machine.execute("query-jobs")}
            self._jobs = [job for job in self._jobs if job in there]
            for job in self._jobs:
                with contextlib.suppress(ClusterError):  # it may have ended just now
                    concluded = there[job] == "concluded"
                    self._machine.execute("job-dismiss" if concluded else "job-cancel", {"id": job})
            if self._jobs:
                time.sleep(POLL_S)
