"""The engine of snapshots: what happens to a machine's configuration, and in which order with its volumes.

::

    create    lock "snapshot", snapstate prepare ─▶ volumes ─▶ commit: unlocked, parent is the new one
    delete    lock "snapshot-delete", snapstate delete ─▶ volume by volume, each taken out of the snapshot ─▶ gone
    rollback  checks, stop ─▶ lock "rollback" ─▶ volumes ─▶ the snapshot's settings come into force ─▶ start

Whatever fails between leaves a configuration that says how far it got. The engine knows no QEMU and no storage: a
`Host` does what touches them. So the tests play upstream's fifty cases on it.

Source: snapshot-tests of qemu-server (regression vectors: configurations before and after, errors).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from ...error import ClusterError
from ..config.guest import GuestConfig, Section
from . import hardware
from .changing import keep_unused
from .hardware import Drive

_NOT_COPIED = ("snapstate", "snaptime", "vmstate", "lock", "digest", "runningmachine", "runningcpu", "meta-lock")


class Host(Protocol):
    """What the engine needs of the world."""

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Hold the machine's lock."""

    def load(self) -> GuestConfig:
        """Return its configuration."""

    def save(self, config: GuestConfig) -> None:
        """Write its configuration."""

    def now(self) -> int:
        """Return the time, in seconds since 1970."""

    def log(self, text: str) -> None:
        """Tell the task's log."""

    def is_possible(self, config: GuestConfig, name: str) -> bool:
        """Say whether all volumes can be snapshotted."""

    def is_running(self) -> bool:
        """Say whether the machine runs."""

    def reserve_state(self, config: GuestConfig, name: str) -> dict[str, str]:
        """Make room for the machine's RAM; return ``vmstate`` and what else the snapshot has to remember."""

    def remove_state(self, volume: str) -> None:
        """Remove the volume of a state."""

    def activate(self, snapshot: Section) -> None:
        """See that the storages of a snapshot are there."""

    def begin(self, snapshot: Section, name: str) -> None:
        """Halt a running machine at one moment."""

    def end(self, snapshot: Section, name: str) -> None:
        """Let it go on."""

    def snapshot(self, drive: Drive, name: str) -> None:
        """Snapshot a volume."""

    def delete(self, drive: Drive, name: str) -> None:
        """Delete a volume's snapshot."""

    def assert_rollback(self, drive: Drive, name: str) -> None:
        """Refuse when a volume cannot return to its snapshot."""

    def rollback(self, drive: Drive, name: str) -> None:
        """Return a volume to its snapshot."""

    def stop(self) -> None:
        """Stop the machine."""

    def start(self, config: GuestConfig, snapshot: Section) -> None:
        """Start the machine with the RAM of a snapshot."""


def _volumes(section: Section) -> Iterator[Drive]:
    """Yield the drives whose volumes belong to a snapshot."""
    for drive in hardware.drives(section.values):
        if drive.has_volume and not drive.is_cdrom:
            yield drive


def prepare(host: Host, name: str, *, ram: bool, comment: str | None) -> Section:
    """Begin a snapshot: lock the machine and note what it is.

    Raises:
        ClusterError: it cannot be taken; nothing was changed.
    """
    with host.lock():
        config = host.load()
        if hardware.flag(config.current.values, "template"):
            raise ClusterError("you can't take a snapshot if it's a template")
        config.assert_unlocked()
        if name in config.snapshots:
            raise ClusterError(f"snapshot name '{name}' already used")
        if not host.is_possible(config, name):
            raise ClusterError("snapshot feature is not available")
        values = {
            key: value
            for key, value in config.current.values.items()
            if key not in _NOT_COPIED and not key.startswith("unused")
        }
        snapshot = Section(values, comment + "\n" if comment else None)
        values |= {"snapstate": "prepare", "snaptime": str(host.now())}
        if ram:
            values |= host.reserve_state(config, name)
        config.current.values["lock"] = "snapshot"
        config.snapshots[name] = snapshot
        host.save(config)
        return snapshot.copy()


def commit(host: Host, name: str) -> None:
    """End a snapshot: it is there.

    Raises:
        ClusterError: it was not begun.
    """
    with host.lock():
        config = host.load()
        if config.current.values.get("lock") != "snapshot":
            raise ClusterError("missing snapshot lock")
        if name not in config.snapshots:
            raise ClusterError(f"snapshot '{name}' does not exist")
        if config.snapshots[name].values.get("snapstate") != "prepare":
            raise ClusterError("wrong snapshot state")
        del config.snapshots[name].values["snapstate"]
        del config.current.values["lock"]
        config.current.values["parent"] = name
        host.save(config)


def create(host: Host, name: str, *, ram: bool = False, comment: str | None = None) -> None:
    """Take a snapshot.

    Raises:
        ClusterError: it could not be taken; what was begun is removed.
    """
    snapshot = prepare(host, name, ram=ram, comment=comment)
    done: list[str] = []
    running = host.is_running()
    try:
        try:
            if running:
                host.begin(snapshot, name)
            for drive in _volumes(snapshot):
                host.snapshot(drive, name)
                done.append(drive.key)
        finally:
            if running:
                host.end(snapshot, name)
    except BaseException:
        host.log("snapshot create failed: starting cleanup")
        try:
            delete(host, name, force=True, only=done)
        except ClusterError as error:
            host.log(error.message)
        raise
    commit(host, name)


def delete(host: Host, name: str, *, force: bool = False, only: list[str] | None = None) -> None:
    """Delete a snapshot.

    Args:
        host: the world.
        name: the snapshot's.
        force: go on when a volume's snapshot cannot be deleted.
        only: drives that were snapshotted before the snapshot failed; None for all of a finished one.

    Raises:
        ClusterError: it could not be deleted; its section says what is left.
    """
    expected = "snapshot" if only is not None else "snapshot-delete"
    with host.lock():
        config = host.load()
        if only is None:
            config.assert_unlocked()
            if hardware.flag(config.current.values, "template"):
                raise ClusterError("you can't delete a snapshot if vm is a template")
        if name not in config.snapshots:
            raise ClusterError(f"snapshot '{name}' does not exist")
        if only is None:
            host.activate(config.snapshots[name])
            config.current.values["lock"] = expected
        config.snapshots[name].values["snapstate"] = "delete"
        host.save(config)
    snapshot = config.snapshots[name].copy()
    _delete_state(host, name, snapshot, force=force)
    for drive in _volumes(snapshot):
        if only is not None and drive.key not in only:
            continue
        with _forgiving(host, force):
            host.delete(drive, name)
        if not force:
            _take_out(host, name, drive.key)
    _forget(host, name)


def _delete_state(host: Host, name: str, snapshot: Section, *, force: bool) -> None:
    state = snapshot.values.get("vmstate")
    if state is not None:
        with _forgiving(host, force):
            host.remove_state(state)
        if not force:
            _take_out(host, name, "vmstate")


@contextlib.contextmanager
def _forgiving(host: Host, force: bool) -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        if not force:
            raise
        host.log(error.message)


def _take_out(host: Host, name: str, key: str) -> None:
    """Note in the snapshot that something of it is gone."""
    with host.lock():
        config = host.load()
        values = config.snapshots[name].values
        text = values.pop(key, None)
        if text is not None and key != "vmstate":
            keep_unused(values, hardware.drive(key, text).volume)
        host.save(config)


def _forget(host: Host, name: str) -> None:
    """Take a deleted snapshot out of the configuration; its children are its parent's."""
    with host.lock():
        config = host.load()
        parent = config.snapshots.pop(name).values.get("parent")
        for section in (config.current, *config.snapshots.values()):
            if section.values.get("parent") == name:
                if parent:
                    section.values["parent"] = parent
                else:
                    del section.values["parent"]
        config.current.values.pop("lock", None)
        host.save(config)


def rollback(host: Host, name: str, vmid: int) -> None:
    """Return to a snapshot; the machine is stopped, and started again if the snapshot has its RAM.

    Raises:
        ClusterError: it cannot; once volumes are being returned, the machine stays locked.
    """
    with host.lock():
        snapshot = _checked(host, name, vmid)
    for drive in _volumes(snapshot):
        host.rollback(drive, name)
    with host.lock():
        config = host.load()
        if config.current.values.get("lock") != "rollback":
            raise ClusterError("got wrong lock")
        _apply(config, name)
        host.save(config)
    if "vmstate" in snapshot.values:
        host.start(config, snapshot)


def _checked(host: Host, name: str, vmid: int) -> Section:
    """Return the snapshot that a machine can return to; the machine is stopped and locked then."""
    config = host.load()
    if hardware.flag(config.current.values, "template"):
        raise ClusterError("you can't rollback if vm is a template")
    if name not in config.snapshots:
        raise ClusterError(f"snapshot '{name}' does not exist")
    snapshot = config.snapshots[name]
    if "snapstate" in snapshot.values:
        raise ClusterError(f"unable to rollback to incomplete snapshot (snapstate = {snapshot.values['snapstate']})")
    for drive in _volumes(snapshot):
        host.assert_rollback(drive, name)
    config.assert_unlocked()
    host.activate(snapshot)
    host.stop()
    if host.is_running():
        raise ClusterError(f"unable to rollback vm {vmid}: vm is running")
    config.current.values["lock"] = "rollback"
    host.save(config)
    return snapshot.copy()


def _apply(config: GuestConfig, name: str) -> None:
    """Let a snapshot's settings come into force; description and unused volumes stay."""
    current = config.current.values
    unused = {key: value for key, value in current.items() if key.startswith("unused")}
    snapshot = config.snapshots[name].values
    values = {key: value for key, value in snapshot.items() if key not in _NOT_COPIED}
    used = {drive.volume for drive in hardware.drives(values)}
    for drive in hardware.drives(current):
        if drive.is_disk and drive.has_volume and drive.volume not in used:
            keep_unused(unused, drive.volume)
    values |= {key: value for key, value in unused.items() if value.split(",")[0] not in used}
    values["parent"] = name
    if "vmstate" in snapshot and "runningmachine" not in snapshot and "machine" not in current:
        values.pop("machine", None)  # old snapshots had the machine that ran there, not one that somebody chose
    config.current.values = values
    config.pending = Section()
