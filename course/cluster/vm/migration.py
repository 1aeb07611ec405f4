"""The part of a migration that needs no running guest: locks, volumes, the configuration. See `migrate`."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, CourseError
from ..foundation import address_of
from ..storage import of_volume
from . import allocation, creation, hardware, incoming, preconditions
from .preconditions import LocalVolume
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task


class Migration(ABC):
    """One migration, seen from its source."""

    def __init__(
        self,
        node: Node,
        vmid: int,
        target: str,
        task: Task,
        *,
        online: bool,
        with_local_disks: bool,
        target_storage: str,
        bandwidth_kib_s: int | None,
    ) -> None:
        self.node = node
        self.vmid = vmid
        self.target = target
        self.task = task
        self.online = online
        self.with_local_disks = with_local_disks
        self.target_storage = target_storage
        self.bandwidth_kib_s = bandwidth_kib_s
        self.locals: list[LocalVolume] = []
        self.moved: dict[str, str] = {}
        self.copies: list[tuple[Any, str]] = []
        self.began = time.monotonic()
        self.keys: list[str] = []
        self.problems = 0

    # Words

    def log(self, text: str) -> None:
        """Write to the task's log with the time, as migrations do."""
        for line in text.splitlines():
            self.task.log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    def duration(self) -> str:
        """Return how long it has taken."""
        seconds = round(time.monotonic() - self.began)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    # The whole

    def run(self) -> None:
        """Migrate.

        Raises:
            ClusterError: ``migration aborted`` or ``migration problems``; the log has the cause.
        """
        self.log(f"starting migration of VM {self.vmid} to node '{self.target}' ({address_of(self.target)})")
        running = self.node.guests.get(self.vmid)
        try:
            self._lock()
            try:
                self._look(live=running is not None)
                self._copy_volumes([each for each in self.locals if running is None or each.is_idle])
            except BaseException:
                self.unlock()
                raise
        except CourseError as error:
            self.forget_copies()
            self.log(f"ERROR: {words(error)}")
            self.log("aborting phase 1 - cleanup resources")
            self.log(f"ERROR: migration aborted (duration {self.duration()}): {words(error)}")
            raise ClusterError("migration aborted") from error
        if running is None:
            self._finish_offline()
        else:
            self.live(running)
        self.node.statistics.changed()
        if self.problems:
            self.log(f"ERROR: migration finished with problems (duration {self.duration()})")
            raise ClusterError("migration problems")
        self.log(f"migration finished successfully (duration {self.duration()})")

    def _lock(self) -> None:
        with self.node.state.guest_lock(self.vmid, self.node.name, "qemu") as config:
            config.assert_unlocked()
            if not self.node.peer(self.target).online:
                raise ClusterError(f"Can't connect to destination address of node '{self.target}': No route to host")
            config.current.values["lock"] = "migrate"

    def unlock(self) -> None:
        """Take the lock away; the machine stays."""
        with (
            contextlib.suppress(ClusterError),
            self.node.state.guest_lock(self.vmid, self.node.name, "qemu") as config,
        ):
            config.current.values.pop("lock", None)

    def _look(self, *, live: bool) -> None:
        """Look at all volumes.

        Raises:
            ClusterError: one of them cannot go.
        """
        config = self.node.state.load_guest(self.vmid, self.node.name, "qemu")
        if devices := preconditions.local_resources(config.current.values):
            raise ClusterError(f"can't migrate VM which uses local devices: {', '.join(devices)}")
        self.locals = preconditions.local_volumes(self.node, config)
        refused = False
        for each in self.locals:
            kind = "in snapshot" if not each.key else "unused" if each.is_unused else "attached"
            reason = self._refusal(each, live=live, snapshots=bool(config.snapshots))
            if reason:
                self.log(f"can't migrate local disk '{each.volume}': {reason}")
                refused = True
            else:
                self.log(f"found local disk '{each.volume}' ({kind})")
        if refused:
            raise ClusterError("Problem found while scanning volumes - can't migrate VM - check log")
        if live and not self.with_local_disks and any(not each.is_idle for each in self.locals):
            raise ClusterError(
                "Problem found while scanning volumes - can't live migrate attached local disks without "
                "with-local-disks option"
            )
        for each in self.locals:
            name = each.volume.partition(":")[0]
            place = preconditions.place_for(self.node, self.target, incoming.target_storage(self.target_storage, name))
            place.require("images")

    def _refusal(self, each: LocalVolume, *, live: bool, snapshots: bool) -> str:
        if each.is_cdrom:
            return "local cdrom image"
        storage = of_volume(self.node, each.volume)
        if not storage.exists(each.volume):
            return f"volume '{each.volume}' does not exist"
        base = storage.volume(each.volume).basename
        if base and not live:
            return f"it's a clone of '{base}'"
        if live and each.in_snapshots and snapshots:
            return "online storage migration not possible if non-replicated snapshot exists"
        return ""

    # Stopped machines

    def _copy_volumes(self, wanted: list[LocalVolume]) -> None:
        """Copy volumes that nothing writes to."""
        if wanted:
            self.log("copying local disk images")
        for each in wanted:
            storage = of_volume(self.node, each.volume)
            name = incoming.target_storage(self.target_storage, storage.name)
            place = preconditions.place_for(self.node, self.target, name)
            copy = storage.copy(
                each.volume,
                place,
                self.vmid,
                progress=allocation.progress(self.log),
                check_stop=self.task.check_stop,
                **self._name_there(each, storage, place),
            )
            self.copies.append((place, copy))
            self.moved[each.volume] = copy
            self.log(f"volume '{each.volume}' is '{copy}' on the target")

    def _name_there(self, each: LocalVolume, storage: Any, place: Any) -> dict[str, str]:
        """Return the same name for the copy if it is free there."""
        if type(storage) is not type(place) or place.exists(f"{place.name}:{each.volume.partition(':')[2]}"):
            return {}
        return {"name": each.volume.partition(":")[2].rpartition("/")[2]}

    def forget_copies(self) -> None:
        """Remove what was copied to the target."""
        for place, volume in reversed(self.copies):
            try:
                place.free(volume)
            except ClusterError as error:
                self.log(f"ERROR: unable to remove '{volume}' on the target - {error.message}")

    def _finish_offline(self) -> None:
        try:
            self.move_config()
        except CourseError as error:
            self.forget_copies()
            self.unlock()
            self.log(f"ERROR: migration aborted (duration {self.duration()}): {words(error)}")
            raise ClusterError("migration aborted") from error
        self.remove_sources()

    def move_config(self) -> None:
        """Give the configuration to the target, with the volumes as they are called there."""
        with self.node.state.lock(f"lock-{self.vmid}.conf"):
            config = self.node.state.load_guest(self.vmid, self.node.name, "qemu")
            for section in (config.current, config.pending, *config.snapshots.values()):
                _rename(section.values, self.moved)
            before = config.current.values.pop("lock", None)
            self.node.state.save_guest(self.node.name, "qemu", self.vmid, config)
            try:
                self.node.state.move_guest(self.vmid, self.target)
            except BaseException:
                if before:
                    config.current.values["lock"] = before
                _rename(config.current.values, {new: old for old, new in self.moved.items()})
                with contextlib.suppress(ClusterError):
                    self.node.state.save_guest(self.node.name, "qemu", self.vmid, config)
                raise

    def remove_sources(self) -> None:
        """Remove the volumes that are at the target now."""
        for volume in self.moved:
            creation.remove_volume(self.node, self.vmid, volume, self.log)

    @abstractmethod
    def live(self, running: RunningVm) -> None:
        """Move a running guest."""


def words(error: CourseError) -> str:
    """Return an error's words in one line."""
    return error.message if isinstance(error, ClusterError) else str(error).splitlines()[0]


def _rename(values: dict[str, str], moved: Mapping[str, str]) -> None:
    """Call the volumes of a section as they are called at the target."""
    for drive in list(hardware.drives(values, unused=True)):
        if drive.volume in moved:
            values[drive.key] = drive.but(file=moved[drive.volume]).text()
    if values.get("vmstate") in moved:
        values["vmstate"] = moved[values["vmstate"]]
