"""Moving a machine to another node: its configuration, its local volumes, and, live, its running guest.

::

    source (this node)                                     target
    lock "migrate", look at all volumes
    call start, migratedfrom=source  ───────────────────▶  makes volumes, starts QEMU that waits, serves NBD
    blockdev-mirror each local disk  ═══════ NBD ═══════▶
    migrate unix:…/169.migrate       ═══════ RAM ═══════▶
      pre-switchover: end the mirrors, both sides equal
      completed: paused here                               paused there
    move the configuration, unlock
    call resume                      ───────────────────▶  runs
    quit, remove the local volumes

Until the configuration has moved, the machine belongs to the source: whatever fails, it goes on there and the target
forgets what it began. Unlike between real nodes, the channels are Unix sockets of one computer, and a stopped
machine's volumes are copied from one directory to another.

Source: QEMU, docs/devel/migration, "pre-switchover"; task logs of Proxmox VE.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, CourseError
from . import disks, hardware, incoming, lifecycle, ram
from .migration import Migration, words
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

_CAPABILITIES = ("events", "return-path", "pause-before-switchover")
_DOWNTIME_MS = 100
_SAY_EVERY_S = 1.0
_STUCK_ROUNDS = 5


def migrate(
    node: Node,
    vmid: int,
    target: str,
    task: Task,
    *,
    online: bool = False,
    with_local_disks: bool = False,
    target_storage: str | None = None,
    bandwidth_kib_s: int | None = None,
) -> None:
    """Move a machine to another node.

    Args:
        node: that has it.
        vmid: its number.
        target: the other node's name.
        task: of the migration.
        online: while it runs; a stopped one goes without.
        with_local_disks: take along the volumes of a running machine that only this node has.
        target_storage: where local volumes go: ``1``, a name, or pairs ``a:b``; None for storages of the same name.
        bandwidth_kib_s: limit in KiB/s.

    Raises:
        ClusterError: it could not be moved, and is where it was.
    """
    LiveMigration(
        node,
        vmid,
        target,
        task,
        online=online,
        with_local_disks=with_local_disks,
        target_storage=target_storage or "1",
        bandwidth_kib_s=bandwidth_kib_s,
    ).run()


class LiveMigration(Migration):
    """A migration that can move a running guest."""

    def live(self, running: RunningVm) -> None:
        """Move a running guest.

        Raises:
            ClusterError: it could not be moved, and goes on here.
        """
        jobs: list[str] = []
        was_running = running.qmpstatus == "running"
        try:
            listening = self._start_target(running)
            self._mirror(running, listening, jobs)
            self._transfer(running, jobs)
            self.move_config()
        except BaseException as error:
            self._back(running, jobs, was_running=was_running)
            if not isinstance(error, CourseError):
                raise
            self.forget_copies()
            self.log(f"ERROR: online migrate failure - {words(error)}")
            self.log("aborting phase 2 - cleanup resources")
            self.log("migrate_cancel")
            self.log(f"ERROR: migration finished with problems (duration {self.duration()})")
            raise ClusterError("migration problems") from error
        self._switch_over(running, resume=was_running)

    def _start_target(self, running: RunningVm) -> dict[str, str]:
        """Start the machine that will take the guest up; return where it listens, by drive."""
        self.log(f"starting VM {self.vmid} on remote node '{self.target}'")
        peer = self.node.peer(self.target)
        machine = lifecycle.running_machine(running)
        values: dict[str, Any] = {"skiplock": 1, "migratedfrom": self.node.name, "stateuri": "unix"}
        if any(not each.is_idle for each in self.locals):
            values["targetstorage"] = self.target_storage
        upid = peer.call("POST", f"/nodes/{self.target}/qemu/{self.vmid}/status/start", machine=machine, **values)
        lines = self._await(upid)
        listening = {}
        for line in lines:
            if line.startswith(incoming.STORAGE_LISTENS):
                where, _, drive_text = line.removeprefix(incoming.STORAGE_LISTENS).partition(" volume:")
                path, _, name = where.partition(":exportname=")
                key = name.removeprefix("drive-")
                listening[key] = path
                old = hardware.drive(key, running.values[key]).volume
                new = hardware.drive(key, drive_text).volume
                self.moved[old] = new
                self.log(f"volume '{old}' is '{new}' on the target")
        return listening

    def _await(self, upid: str) -> list[str]:
        """Wait for a task of the target; return its log.

        Raises:
            ClusterError: it failed.
        """
        peer = self.node.peer(self.target)
        while True:
            self.task.check_stop()
            status = peer.call("GET", f"/nodes/{self.target}/tasks/{upid}/status")
            if status["status"] == "stopped":
                break
            time.sleep(0.05)
        found = peer.call("GET", f"/nodes/{self.target}/tasks/{upid}/log", limit=0)
        lines = [str(entry["t"]) for entry in found]
        for line in lines:
            if not line.startswith("TASK "):
                self.log(f"[{self.target}] {line}")
        if status["exitstatus"] != "OK":
            raise ClusterError(f"remote command failed with exit code 255 - {status['exitstatus']}")
        return lines

    def _mirror(self, running: RunningVm, listening: Mapping[str, str], jobs: list[str]) -> None:
        """Write each local disk to the target's, until both are the same."""
        self.log("start remote tunnel")
        if not listening:
            return
        self.log("starting storage migration")
        for key, path in listening.items():
            self.log(f"{key}: start migration to nbd:unix:{path}:exportname=drive-{key}")
            remote, job = f"remote-{key}", f"mirror-{key}"
            tree = {
                "driver": "raw",
                "node-name": remote,
                "file": {"driver": "nbd", "server": {"type": "unix", "path": path}, "export": f"drive-{key}"},
            }
            running.execute("blockdev-add", tree)
            jobs.append(key)
            self.keys.append(key)
            disks.mirror(running, job, running.node_of(key), remote, _Logger(self))

    def _transfer(self, running: RunningVm, mirrored: list[str]) -> None:
        """Send the RAM; when this returns, the guest stands still on both sides."""
        path = self.node.state.run / self.target / "qemu-server" / f"{self.vmid}.migrate"
        self.log(f"starting online/live migration on unix:{path}")
        self.log("set migration capabilities")
        running.execute("migrate-set-capabilities", capabilities=_switch(on=True))
        downtime = round(float(running.values.get("migrate_downtime", _DOWNTIME_MS / 1000)) * 1000)
        speed = self.bandwidth_kib_s or int(running.values.get("migrate_speed") or 0) << 10
        self.log(f"migration downtime limit: {downtime} ms")
        self.log("set migration parameters")
        running.execute(
            "migrate-set-parameters", downtime_limit=max(1, downtime), max_bandwidth=(speed << 10) or 1 << 40
        )
        self.log(f"start migrate command to unix:{path}")
        running.execute("migrate", uri=f"unix:{path}")
        self._watch(running, mirrored, max(1, downtime))

    def _watch(self, running: RunningVm, mirrored: list[str], downtime: int) -> None:
        said, left, stuck = 0.0, None, 0
        while True:
            self.task.check_stop()
            found: dict[str, Any] = running.execute("query-migrate")
            status = found.get("status")
            if status == "pre-switchover":
                self._end_mirrors(running, mirrored)
                running.execute("migrate-continue", state="pre-switchover")
            elif status == "completed":
                self._completed(found)
                return
            elif status in ("failed", "cancelled", "cancelling"):
                raise ClusterError(f"aborting - migration {status}: {found.get('error-desc', 'no reason given')}")
            elif not self.node.peer(self.target).online:
                raise ClusterError(f"node '{self.target}' is offline")
            sent = found.get("ram")
            if status == "active" and sent and time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                self._progress(sent)
                stuck = stuck + 1 if left is not None and sent["remaining"] >= left else 0
                left = sent["remaining"]
                if stuck >= _STUCK_ROUNDS:
                    stuck, downtime = 0, 2 * downtime
                    self.log(f"auto-increased downtime to continue migration: {downtime} ms")
                    running.execute("migrate-set-parameters", downtime_limit=downtime)
            time.sleep(0.02)

    def _progress(self, sent: Mapping[str, Any]) -> None:
        mib = 1 << 20
        self.log(
            f"migration active, transferred {sent['transferred'] / mib:.1f} MiB of {sent['total'] / mib:.1f} MiB "
            f"VM-state, {sent.get('mbps', 0) / 8 * 1e6 / mib:.1f} MiB/s"
        )

    def _completed(self, found: Mapping[str, Any]) -> None:
        seconds = max(1, int(found.get("total-time", 1))) / 1000
        speed = found["ram"]["total"] / (1 << 20) / seconds
        self.log(f"average migration speed: {speed:.1f} MiB/s - downtime {found.get('downtime', 0)} ms")
        self.log("migration status: completed")

    def _end_mirrors(self, running: RunningVm, mirrored: list[str]) -> None:
        """End the mirrors at the moment that the guest stands still: both sides are the same."""
        if mirrored:
            self.log("all 'mirror' jobs are ready")
        for key in mirrored:
            job = f"mirror-{key}"
            self.log(f"{job}: Completing block job...")
            running.execute("block-job-cancel", device=job)
            disks.await_end(running, job)
            self.log(f"{job}: Completed successfully.")
        mirrored.clear()

    def _back(self, running: RunningVm, mirrored: list[str], *, was_running: bool) -> None:
        """Let everything be as it was: the guest goes on here, the target forgets."""
        with contextlib.suppress(ClusterError):
            running.execute("migrate_cancel")
            end = time.monotonic() + 20
            while running.execute("query-migrate").get("status") in ("cancelling", "device", "active"):
                if time.monotonic() > end:
                    break
                time.sleep(0.02)
        self._abandon_target()  # before the guest goes on: its disks may be open there
        for key in mirrored:
            disks.cancel(running, f"mirror-{key}")
        for key in self.keys:
            with contextlib.suppress(ClusterError):
                running.execute("blockdev-del", node_name=f"remote-{key}")
        with contextlib.suppress(ClusterError):
            running.execute("migrate-set-capabilities", capabilities=_switch(on=False))
        if was_running:
            ram.go_on(running)
        self.unlock()

    def _abandon_target(self) -> None:
        peer = self.node.peer(self.target)
        try:
            upid = peer.call(
                "POST", f"/nodes/{self.target}/qemu/{self.vmid}/status/stop", skiplock=1, migratedfrom=self.node.name
            )
            end = time.monotonic() + 30
            while peer.call("GET", f"/nodes/{self.target}/tasks/{upid}/status")["status"] != "stopped":
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
        except CourseError as error:
            self.log(f"ERROR: unable to clean up on node '{self.target}' - {words(error)}")

    def _switch_over(self, running: RunningVm, *, resume: bool) -> None:
        """Let the guest go on at the target; what follows cannot be undone, so problems are only said."""
        if resume:
            try:
                self._await_quietly(
                    self.node.peer(self.target).call(
                        "POST",
                        f"/nodes/{self.target}/qemu/{self.vmid}/status/resume",
                        skiplock=1,
                        nocheck=1,
                    )
                )
            except CourseError as error:
                self.problems += 1
                self.log(f"ERROR: resume failed on node '{self.target}' - {words(error)}")
        if self.moved:
            self.log("stopping NBD storage migration server on target.")
        lifecycle.quit(self.node, running)
        self.remove_sources()

    def _await_quietly(self, upid: str) -> None:
        peer = self.node.peer(self.target)
        while True:
            status = peer.call("GET", f"/nodes/{self.target}/tasks/{upid}/status")
            if status["status"] == "stopped":
                break
            time.sleep(0.02)
        if status["exitstatus"] != "OK":
            raise ClusterError(status["exitstatus"])


class _Logger:
    """The task of a migration for those who log to it: lines get the time."""

    def __init__(self, migration: Migration) -> None:
        self._migration = migration

    def log(self, text: str) -> None:
        """Write a line."""
        self._migration.log(text)

    def check_stop(self) -> None:
        """Stop when somebody asked for it."""
        self._migration.task.check_stop()

    def wait(self, seconds: float) -> None:
        """Sleep."""
        self._migration.task.wait(seconds)


def _switch(*, on: bool) -> list[dict[str, Any]]:
    return [{"capability": name, "state": on} for name in _CAPABILITIES]
