"""A full storage stops a running machine, with a real QEMU: paused with io-error, nothing lost, and it can go on."""

from __future__ import annotations

import json
import subprocess

import pytest

from course.cluster.storage import images, set_capacity
from course.guest import diskwriter
from course.machine import Machine

MIB = 1 << 20
SECTORS = 8192  # 4 MiB

pytestmark = pytest.mark.qemu


@pytest.fixture
def nearly_full(thin):
    """A disk of a pool that has room for 8 MiB."""
    volid = thin.alloc(100, "raw", 64 * MIB)
    set_capacity(thin.root, 8 * MIB)
    return thin, volid


def write(thin, volid, *commands):
    """Write through the layers that a machine gets; what qemu-io says."""
    name = "json:" + json.dumps(thin.layers(volid, "drive-scsi0"))
    line = ["qemu-io", *(word for command in commands for word in ("-c", f"write {command}")), name]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()


def test_writes_end_where_the_pool_ends(nearly_full):
    """Further clusters are refused with ENOSPC, those that are there can be written, and the pool is not overrun."""
    thin, volid = nearly_full
    said = write(thin, volid, "0 6M", "6M 4M", "0 6M")
    results = [line for line in said if "wrote" in line or "failed" in line]
    assert [line.split(" ")[0] for line in results] == ["wrote", "write", "wrote"]
    assert results[1] == "write failed: No space left on device"
    status = thin.status()
    assert status.used <= status.total == 8 * MIB
    assert images.allocated(thin.path(volid)) < 8 * MIB
    told = images.info(thin.path(volid), "qcow2")
    assert told["actual-size"] < 8 * MIB


def test_room_that_was_freed_can_be_written(nearly_full):
    """A machine that opens the disk again has all the room that there is by then, and no more."""
    thin, volid = nearly_full
    assert any("No space left" in line for line in write(thin, volid, "0 16M"))
    set_capacity(thin.root, 32 * MIB)
    assert any("wrote" in line for line in write(thin, volid, "0 16M"))
    assert any("No space left" in line for line in write(thin, volid, "16M 24M"))


def test_a_raw_disk_has_no_end_before_its_own(local):
    """A raw disk has no such layer, and `widen` does nothing."""
    volid = local.alloc(100, "raw", MIB)
    assert local.limit_of(volid) is None
    with Machine("-M", "none", "-S", console=False) as vm:
        vm.execute("blockdev-add", local.layers(volid, "drive-ide0"))
        local.widen(volid, "drive-ide0", vm.execute)
        nodes = {node["node-name"] for node in vm.execute("query-named-block-nodes", flat=True)}
    assert nodes == {"drive-ide0", "drive-ide0-file"}


def test_a_guest_that_fills_its_storage_is_paused_and_loses_nothing(thin):
    """A writing guest pauses with io-error when the pool is full; with room and `cont` it goes on at that write."""
    volid, taker = thin.alloc(100, "raw", 4 * MIB), thin.alloc(101, "raw", 4 * MIB)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 4M", thin.path(taker)], capture_output=True, check=True)
    set_capacity(thin.root, 8 * MIB)
    blockdev = json.dumps(thin.layers(volid, "drive-ide0"))
    set_capacity(thin.root, 6 * MIB)
    device = "ide-hd,drive=drive-ide0,bus=ide.0,werror=stop"
    options = ["-M", "pc", "-m", "32", "-S", "-kernel", diskwriter.writer(SECTORS)]
    with Machine(*options, "-blockdev", blockdev, "-device", device, console=False) as vm:
        thin.widen(volid, "drive-ide0", vm.execute)
        vm.resume()
        event = vm.wait_event("BLOCK_IO_ERROR", 120)["data"]
        assert (event["action"], event["nospace"]) == ("stop", True)
        vm.wait_event("STOP", 30)
        assert vm.runstate == "io-error"
        reached = written(vm)
        thin.free(taker)
        thin.widen(volid, "drive-ide0", vm.execute)
        vm.resume()
        while written(vm) <= SECTORS:
            assert vm.runstate == "running"
        vm.pause()
    images.convert(thin.path(volid), "qcow2", thin.root / "seen", "raw")
    assert reached < SECTORS
    assert diskwriter.last_write((thin.root / "seen").read_bytes(), SECTORS) >= SECTORS


def written(vm):
    """The number of the guest's last finished write."""
    return int(vm.hmp("xp /1wx 0x500").split()[-1], 16)
