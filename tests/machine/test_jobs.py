"""Jobs and snapshots: what was accepted is not yet done."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError

from course import Machine
from course.error import EventTimeout, MachineError, UsageError
from course.machine import disk
from tests.machine import programs

pytestmark = pytest.mark.qemu


@pytest.fixture
def vm(boot_image: Path, tmp_path: Path) -> Iterator[Machine]:
    """A counting guest with a qcow2 disk, which keeps snapshots, named d0."""
    image = disk.create(tmp_path / "d0.qcow2", 16)
    node = f"driver=qcow2,node-name=d0,file.driver=file,file.filename={image}"
    more = ("-blockdev", node, "-device", "virtio-blk-pci,drive=d0,id=vd0")
    with Machine(*programs.arguments(boot_image), *more) as machine:
        machine.console.expect("READY")
        yield machine


def _counter(vm: Machine) -> int:
    return int.from_bytes(vm.read_memory(programs.COUNTER_GPA, 4), "little")


def _tags(image: Path) -> list[str]:
    line = ["qemu-img", "info", "--force-share", "--output=json", str(image)]
    told = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    return [snapshot["name"] for snapshot in told.get("snapshots", [])]


def test_rollback_brings_ram_back(vm: Machine, tmp_path: Path) -> None:
    """The guest's counter returns to what it was; qemu-img sees the snapshot come and go."""
    vm.pause()
    saved = _counter(vm)
    vm.snapshot("before")
    assert _tags(tmp_path / "d0.qcow2") == ["before"]
    vm.resume()
    vm.console.send("x")
    vm.console.expect("x")
    vm.pause()
    assert _counter(vm) > saved
    vm.rollback("before")
    assert vm.runstate != "running"
    assert _counter(vm) == saved
    vm.delete_snapshot("before")
    assert _tags(tmp_path / "d0.qcow2") == []
    assert vm.execute("query-jobs") == []


def test_rollback_of_a_running_guest_lets_it_run(vm: Machine) -> None:
    """Running before, running after, for snapshot and rollback alike."""
    vm.snapshot("now")
    assert vm.runstate == "running"
    vm.rollback("now")
    assert vm.runstate == "running"
    vm.console.send("x")
    vm.console.expect("x")


def test_failed_job_raises_its_error_and_is_dismissed(vm: Machine) -> None:
    """A rollback to an unknown tag is accepted by QEMU; its failure must not pass for success."""
    with pytest.raises(MachineError, match=r"snapshot-load was accepted.*failed:.*nothing"):
        vm.rollback("nothing")
    assert vm.execute("query-jobs") == []


def test_refused_job_is_qemus_error(vm: Machine) -> None:
    """What QEMU does not even accept is an ExecuteError."""
    with pytest.raises(ExecuteError, match="no-such-node"):
        vm.run_job("blockdev-backup", device="no-such-node", target="d0", sync="full")


def test_block_job_error_is_not_lost(vm: Machine, tmp_path: Path) -> None:
    """Block jobs dismiss themselves by default, and their error with them; run_job keeps it."""
    target = disk.create(tmp_path / "copy.raw", 16, "raw")
    error = '{"event": "none", "iotype": "write", "errno": 28, "once": false}'
    file = {"driver": "file", "filename": str(target)}
    broken = {"driver": "blkdebug", "image": file, "inject-error": [json.loads(error)]}
    vm.execute("blockdev-add", {"driver": "raw", "node-name": "copy", "file": broken})
    write = {"driver": "null-co", "node-name": "ones", "size": 16 << 20, "read-zeroes": False}
    vm.execute("blockdev-add", write)
    with pytest.raises(MachineError, match="No space left on device"):
        vm.run_job("blockdev-backup", device="ones", target="copy", sync="full")


def test_backup_job_makes_an_equal_image(vm: Machine, tmp_path: Path) -> None:
    """A mirror becomes ready first and is completed; qemu-img finds both images equal."""
    copy = disk.create(tmp_path / "copy.qcow2", 16)
    node = {"driver": "qcow2", "node-name": "copy", "file": {"driver": "file", "filename": str(copy)}}
    vm.execute("blockdev-add", node)
    job = vm.run_job("blockdev-mirror", device="d0", target="copy", sync="full", job_id="mirror")
    assert job["status"] == "concluded"
    assert job["id"] == "mirror"
    vm.execute("quit")
    vm.wait(10)
    assert disk.compare(tmp_path / "d0.qcow2", copy)


def test_job_that_takes_too_long_is_cancelled(vm: Machine, tmp_path: Path) -> None:
    """The time limit ends the wait, and the job does not go on behind it."""
    copy = disk.create(tmp_path / "copy.qcow2", 16)
    node = {"driver": "qcow2", "node-name": "copy", "file": {"driver": "file", "filename": str(copy)}}
    vm.execute("blockdev-add", node)
    vm.execute("blockdev-add", {"driver": "null-co", "node-name": "slow", "size": 16 << 20, "read-zeroes": False})
    with pytest.raises(EventTimeout):
        vm.run_job("blockdev-backup", device="slow", target="copy", sync="full", speed=1, job_id="slow", timeout_s=0.3)
    with vm.record("JOB_STATUS_CHANGE") as events:
        if any(job["id"] == "slow" and job["status"] != "concluded" for job in vm.execute("query-jobs")):
            events.wait("JOB_STATUS_CHANGE", id="slow", status="concluded")
    assert [job["status"] for job in vm.execute("query-jobs")] in ([], ["concluded"])


def test_snapshot_needs_a_disk_to_keep_it_in(boot_image: Path) -> None:
    """Without a writable qcow2 disk the message says which to add."""
    with Machine(*programs.arguments(boot_image)) as vm, pytest.raises(UsageError, match=r"disk.create\(\)"):
        vm.snapshot("t")
