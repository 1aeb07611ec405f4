"""QMP jobs: started by one command, ended by a later one, and in between told by events.

::

    command(job-id=J) ─▶ created ─▶ running ─▶ [ready ─▶ job-complete] ─▶ concluded ─▶ job-dismiss ─▶ null

The reply to the command says only that the job was accepted. Whether it succeeded is in ``query-jobs`` once it has
concluded, and it stays there until dismissed.

Source: QEMU QAPI schema, qapi/job.json.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..error import EventTimeout, MachineError, UsageError

if TYPE_CHECKING:
    from .machine import Machine

_SELF_DISMISSING = {
    "blockdev-backup",
    "blockdev-mirror",
    "block-commit",
    "block-stream",
    "drive-backup",
    "drive-mirror",
}
"""Commands whose jobs dismiss themselves, and their error with them, unless told not to."""


def run(vm: Machine, command: str, *, timeout_s: float = 60, **arguments: Any) -> dict[str, Any]:
    """Start a job, wait until it has concluded, dismiss it.

    A job that becomes ready first (mirror, active commit) is completed.

    Args:
        vm: a running machine.
        command: such as ``"snapshot-save"``.
        timeout_s: seconds until it must have concluded; then it is cancelled.
        **arguments: the command's; ``_`` stands for ``-``. Without `job_id`, one is made.

    Returns:
        What ``query-jobs`` said of it at its end.

    Raises:
        MachineError: when the job failed; carries its error.
        EventTimeout: when it did not conclude in time.
        qemu.qmp.ExecuteError: when the command was refused.
    """
    ident = str(arguments.pop("job_id", None) or f"course-{command}-{time.monotonic_ns()}")
    if command in _SELF_DISMISSING:
        arguments.setdefault("auto_dismiss", False)
    end = time.monotonic() + timeout_s
    with vm.record("JOB_STATUS_CHANGE") as events:
        vm.execute(command, job_id=ident, **arguments)
        try:
            while True:
                left = max(0.0, end - time.monotonic())
                status = events.wait("JOB_STATUS_CHANGE", left, id=ident)["data"]["status"]
                if status == "ready":
                    vm.execute("job-complete", id=ident)
                if status == "concluded":
                    break
        except EventTimeout:
            vm.execute("job-cancel", id=ident)
            raise
    job: dict[str, Any] = next(job for job in vm.execute("query-jobs") if job["id"] == ident)
    vm.execute("job-dismiss", id=ident)
    if error := job.get("error"):
        raise vm.fault(MachineError, f"{command} was accepted by {vm.name}, but its job {ident} failed: {error}.")
    return job


def save_snapshot(vm: Machine, tag: str, timeout_s: float) -> None:
    """Keep RAM, device state and disks under `tag`."""
    nodes = _qcow2_nodes(vm)
    run(vm, "snapshot-save", tag=tag, vmstate=nodes[0], devices=nodes, timeout_s=timeout_s)


def load_snapshot(vm: Machine, tag: str, timeout_s: float) -> None:
    """Return to `tag`; the guest runs or is paused as before the call."""
    nodes = _qcow2_nodes(vm)
    was_running = vm.runstate == "running"
    run(vm, "snapshot-load", tag=tag, vmstate=nodes[0], devices=nodes, timeout_s=timeout_s)
    if was_running and vm.runstate != "running":
        vm.resume()


def delete_snapshot(vm: Machine, tag: str, timeout_s: float) -> None:
    """Remove `tag` from all disks."""
    run(vm, "snapshot-delete", tag=tag, devices=_qcow2_nodes(vm), timeout_s=timeout_s)


def _qcow2_nodes(vm: Machine) -> list[str]:
    """Names of the writable qcow2 nodes: those that can hold a snapshot."""
    nodes = vm.execute("query-named-block-nodes", flat=True)
    found = [str(node["node-name"]) for node in nodes if node["drv"] == "qcow2" and not node["ro"]]
    if not found:
        raise UsageError(
            f"{vm.name} has no writable qcow2 disk to keep a snapshot in. Give it one: see disk.create(), and "
            "-blockdev driver=qcow2,node-name=…"
        )
    return found
