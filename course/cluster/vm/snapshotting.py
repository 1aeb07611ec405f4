"""Snapshots of real machines: what the engine needs of QEMU, the storages and the node."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...error import ClusterError
from ..config.guest import GuestConfig, Section
from ..storage import of_volume
from . import agent, disks, hardware, lifecycle, ram, snapshots
from .hardware import Drive
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node

Log = Callable[[str], None]


class LiveHost:
    """A machine of a node, as `snapshots.Host`."""

    def __init__(self, node: Node, vmid: int, log: Log) -> None:
        self.node = node
        self.vmid = vmid
        self._log = log
        self._saving = contextlib.ExitStack()
        self._was_running = False
        self._frozen = False

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Hold the machine's lock."""
        return self.node.state.lock(f"lock-{self.vmid}.conf")

    def load(self) -> GuestConfig:
        """Return its configuration."""
        return self.node.state.load_guest(self.vmid, self.node.name, "qemu")

    def save(self, config: GuestConfig) -> None:
        """Write its configuration."""
        self.node.state.save_guest(self.node.name, "qemu", self.vmid, config)

    def now(self) -> int:
        """Return the time."""
        return int(time.time())

    def log(self, text: str) -> None:
        """Tell the task's log."""
        self._log(text)

    def is_possible(self, config: GuestConfig, name: str) -> bool:
        """Say whether all volumes can be snapshotted."""
        del name
        return disks.has_feature(self.node, config, "snapshot")

    @property
    def _running(self) -> RunningVm | None:
        found: RunningVm | None = self.node.guests.get(self.vmid)
        return found

    def is_running(self) -> bool:
        """Say whether the machine runs."""
        return self._running is not None

    def reserve_state(self, config: GuestConfig, name: str) -> dict[str, str]:
        """Make a volume for the machine's RAM; one that does not run has none."""
        running = self._running
        if running is None:
            return {}
        volume = ram.allocate(self.node, running, ram.storage_for(self.node, config.current.values), name)
        return {"vmstate": volume, "runningmachine": lifecycle.running_machine(running)}

    def remove_state(self, volume: str) -> None:
        """Remove the volume of a state."""
        of_volume(self.node, volume).free(volume, self._log)

    def activate(self, snapshot: Section) -> None:
        """See that the storages of a snapshot are there."""
        for drive in hardware.drives(snapshot.values):
            if drive.has_volume and not drive.is_cdrom:
                of_volume(self.node, drive.volume)

    def begin(self, snapshot: Section, name: str) -> None:
        """Halt the machine at one moment; with RAM, write it to its volume."""
        del name
        running = self.node.guests.require(self.vmid)
        state = snapshot.values.get("vmstate")
        if state:
            self._log(f"saving VM state and RAM using storage '{state.partition(':')[0]}'")
            self._saving.enter_context(ram.saving(self.node, running, state, self._log))
            return
        if hardware.has_agent(running.values) and agent.answers(running, 3):
            with contextlib.suppress(ClusterError):
                agent.execute(running, "guest-fsfreeze-freeze")
                self._frozen = True
        self._was_running = running.qmpstatus == "running"
        if self._was_running:
            running.execute("stop")

    def end(self, snapshot: Section, name: str) -> None:
        """Let the machine go on."""
        del snapshot, name
        self._saving.close()
        running = self._running
        if running is None:
            return
        if self._was_running:
            running.execute("cont")
        if self._frozen:
            with contextlib.suppress(ClusterError):
                agent.execute(running, "guest-fsfreeze-thaw")

    def snapshot(self, drive: Drive, name: str) -> None:
        """Snapshot a volume: by QEMU when it runs, else in its file."""
        self._log(f"snapshotting 'drive-{drive.key}' ({drive.volume})")
        running = self._running
        if running is None:
            of_volume(self.node, drive.volume).snapshot(drive.volume, name)
        else:
            running.execute("blockdev-snapshot-internal-sync", device=running.node_of(drive.key), name=name)

    def delete(self, drive: Drive, name: str) -> None:
        """Delete a volume's snapshot."""
        running = self._running
        if running is not None and drive.volume in {each.volume for each in hardware.drives(running.values)}:
            key = next(each.key for each in hardware.drives(running.values) if each.volume == drive.volume)
            running.execute("blockdev-snapshot-delete-internal-sync", device=running.node_of(key), name=name)
        else:
            of_volume(self.node, drive.volume).delete_snapshot(drive.volume, name)

    def assert_rollback(self, drive: Drive, name: str) -> None:
        """Refuse when a volume cannot return to its snapshot."""
        storage = of_volume(self.node, drive.volume)
        if not storage.exists(drive.volume):
            raise ClusterError(f"volume '{drive.volume}' does not exist")
        if self._running is None and name not in storage.snapshots(drive.volume):
            raise ClusterError(f"can't rollback, snapshot '{name}' does not exist on '{drive.volume}'")

    def rollback(self, drive: Drive, name: str) -> None:
        """Return a volume to its snapshot."""
        of_volume(self.node, drive.volume).rollback(drive.volume, name)

    def stop(self) -> None:
        """Stop the machine."""
        running = self._running
        if running is not None:
            lifecycle.quit(self.node, running)

    def start(self, config: GuestConfig, snapshot: Section) -> None:
        """Start the machine with the RAM of a snapshot."""
        machine = snapshot.values.get("runningmachine") or snapshot.values.get("machine")
        lifecycle.start_from_state(
            self.node, self.vmid, config.current.values, snapshot.values["vmstate"], self._log, machine=machine
        )


def create(node: Node, vmid: int, name: str, log: Log, *, vmstate: bool = False, comment: str | None = None) -> None:
    """Take a snapshot of a machine.

    Raises:
        ClusterError: it could not be taken.
    """
    host = LiveHost(node, vmid, log)
    snapshots.create(host, name, ram=vmstate and host.is_running(), comment=comment)


def delete(node: Node, vmid: int, name: str, log: Log, *, force: bool = False) -> None:
    """Delete a snapshot of a machine.

    Raises:
        ClusterError: it could not be deleted.
    """
    snapshots.delete(LiveHost(node, vmid, log), name, force=force)


def rollback(node: Node, vmid: int, name: str, log: Log, *, start: bool = False) -> None:
    """Return a machine to a snapshot.

    Args:
        node: that has it.
        vmid: its number.
        name: the snapshot's.
        log: of the task.
        start: start it even if the snapshot has no RAM.

    Raises:
        ClusterError: it cannot.
    """
    snapshots.rollback(LiveHost(node, vmid, log), name, vmid)
    if start and not node.guests.is_running(vmid):
        lifecycle.start(node, vmid, log)
    node.statistics.changed()
