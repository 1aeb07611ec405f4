"""Disks of machines: letting them grow, moving them to another storage, what can be done with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ...error import ClusterError
from ..config.guest import GuestConfig
from ..storage import of_volume, storage_of, storages
from . import allocation, changing, creation, hardware
from .hardware import Drive
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

Log = Callable[[str], None]


class Follows(Protocol):
    """Who follows a long copy: a task, or what writes to one."""

    def log(self, text: str) -> None:
        """Write a line."""

    def check_stop(self) -> None:
        """Stop here when somebody asked for it."""

    def wait(self, seconds: float) -> None:
        """Sleep."""


def check_resize(node: Node, values: Mapping[str, Any]) -> int:
    """Return the size that a disk is to have, in bytes.

    Raises:
        ClusterError: there is no such disk, it would shrink, or the machine is locked.
    """
    config = node.state.load_guest(values["vmid"], node.name, "qemu")
    config.assert_unchanged(values.get("digest"))
    if not values.get("skiplock"):
        config.assert_unlocked()
    return _wanted(node, config, values["disk"], values["size"])


def _wanted(node: Node, config: GuestConfig, key: str, size: str) -> int:
    drive = _disk(config, key)
    now = of_volume(node, drive.volume).size(drive.volume)
    wanted = hardware.size_bytes(size.removeprefix("+")) + (now if size.startswith("+") else 0)
    wanted = (wanted + 1023) // 1024 * 1024
    if wanted < now:
        raise ClusterError("shrinking disks is not supported")
    return wanted


def _disk(config: GuestConfig, key: str) -> Drive:
    if key not in config.current.values:
        raise ClusterError(f"disk '{key}' does not exist")
    drive = hardware.drive(key, config.current.values[key])
    if drive.is_cdrom:
        raise ClusterError("you can't resize a cdrom")
    if not drive.has_volume:
        raise ClusterError(f"disk '{key}' has no associated volume")
    return drive


def resize(node: Node, vmid: int, key: str, size: int, log: Log, *, skiplock: bool = False) -> None:
    """Let a disk grow, of a running machine too.

    Raises:
        ClusterError: it cannot.
    """
    del log
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        if not skiplock:
            config.assert_unlocked()
        drive = _disk(config, key)
        storage = of_volume(node, drive.volume)
        if any(
            drive.volume in [each.volume for each in hardware.drives(snapshot.values)]
            for snapshot in config.snapshots.values()
        ) and storage.driver(drive.volume) == "qcow2" and size < storage.size(drive.volume):  # fmt: skip
            raise ClusterError("can't resize volume with snapshots")
        running = node.guests.get(vmid)
        if running is None:
            storage.resize(drive.volume, size)
        elif size > storage.size(drive.volume):
            with contextlib.suppress(Exception):
                storage.widen(drive.volume, running.node_of(key), running.machine.execute)
            running.execute("block_resize", node_name=running.node_of(key), size=size)
        config.current.values[key] = drive.but(size=hardware.size_text(size)).text()
        if running is not None:
            running.values[key] = config.current.values[key]


def has_feature(node: Node, config: GuestConfig, feature: str, snapshot: str | None = None) -> bool:
    """Say whether all disks of a machine can do something."""
    values = config.snapshots[snapshot].values if snapshot else config.current.values
    for drive in hardware.drives(values):
        if not drive.has_volume or (drive.is_cdrom and not drive.is_cloudinit):
            continue
        if drive.is_cloudinit and feature != "snapshot":
            continue
        if feature == "snapshot" and drive.is_cloudinit:
            continue
        storage = of_volume(node, drive.volume)
        if not storage.has_feature(feature, drive.volume, snapshot):
            return False
    return True


def nodes_with_all(node: Node, config: GuestConfig) -> list[str]:
    """Return the nodes on which a machine's volumes can be reached."""
    names = {drive.volume.partition(":")[0] for drive in hardware.drives(config.current.values) if drive.has_volume}
    found = []
    for name in node.state.nodes:
        if all(reaches(node, name, storage) for storage in names):
            found.append(name)
    return found


def reaches(node: Node, name: str, storage: str) -> bool:
    """Say whether a node sees the volumes that this one sees on a storage."""
    section = node.state.storages().get(storage)
    if section is None:
        return False
    allowed = section.words("nodes")
    if allowed and name not in allowed:
        return False
    return name == node.name or storage_of(node, storage).shared


def move(node: Node, vmid: int, values: Mapping[str, Any], task: Task) -> None:
    """Move a disk to another storage, or into another format; of a running machine while it runs.

    Raises:
        ClusterError: it cannot be moved; it stays where it was.
    """
    key = values["disk"]
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        config.assert_unchanged(values.get("digest"))
        config.assert_unlocked()
        drive = _movable(config, key)
        target = storage_of(node, values.get("storage") or drive.volume.partition(":")[0])
        target.require("images")
        running = node.guests.get(vmid)
        task.log(f"create full clone of drive {key} ({drive.volume})")
        if running is None or key.startswith("unused"):
            volume = of_volume(node, drive.volume).copy(
                drive.volume,
                target,
                vmid,
                format=values.get("format"),
                progress=allocation.progress(task.log),
                check_stop=task.check_stop,
            )
        else:
            volume = _mirror(node, running, drive, target, wanted=values.get("format"), task=task)
        moved = drive.but(file=volume, format=None)
        config.current.values[key] = moved.text()
        if running is not None:
            running.values[key] = moved.text()
        node.state.save_guest(node.name, "qemu", vmid, config)
        if values.get("delete"):
            creation.remove_volume(node, vmid, drive.volume, task.log)
        else:
            changing.keep_unused(config.current.values, drive.volume)


def check_move(node: Node, vmid: int, values: Mapping[str, Any]) -> None:
    """Refuse a move that cannot be.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    config = node.state.load_guest(vmid, node.name, "qemu")
    config.assert_unchanged(values.get("digest"))
    config.assert_unlocked()
    drive = _movable(config, values["disk"])
    target = storage_of(node, values.get("storage") or drive.volume.partition(":")[0])
    target.require("images")
    origin = of_volume(node, drive.volume)
    same_format = values.get("format") in (None, origin.format(drive.volume))
    if target.name == origin.name and same_format:
        raise ClusterError("you can't move to the same storage with same format")
    if any(
        drive.volume == each.volume
        for snapshot in config.snapshots.values()
        for each in hardware.drives(snapshot.values)
    ):
        used = next(
            name
            for name, snapshot in config.snapshots.items()
            if drive.volume in [each.volume for each in hardware.drives(snapshot.values)]
        )
        if values.get("delete"):
            raise ClusterError(
                f"you can't move a disk with snapshots and delete the source (snapshot '{used}')".partition(" (")[0]
            )


def _movable(config: GuestConfig, key: str) -> Drive:
    if key not in config.current.values:
        raise ClusterError(f"disk '{key}' does not exist")
    drive = hardware.drive(key, config.current.values[key])
    if drive.is_cdrom:
        raise ClusterError("you can't move a cdrom")
    if not drive.has_volume:
        raise ClusterError(f"disk '{key}' has no associated volume")
    return drive


def _mirror(node: Node, running: RunningVm, drive: Drive, target: Any, *, wanted: str | None, task: Task) -> str:
    """Copy the disk of a running machine, and let the machine go on with the copy."""
    origin = of_volume(node, drive.volume)
    same = origin.format(drive.volume)
    format_ = wanted or (same if same in target.formats else target.default_format)
    volume: str = target.alloc(running.vmid, format_, origin.size(drive.volume))
    name, job = running.node_of(drive.key), f"drive-{drive.key}"
    fresh = job if name != job else f"{job}-moved"
    try:
        running.execute("blockdev-add", target.layers(volume, fresh))
        try:
            mirror(running, job, name, fresh, task)
            _complete(running, job, task)
        except BaseException:
            cancel(running, job)
            with contextlib.suppress(ClusterError):
                running.execute("blockdev-del", node_name=fresh)
            raise
    except BaseException:
        target.free(volume)
        raise
    with contextlib.suppress(ClusterError):
        running.execute("blockdev-del", node_name=name)
    running.nodes[drive.key] = fresh
    return volume


def mirror(running: RunningVm, job: str, source: str, target: str, task: Follows) -> None:
    """Begin a mirror and wait until both sides are the same; from then on, each write goes to both.

    Raises:
        ClusterError: it failed.
        TaskStopped: somebody stopped the task.
    """
    running.execute(
        "blockdev-mirror",
        job_id=job,
        device=source,
        target=target,
        sync="full",
        auto_dismiss=False,
        auto_finalize=True,
    )
    said = -1
    while True:
        found = next((each for each in running.execute("query-jobs") if each["id"] == job), None)
        if found is None:
            raise ClusterError(f"{job}: mirroring has been cancelled")
        done, total = found.get("current-progress", 0), found.get("total-progress", 0)
        tenth = 10 * done // total if total else 10
        if tenth > said:
            said = tenth
            share = 100 * done / total if total else 100
            task.log(f"{job}: transferred {allocation.readable(done)} of {allocation.readable(total)} ({share:.2f}%)")
        if found["status"] == "ready":
            task.log("all 'mirror' jobs are ready")
            return
        if found["status"] in ("concluded", "null", "aborting"):
            raise ClusterError(f"{job}: mirroring error: {found.get('error', 'mirroring has been cancelled')}")
        task.wait(0.05)


@contextlib.contextmanager
def standing_still(running: RunningVm | None) -> Iterator[None]:
    """Let a guest's agent hold its file systems still while they are copied, if there is one."""
    from . import agent  # noqa: PLC0415 - only here

    frozen = False
    if running is not None and hardware.has_agent(running.values) and agent.answers(running):
        with contextlib.suppress(ClusterError):
            agent.execute(running, "guest-fsfreeze-freeze")
            frozen = True
    try:
        yield
    finally:
        if frozen and running is not None:
            with contextlib.suppress(ClusterError):
                agent.execute(running, "guest-fsfreeze-thaw")


def copy_running(
    node: Node, running: RunningVm, key: str, place: Any, *, newid: int, wanted: str, task: Follows
) -> str:
    """Copy the disk of a running machine for another one; returns the copy's volume."""
    drive = hardware.drive(key, running.values[key])
    size = of_volume(node, drive.volume).size(drive.volume)
    volume: str = place.alloc(newid, wanted if wanted in place.formats else place.default_format, size)
    job, fresh = f"drive-{key}", f"clone-{key}"
    try:
        running.execute("blockdev-add", place.layers(volume, fresh))
        try:
            mirror(running, job, running.node_of(key), fresh, task)
            running.execute("block-job-cancel", device=job)  # of a ready mirror: the copy is whole
            await_end(running, job)
        except BaseException:
            cancel(running, job)
            raise
        finally:
            with contextlib.suppress(ClusterError):
                running.execute("blockdev-del", node_name=fresh)
    except BaseException:
        place.free(volume)
        raise
    return volume


def _complete(running: RunningVm, job: str, task: Task) -> None:
    """Let the machine go on with the mirror's target."""
    running.execute("job-complete", id=job)
    await_end(running, job, task)
    task.log(f"{job}: Completed successfully.")


def await_end(running: RunningVm, job: str, task: Task | None = None) -> None:
    """Wait until a job has concluded, and dismiss it.

    Raises:
        ClusterError: it failed.
    """
    import time  # noqa: PLC0415 - only here

    end = time.monotonic() + 600
    while True:
        found = next((each for each in running.execute("query-jobs") if each["id"] == job), None)
        if found is None:
            return
        if found["status"] == "concluded":
            running.execute("job-dismiss", id=job)
            if found.get("error"):
                raise ClusterError(f"{job}: {found['error']}")
            return
        if time.monotonic() > end:
            raise ClusterError(f"{job}: got timeout")
        time.sleep(0.02)
        if task is not None:
            task.check_stop()


def cancel(running: RunningVm, job: str) -> None:
    """End a job without its effect; never fails."""
    with contextlib.suppress(ClusterError):
        running.execute("job-cancel", id=job)
    with contextlib.suppress(ClusterError):
        await_end(running, job)


def local_storages(node: Node) -> set[str]:
    """Return the names of the storages that only this node sees."""
    return {name for name, storage in storages(node).items() if not storage.shared}
