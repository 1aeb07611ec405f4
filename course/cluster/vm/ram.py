"""A machine's RAM in a volume: what a snapshot with RAM, and suspending to disk, keep.

The state goes to the volume as a QEMU migration into a file. A snapshot's disks have to be those of the same moment,
and QEMU lets go of its disks when a migration completes; so the disks' turn is at its last stop before that::

    pause ─▶ migrate to the file ─▶ pre-switchover: disks are snapshotted ─▶ continue, completed ─▶ go on
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, CourseError, MachineError
from ..storage import of_volume, storage_of
from . import hardware
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node

Log = Callable[[str], None]

_FD = "pve-state"
_TIMEOUT_S = 600
_GO_ON_S = 30
_OVERHEAD = 64 << 20
_CAPABILITIES = ("events", "pause-before-switchover")


def allocate(node: Node, running: RunningVm, storage: str, word: str) -> str:
    """Make a volume for the state of a machine: its RAM and some more.

    Args:
        node: that it runs on.
        running: the machine.
        storage: that is to hold it.
        word: the snapshot's name, or when it was suspended.
    """
    values = running.values
    place = storage_of(node, storage)
    size = (hardware.memory_mib(values) << 20) + _OVERHEAD
    return place.alloc(running.vmid, "raw", size, purpose=f"state-{word}")


def storage_for(node: Node, values: dict[str, str]) -> str:
    """Return where a machine's state is kept: where it says, else beside its first disk, shared ones first."""
    if values.get("vmstatestorage"):
        return values["vmstatestorage"]
    found = [drive.volume.partition(":")[0] for drive in hardware.disks(values) if drive.has_volume]
    shared = [name for name in found if storage_of(node, name).shared]
    return (shared or found or ["local"])[0]


@contextlib.contextmanager
def saving(node: Node, running: RunningVm, volume: str, log: Log) -> Iterator[None]:
    """Save a machine's RAM; inside the `with`, its disks stand at the same moment.

    The machine is paused when it begins, and goes on afterwards if it ran.

    Raises:
        ClusterError: the state could not be saved; the machine goes on.
    """
    path = of_volume(node, volume).path(volume)
    was_running = running.qmpstatus == "running"
    began = time.monotonic()
    if was_running:
        running.execute("stop")
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _capabilities(running, on=True)
        running.execute("migrate-set-parameters", max_bandwidth=1 << 40)
        running.machine.send_fd(file, _FD)
        running.execute("migrate", uri=f"fd:{_FD}")
        _await(running, "pre-switchover")
        yield
        running.execute("migrate-continue", state="pre-switchover")
        done = _await(running, "completed")
        _await_rest(running)
        seconds = max(1, round(time.monotonic() - began))
        log(f"completed saving the VM state in {seconds}s, saved {done['ram']['transferred'] / 2**20:.2f} MiB")
    except BaseException:
        with contextlib.suppress(ClusterError):
            running.execute("migrate_cancel")
        raise
    finally:
        os.close(file)
        with contextlib.suppress(ClusterError):
            _capabilities(running, on=False)
        if was_running:
            go_on(running)


def go_on(running: RunningVm) -> None:
    """Let a machine run after a migration that ended in whatever way; never fails.

    QEMU reports the end of a migration before its last step, which may stop the machine once more, and refuses to go
    on in between: so this insists until the machine is seen running several times.
    """
    end, seen = time.monotonic() + _GO_ON_S, 0
    with contextlib.suppress(ClusterError):
        while seen < 3 and time.monotonic() < end:
            if running.qmpstatus == "running":
                seen += 1
            else:
                seen = 0
                with contextlib.suppress(ClusterError):
                    running.execute("cont")
            time.sleep(0.01)


def _capabilities(running: RunningVm, *, on: bool) -> None:
    running.execute(
        "migrate-set-capabilities", capabilities=[{"capability": name, "state": on} for name in _CAPABILITIES]
    )


def _await(running: RunningVm, status: str) -> dict[str, Any]:
    """Wait until the migration is there."""
    end = time.monotonic() + _TIMEOUT_S
    while True:
        found: dict[str, Any] = running.execute("query-migrate")
        now = found.get("status")
        if now == status:
            return found
        if now in ("failed", "cancelled", "completed"):
            raise ClusterError(f"unable to save VM state and RAM - {found.get('error-desc', now)}")
        if time.monotonic() > end:
            raise ClusterError("unable to save VM state and RAM - got timeout")
        time.sleep(0.01)


def _await_rest(running: RunningVm) -> None:
    """Wait for the last step of a completed migration: only after it, `cont` is not undone."""
    end = time.monotonic() + _TIMEOUT_S
    while running.qmpstatus != "postmigrate" and time.monotonic() < end:
        time.sleep(0.005)


def save_to_volume(node: Node, running: RunningVm, storage: str, word: str, log: Log) -> str:
    """Save a machine's RAM to a volume of its own; the machine stays paused. Returns the volume."""
    log(f"saving VM state and RAM using storage '{storage}'")
    volume = allocate(node, running, storage, word)
    try:
        if running.qmpstatus == "running":
            running.execute("stop")
        with saving(node, running, volume, log):
            pass
    except BaseException:
        forget(node, volume, log)
        raise
    return volume


def load(node: Node, running: RunningVm, volume: str, *, resume: bool) -> None:
    """Let a machine that waits for a state take it up.

    Raises:
        ClusterError: the state does not fit it.
    """
    try:
        running.machine.restore(of_volume(node, volume).path(volume), resume=resume, timeout_s=_TIMEOUT_S)
    except (MachineError, CourseError) as error:
        words = next(iter(getattr(error, "output", "").strip().splitlines()), str(error).splitlines()[0])
        raise ClusterError(f"unable to load VM state - {words}") from error
    running.incoming = False


def forget(node: Node, volume: str, log: Log) -> None:
    """Remove a state's volume; one that is gone already is said, and no error."""
    try:
        of_volume(node, volume).free(volume)
    except ClusterError as error:
        log(f"could not remove state {volume} - {error.message}")
