"""A backup job: one guest after the other, each to an archive, then what the retention does not keep is removed.

A node runs one job at a time. While a guest is backed up its configuration bears ``lock: backup``, so that nothing
else changes it; a node that dies in the middle leaves that lock, as a real one does, and nothing that looks like an
archive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...error import ClusterError, CourseError
from .. import prune
from ..config import files
from ..config.guest import GuestConfig
from ..state import GuestPlace
from ..storage import Storage, attributes, images
from ..tasks import Task, TaskStopped
from . import archive, container, machine
from .journal import Journal, duration, short
from .machine import Wish
from .settings import ENDINGS, Plan, notes_of

if TYPE_CHECKING:
    from ..node import Node

_Archived = tuple[Path, Journal]
BACKUP = {"qemu": machine.back_up, "lxc": container.back_up}


def run(node: Node, task: Task, vmids: list[int], plan: Plan) -> None:
    """Do a backup job.

    Args:
        node: that has the guests.
        task: that this is the work of.
        vmids: the guests.
        plan: how.

    Raises:
        ClusterError: a guest could not be backed up; the others were.
    """
    journal, failed = Journal(task), 0
    with _one_at_a_time(node, journal, plan.lockwait_s):
        journal.info(f"starting new backup job: {plan.words}")
        for vmid in vmids:
            failed += not _guest(node, vmid, plan, journal)
        journal.info(f"Backup job finished {'with errors' if failed else 'successfully'}")
    node.statistics.changed()
    if failed:
        raise ClusterError("job errors")


@contextlib.contextmanager
def _one_at_a_time(node: Node, journal: Journal, wait_s: float) -> Iterator[None]:
    """Wait until no other job of the node runs.

    Raises:
        ClusterError: it took too long.
    """
    handle = os.open(node.disk / "vzdump.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end, told = time.monotonic() + wait_s, False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    journal.info("trying to get global lock - waiting...")
                told = True
                if time.monotonic() > end:
                    raise ClusterError("can't acquire lock '/var/run/vzdump.lock' - got timeout") from None
            journal.task.wait(0.2)
        if told:
            journal.info("got global lock")
        yield
    finally:
        os.close(handle)


def _guest(node: Node, vmid: int, plan: Plan, journal: Journal) -> bool:
    """Back one guest up; return whether it worked.

    Raises:
        TaskStopped: somebody stopped the job.
    """
    begun = time.monotonic()
    journal.begin()
    try:
        place = node.state.guests().get(vmid)
        if place is None or place.node != node.name:
            journal.info(f"Starting Backup of VM {vmid}")
            raise ClusterError(f"unable to find VM '{vmid}'")
        journal.info(f"Starting Backup of VM {vmid} ({place.kind})")
        journal.info(f"Backup started at {time.strftime('%Y-%m-%d %H:%M:%S')}")
        with _locked(node, place) as config:
            _archive(node, place, config, plan, journal)
        if plan.rules is not None:
            _retain(plan, vmid, place.kind, journal)
        journal.info(f"Finished Backup of VM {vmid} ({duration(time.monotonic() - begun)})")
        journal.info(f"Backup finished at {time.strftime('%Y-%m-%d %H:%M:%S')}")
    except TaskStopped:
        journal.error(f"Backup of VM {vmid} failed - interrupted by signal")
        raise
    except (CourseError, OSError) as error:
        words = error.message if isinstance(error, ClusterError) else str(error)
        journal.error(f"Backup of VM {vmid} failed - {words}")
        journal.info(f"Failed at {time.strftime('%Y-%m-%d %H:%M:%S')}")
        return False
    return True


@contextlib.contextmanager
def _locked(node: Node, place: GuestPlace) -> Iterator[GuestConfig]:
    """Let nobody else change a guest while it is backed up."""
    with node.state.guest_lock(place.vmid, node.name, place.kind) as config:
        lock = config.current.values.get("lock")
        if lock:
            raise ClusterError(f"{'CT' if place.kind == 'lxc' else 'VM'} is locked ({lock})")
        seen = GuestConfig.parse(config.text())
        config.current.values["lock"] = "backup"
    try:
        yield seen
    finally:
        with node.state.guest_lock(place.vmid, node.name, place.kind) as config:
            if config.current.values.get("lock") == "backup":
                del config.current.values["lock"]


def _archive(node: Node, place: GuestPlace, config: GuestConfig, plan: Plan, journal: Journal) -> None:
    """Make the archive of a guest; it has its name when it is whole."""
    folder = plan.storage.root / "dump"
    folder.mkdir(parents=True, exist_ok=True)
    moment, final = _free_name(folder, place, plan, journal)
    work = folder / f"{files.UNFINISHED}{node.name}-{secrets.token_hex(6)}"
    work.mkdir(mode=0o700)
    try:
        target = work / f"archive{plan.packing}"
        wish = Wish(plan.mode, plan.packing, plan.stopwait_s, moment, final, target, work)
        BACKUP[place.kind](node, place.vmid, config, wish, journal)
        for copy in work.iterdir():
            if copy != target and copy.is_file():
                copy.unlink()
        _name(target, final, plan, journal)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _describe(node, place, config, plan, (final, journal))


def _free_name(folder: Path, place: GuestPlace, plan: Plan, journal: Journal) -> tuple[float, Path]:
    """Return the moment of a backup and its archive's place; two in one second would look like one."""
    while True:
        moment = time.time()
        final = folder / archive.name_of(place.kind, place.vmid, moment, ENDINGS[place.kind] + plan.packing)
        stem = final.name.partition(".")[0]
        if not any(path.name.startswith(f"{stem}.") for path in folder.iterdir()):
            return moment, final
        journal.task.wait(0.1)


def _name(target: Path, final: Path, plan: Plan, journal: Journal) -> None:
    """Give a whole archive its name.

    Raises:
        ClusterError: the storage has no room for it.
    """
    size = target.stat().st_size
    status = plan.storage.status()
    if status.used > status.total or status.avail <= 0:
        raise ClusterError(f"vma_queue_write: write error - No space left on device ('{final}')")
    images.bring_to_disk(target)
    target.chmod(0o644)
    target.rename(final)
    files.sync_directory(final.parent)
    journal.info(f"archive file size: {short(size)}")


def _describe(node: Node, place: GuestPlace, config: GuestConfig, plan: Plan, archived: _Archived) -> None:
    """Write what goes with an archive: its notes, its protection, its log."""
    final, journal = archived
    volid = f"{plan.storage.name}:backup/{final.name}"
    if plan.notes:
        journal.info("adding notes to backup")
        guest = config.current.values.get("name" if place.kind == "qemu" else "hostname", f"VM {place.vmid}")
        cluster = node.settings.name
        try:
            notes = notes_of(plan.notes, cluster=cluster, guest=guest, node=node.name, vmid=place.vmid)
            attributes.annotate(plan.storage, volid, notes)
        except ClusterError as error:
            journal.error(error.message)
    if plan.protected:
        journal.info("marking backup as protected")
        attributes.protect(plan.storage, volid, wanted=True)
    stem = final.name.partition(".")[0]
    files.write(final.parent / f"{stem}.log", journal.text(), mode=0o644)


def _retain(plan: Plan, vmid: int, kind: str, journal: Journal) -> None:
    """Remove what the retention does not keep of a guest's archives."""
    rules = plan.rules or {}
    words = ", ".join(f"{name}={number}" for name, number in rules.items())
    journal.info(f"prune older backups with retention: {words}")
    removed = prune_storage(plan.storage, rules, vmid=vmid, kind=kind, log=journal.info)
    journal.info(f"pruned {removed} backup(s) not covered by keep-retention policy")


def prune_storage(
    storage: Storage, rules: dict[str, int], *, vmid: int | None, kind: str | None, log: Callable[[str], None]
) -> int:
    """Remove the backups of a storage that a retention does not keep; return how many."""
    removed = 0
    for backup in prune.prune(storage.volumes("backup"), rules, vmid=vmid, type=kind):
        if backup.mark == "remove":
            log(f"removing backup '{backup.volid}'")
            storage.free(backup.volid)
            removed += 1
    return removed
