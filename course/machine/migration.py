"""Moving a guest's state: into a file and back, or to another machine while it runs.

All three are QEMU migrations; what differs is the channel::

    save      ──▶ regular file, passed to QEMU as a descriptor   (no path for its sandbox to refuse, no helper process)
    restore   ◀── the same file
    migrate   ──▶ Unix socket in a private directory ──▶ destination

The source decides when to switch over; until the destination has taken all in, the guest exists in both and runs in
the source. ``return-path`` makes the source wait for the destination's word: without it, a small guest can fit into
the socket's buffer, and the source would believe in a migration that the destination is just refusing.

Source: QEMU, docs/devel/migration; QAPI schema, qapi/migration.json.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecuteError

from ..error import EventTimeout, MachineError, MachineGone, MigrationError, UsageError
from .directory import PrivateDirectory
from .launch import end_of

if TYPE_CHECKING:
    from .events import Recording
    from .machine import Machine

_ENDED = frozenset({"completed", "failed", "cancelled"})
_FD_NAME = "course-state"
_NO_LIMIT = 1 << 40  # bytes/s


def save(
    vm: Machine, path: Path, *, capabilities: Sequence[str] = (), resume: bool = True, timeout_s: float = 60
) -> None:
    """Write a guest's RAM and device state to a file; its disks stay where they are.

    The guest is paused while it is written. The file appears under its name when it is complete, never before.

    Args:
        vm: a running machine.
        path: file to write; replaced when it exists.
        capabilities: migration capabilities for this time, such as ``"x-ignore-shared"`` (leave out RAM that is a
            shared file); `restore` needs the same ones.
        resume: let the guest go on afterwards, if it ran before.
        timeout_s: seconds until it must be written.

    Raises:
        MigrationError: when QEMU could not write it all; the guest goes on, no file is left.
        UsageError: when no file can be made there.
    """
    was_running = vm.runstate == "running"
    if was_running:
        vm.pause()
    try:
        with _complete_or_nothing(path) as file, _parameters(vm, {"max-bandwidth": _NO_LIMIT}):
            with _capabilities([vm], ("events", *capabilities)), vm.record("MIGRATION") as events:
                vm.send_fd(file, _FD_NAME)
                vm.execute("migrate", uri=f"fd:{_FD_NAME}")
                status = _await_end(vm, events, timeout_s)
                _settle(vm, status)
            if status != "completed":
                why = _reason(vm, status) or _space_left(path)
                raise vm.fault(MigrationError, f"{vm.name} could not be saved to {path}: {why}. No file was left.")
    finally:
        if was_running and resume and vm.running:
            vm.resume()


def restore(
    vm: Machine, path: Path, *, capabilities: Sequence[str] = (), resume: bool = True, timeout_s: float = 60
) -> None:
    """Take up a state that `save` wrote.

    Args:
        vm: a machine made with ``incoming=True`` and otherwise the same arguments as the saved one.
        path: the file.
        capabilities: those given to `save`.
        resume: let the guest run.
        timeout_s: seconds until it must be read.

    Raises:
        MigrationError: when the state does not fit this machine, or is damaged; carries QEMU's words. QEMU has ended.
        UsageError: when the machine does not wait for a state, or there is no such file.
    """
    _require_incoming(vm)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"the saved state {path} cannot be read: {error.strerror}. save() writes one.") from error
    try:
        with _capabilities([vm], ("events", *capabilities)), vm.record("MIGRATION") as events:
            vm.send_fd(file, _FD_NAME)
            vm.execute("migrate-incoming", uri=f"fd:{_FD_NAME}")
            status = _await_end(vm, events, timeout_s)
        if status != "completed":
            raise vm.fault(MigrationError, _refused(vm, f"the state in {path}"))
    except MachineGone as error:
        raise vm.fault(MigrationError, _refused(vm, f"the state in {path}")) from error
    finally:
        os.close(file)
    if resume and vm.runstate != "running":
        vm.resume()


def migrate(
    source: Machine,
    destination: Machine,
    *,
    timeout_s: float = 30,
    bandwidth_mib_s: float | None = None,
    downtime_limit_ms: int | None = None,
    capabilities: Sequence[str] = (),
) -> dict[str, Any]:
    """Move a guest to another machine while it runs.

    Afterwards the guest runs in `destination`; `source` is left in state ``postmigrate``, to be ended by its owner.

    Args:
        source: the machine whose guest moves.
        destination: a launched machine, made with ``incoming=True`` and otherwise the same arguments.
        timeout_s: seconds until it must have moved; then the migration is cancelled.
        bandwidth_mib_s: limit in MiB/s; None leaves QEMU's own.
        downtime_limit_ms: how long the guest may stand still at the end, in ms; None leaves QEMU's own.
        capabilities: further migration capabilities, set on both sides.

    Returns:
        ``query-migrate`` of the source: ``total-time`` and ``downtime`` in ms, ``ram``, …

    Raises:
        MigrationError: when it failed or did not converge. The guest goes on in `source`. When the destination ended,
            the error carries its command line, exit code and output.
        UsageError: when the destination does not wait for a guest.
    """
    _require_incoming(destination)
    parameters: dict[str, int] = {}
    if bandwidth_mib_s is not None:
        parameters["max-bandwidth"] = int(bandwidth_mib_s * (1 << 20))
    if downtime_limit_ms is not None:
        parameters["downtime-limit"] = downtime_limit_ms
    was_running = source.runstate == "running"
    both = [source, destination]
    wanted = ("events", "return-path", *capabilities)
    directory = PrivateDirectory()
    try:
        with _parameters(source, parameters), _capabilities(both, wanted, optional="return-path"):
            return _migrate(source, destination, directory.socket("migration"), timeout_s)
    except BaseException:
        _keep_running(source, resume=was_running)
        raise
    finally:
        directory.remove()


def _migrate(source: Machine, destination: Machine, path: str, timeout_s: float) -> dict[str, Any]:
    uri = f"unix:{path}"
    with source.record("MIGRATION") as sent, destination.record("MIGRATION") as received:
        try:
            destination.execute("migrate-incoming", uri=uri)
            source.execute("migrate", uri=uri)
            status = _await_end(source, sent, timeout_s)
            if status == "completed":
                status = _await_end(destination, received, timeout_s)
        except MachineGone as error:
            if not source.running:
                raise
            raise destination.fault(MigrationError, _refused(destination, f"the guest of {source.name}")) from error
    if status == "completed":
        _settle(source, status)
        return dict(source.execute("query-migrate"))
    if _has_ended(destination):
        raise destination.fault(MigrationError, _refused(destination, f"the guest of {source.name}"))
    raise source.fault(
        MigrationError,
        f"{source.name} could not be migrated to {destination.name}: {_reason(source, status) or status}. "
        f"The guest goes on in {source.name}.",
    )


def _settle(vm: Machine, status: str) -> None:
    """Wait until a source is done with its migration: the times added up, the guest's state final.

    QEMU tells the end a moment before that, and until then refuses to let the guest run.
    """
    end = time.monotonic() + 5
    while time.monotonic() < end:
        state = vm.runstate
        if state != "finish-migrate" and (status != "completed" or state == "postmigrate"):
            return
        time.sleep(0.002)


def _require_incoming(vm: Machine) -> None:
    if not vm.incoming:
        raise UsageError(f"{vm!r} does not wait for a state: make it with incoming=True.")
    if (status := vm.runstate) != "inmigrate":
        raise UsageError(f"{vm!r} is {status!r}: it has taken up a state before. Make a new machine.")


def _await_end(vm: Machine, events: Recording, timeout_s: float) -> str:
    """Wait for the last status of a migration; cancel it when it takes too long."""
    end = time.monotonic() + timeout_s
    try:
        while True:
            event = events.wait("MIGRATION", max(0.0, end - time.monotonic()))
            status = str(event["data"]["status"])
            if status in _ENDED:
                return status
    except EventTimeout as error:
        message = f"{vm.name} was not migrated within {timeout_s:g} s, and it was cancelled: {_progress(vm)}"
        _cancel(vm, events)
        raise vm.fault(MigrationError, message) from error


def _progress(vm: Machine) -> str:
    """Say how far a migration that does not end has come, and what would help."""
    info = vm.execute("query-migrate")
    ram = info.get("ram", {})
    mib = float(1 << 20)
    speed = ram.get("mbps", 0) * 1e6 / 8 / mib
    dirty = ram.get("dirty-pages-rate", 0) * ram.get("page-size", 4096) / mib
    return (
        f"{ram.get('remaining', 0) / mib:.1f} MiB of RAM left after {ram.get('dirty-sync-count', 0)} rounds at "
        f"{speed:.1f} MiB/s, while the guest dirties {dirty:.1f} MiB/s; the downtime would be "
        f"{info.get('expected-downtime', '?')} ms. Raise bandwidth_mib_s or downtime_limit_ms, or slow the guest "
        "down (capabilities=('auto-converge',))."
    )


def _cancel(vm: Machine, events: Recording) -> None:
    vm.execute("migrate_cancel")
    with contextlib.suppress(EventTimeout):
        while events.wait("MIGRATION", 10)["data"]["status"] not in _ENDED:
            pass


def _keep_running(source: Machine, *, resume: bool) -> None:
    """After a failure: no migration is under way any more, and the guest runs if it ran before."""
    with contextlib.suppress(MachineError, ExecuteError):
        if source.execute("query-migrate").get("status") not in {None, "none", *_ENDED}:
            with source.record("MIGRATION") as events:
                _cancel(source, events)
        _settle(source, "failed")
        if resume and source.runstate != "running":
            source.resume()


def _has_ended(vm: Machine) -> bool:
    """Tell whether QEMU has ended; one that refuses a state needs a moment to do so."""
    end = time.monotonic() + 1
    while vm.running and time.monotonic() < end:
        time.sleep(0.01)
    return not vm.running


def _refused(vm: Machine, what: str) -> str:
    if _has_ended(vm) and vm.exitcode is not None and vm.exitcode < 0:
        return f"{vm.name} ended before it had taken up {what}. {end_of(vm.exitcode)} Make a new machine and try again."
    return (
        f"{vm.name} did not take up {what}. The two machines must have the same machine type, memory size and devices "
        "in the same order; compare the command lines. QEMU's own words follow."
    )


def _reason(vm: Machine, status: str) -> str:
    if status == "cancelled":
        return "it was cancelled"
    return str(vm.execute("query-migrate").get("error-desc", ""))


def _space_left(path: Path) -> str:
    space = os.statvfs(path.parent)
    return f"writing failed ({space.f_bavail * space.f_frsize >> 20} MiB are free there)"


@contextlib.contextmanager
def _complete_or_nothing(path: Path) -> Iterator[int]:
    """Open a new file; when the block succeeds it gets its name `path`, else it is removed."""
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"no file can be made at {path}: {error.strerror}. Choose another directory.") from error
    try:
        yield fd
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _capabilities(vms: Sequence[Machine], names: Sequence[str], optional: str = "") -> Iterator[None]:
    """Switch migration capabilities on, and what was off before off again."""
    before = {vm: {c["capability"]: c["state"] for c in vm.execute("query-migrate-capabilities")} for vm in vms}
    for vm in vms:
        for name in set(names) - {optional}:
            if name not in before[vm]:
                raise UsageError(
                    f"this QEMU has no migration capability {name!r}; it has {', '.join(sorted(before[vm]))}"
                )
    # What one side lacks, the other must not use.
    usable = [name for name in dict.fromkeys(names) if all(name in before[vm] for vm in vms)]
    for vm in vms:
        _switch(vm, [name for name in usable if not before[vm][name]], on=True)
    try:
        yield
    finally:
        for vm in vms:
            with contextlib.suppress(MachineError, ExecuteError):
                _switch(vm, [name for name in usable if not before[vm][name]], on=False)


def _switch(vm: Machine, names: Sequence[str], *, on: bool) -> None:
    if names:
        states = [{"capability": name, "state": on} for name in names]
        vm.execute("migrate-set-capabilities", capabilities=states)


@contextlib.contextmanager
def _parameters(vm: Machine, values: dict[str, int]) -> Iterator[None]:
    """Set migration parameters, and set them back."""
    before = vm.execute("query-migrate-parameters")
    if values:
        vm.execute("migrate-set-parameters", values)
    try:
        yield
    finally:
        old = {name: before[name] for name in values if name in before}
        if old:
            with contextlib.suppress(MachineError, ExecuteError):
                vm.execute("migrate-set-parameters", old)
