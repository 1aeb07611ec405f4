"""The backup of one virtual machine.

========= ============================================================================================
snapshot  the machine runs on; its disks are copied as they are when the copy begins
suspend   it stands still until the copy has begun
stop      it is shut down, started again at once, and copied as it was while it was off
========= ============================================================================================

A guest agent is asked to bring the guest's file systems to the disk before the moment, where there is one. A machine
that is off is copied as it is, whatever the mode.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...error import ClusterError
from ..config.guest import GuestConfig
from ..storage import of_volume
from ..storage.transfer import human
from ..vm import agent, hardware, lifecycle
from . import archive, copying
from .copying import Disk
from .journal import Journal, Meter

if TYPE_CHECKING:
    from ..node import Node
    from ..vm.running import RunningVm

FREEZE_S = 30


def disks_of(node: Node, config: GuestConfig, journal: Journal | None = None) -> list[Disk]:
    """Return the disks of a machine that go into a backup; others are named in the log.

    Raises:
        ClusterError: a disk is on no storage, or is not there.
    """
    found = []
    for drive in hardware.drives(config.current.values):
        if not drive.is_disk or drive.bus == "unused":
            continue
        if not drive.flag("backup", True):
            if journal:
                journal.info(f"exclude disk '{drive.key}' '{drive.volume}' (backup=no)")
            continue
        if not drive.has_volume:
            raise ClusterError(f"unable to back up drive '{drive.key}' - '{drive.volume}' is on no storage")
        storage = of_volume(node, drive.volume)
        size = storage.size(drive.volume)
        if journal:
            journal.info(f"include disk '{drive.key}' '{drive.volume}' {hardware.size_text(size)}")
        found.append(
            Disk(
                drive.key,
                drive.volume,
                storage.path(drive.volume),
                storage.driver(drive.volume),
                size,
                storage.format(drive.volume),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Wish:
    """How a guest is to be backed up.

    Attributes:
        mode: snapshot, suspend or stop.
        ending: of the compression: nothing, ``.gz`` or ``.zst``.
        stopwait_s: how long a guest may take to shut down.
        moment: of the backup, as in its name.
        shown: where the archive will be.
        target: the hidden file to make.
        folder: for copies of disks meanwhile.
    """

    mode: str
    ending: str
    stopwait_s: float
    moment: float
    shown: Path
    target: Path
    folder: Path


def back_up(node: Node, vmid: int, config: GuestConfig, wish: Wish, journal: Journal) -> None:
    """Write the backup of a machine.

    Raises:
        ClusterError: it cannot be made; the machine is as it was.
    """
    running: RunningVm | None = node.guests.get(vmid) if node.guests is not None else None
    journal.info(f"status = {'running' if running else 'stopped'}")
    journal.info(f"VM Name: {config.current.values.get('name', f'VM {vmid}')}")
    disks = disks_of(node, config, journal)
    if config.pending.values:
        journal.info("pending configuration changes found (not included into backup)")
    if config.snapshots:
        journal.info("snapshots found (not included into backup)")
    journal.info(f"backup mode: {wish.mode if running else 'stop'}")
    journal.info("ionice priority: 7")
    journal.info(f"creating vzdump archive '{wish.shown}'")
    begun = time.monotonic()
    if not disks:
        journal.info("backup contains no disks")
    elif running is None:
        copying.stopped(disks, wish.folder, journal.task, Meter(journal))
    else:
        _live(node, running, disks, wish, journal)
    written = archive.write(
        wish.target,
        disks,
        wish.folder,
        ending=wish.ending,
        config=archive.configuration(config, disks),
        firewall=node.state.read(f"firewall/{vmid}.fw"),
        moment=wish.moment,
        check_stop=journal.task.check_stop,
    )
    seconds = max(time.monotonic() - begun, 1e-3)
    if disks:
        zeros = written.total - min(written.stored, written.total)
        journal.info(f"backup is sparse: {human(zeros)} ({100 * zeros // max(written.total, 1)}%) total zero data")
        speed = human(written.total / seconds)
        journal.info(f"transferred {human(written.total)} in {int(seconds)} seconds ({speed}/s)")


def _live(node: Node, running: RunningVm, disks: list[Disk], wish: Wish, journal: Journal) -> None:
    """Copy the disks of a running machine."""
    begun = time.monotonic()
    if wish.mode == "stop":
        running = _restarted(node, running, wish.stopwait_s, journal)
    stand = _stopped_processors if wish.mode == "suspend" else _frozen_files
    with contextlib.ExitStack() as copies:
        try:
            with stand(running, journal) if wish.mode != "stop" else contextlib.nullcontext():
                copy = copies.enter_context(copying.live(running, disks, wish.folder))
        finally:
            if wish.mode == "stop":
                running.execute("cont")
                journal.info(f"resuming VM again after {int(time.monotonic() - begun)} seconds")
        journal.info("started backup task")
        copy.wait(journal.task, Meter(journal))


def _restarted(node: Node, running: RunningVm, stopwait_s: float, journal: Journal) -> RunningVm:
    """Shut a machine down and start it again, its processors standing still."""
    vmid = running.vmid
    journal.info("stopping virtual guest")
    lifecycle.shutdown(node, vmid, journal.task, skiplock=True, timeout_s=stopwait_s)
    journal.info("starting kvm to execute backup task")
    started: RunningVm = lifecycle.start(node, vmid, journal.task.log, skiplock=True, paused=True)
    return started


@contextlib.contextmanager
def _stopped_processors(running: RunningVm, journal: Journal) -> Iterator[None]:
    """Let a machine stand still for a moment; one that stood still before stays so."""
    if running.qmpstatus != "running":
        yield
        return
    begun = time.monotonic()
    journal.info("suspending guest")
    running.execute("stop")
    try:
        yield
    finally:
        running.execute("cont")
        journal.info(f"guest is online again after {int(time.monotonic() - begun)} seconds")


@contextlib.contextmanager
def _frozen_files(running: RunningVm, journal: Journal) -> Iterator[None]:
    """Have the guest bring its file systems to the disk and hold them, where it has an agent."""
    wanted = hardware.has_agent(running.values) and running.qmpstatus == "running"
    if not (wanted and agent.answers(running, 3)):
        if wanted:
            journal.info("skipping guest-agent 'fs-freeze', agent configured but not running?")
        yield
        return
    journal.info("issuing guest-agent 'fs-freeze' command")
    try:
        agent.execute(running, "guest-fsfreeze-freeze", timeout_s=FREEZE_S)
    except ClusterError as error:
        journal.error(error.message)
    try:
        yield
    finally:
        journal.info("issuing guest-agent 'fs-thaw' command")
        try:
            agent.execute(running, "guest-fsfreeze-thaw", timeout_s=FREEZE_S)
        except ClusterError as error:
            journal.error(error.message)
