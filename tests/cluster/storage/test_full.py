"""A full storage stops a running machine, with a real QEMU: paused with io-error, nothing lost, and it can go on."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from course.cluster.storage import images, set_capacity
from course.guest.linux import linux
from course.machine import Machine

MIB = 1 << 20

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


@pytest.mark.usefixtures("kernel")
def test_a_guest_that_fills_its_storage_is_paused_and_loses_nothing(thin):
    """A guest's write pauses it with io-error when the pool is full; with room and `cont` that write succeeds."""
    volid, taker = thin.alloc(100, "raw", 4 * MIB), thin.alloc(101, "raw", 4 * MIB)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 4M", thin.path(taker)], capture_output=True, check=True)
    set_capacity(thin.root, 6 * MIB)
    with linux() as vm:
        vm.execute("blockdev-add", thin.layers(volid, "drive-virtio0"))
        vm.execute("device_add", driver="virtio-blk-pci", id="virtio0", bus="rp8", drive="drive-virtio0", werror="stop")
        vm.console.run("while ! grep -q vda /proc/partitions; do sleep 0.1; done", timeout_s=120)
        vm.console.sendline("dd if=/dev/urandom of=/dev/vda bs=64k conv=fsync count=64; echo ended with $?")
        event = vm.wait_event("BLOCK_IO_ERROR", 120)["data"]
        assert (event["action"], event["nospace"]) == ("stop", True)
        vm.wait_event("STOP", 60)
        assert vm.runstate == "io-error"
        assert thin.status().used <= 6 * MIB
        thin.free(taker)
        thin.widen(volid, "drive-virtio0", vm.execute)
        vm.resume()
        vm.console.expect("ended with 0", timeout_s=120)
        _, told = vm.console.run("echo 3 > /proc/sys/vm/drop_caches; sha256sum < /dev/vda", timeout_s=120)
    images.convert(thin.path(volid), "qcow2", thin.root / "seen", "raw")
    assert told.split()[0] == hashlib.sha256((thin.root / "seen").read_bytes()).hexdigest()
