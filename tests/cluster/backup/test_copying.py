"""The copy of a running machine's disks, with a real QEMU and guests that never stop writing."""

from __future__ import annotations

import json
import types

import pytest
from qemu.qmp import ExecuteError

from course.cluster.backup import copying
from course.cluster.storage import images
from course.error import ClusterError
from course.guest import diskwriter
from course.machine import Machine
from course.machine import disk as disks

pytestmark = pytest.mark.qemu

SECTORS = 2048  # 1 MiB
MIB = 1 << 20


class Going:
    """A running machine as the backup sees it."""

    def __init__(self, machine):
        self.machine = machine

    def execute(self, command, arguments=None, /, **keywords):
        """Execute a QMP command; refused ones are errors of the cluster."""
        try:
            return self.machine.execute(command, arguments, **keywords)
        except ExecuteError as error:
            raise ClusterError(str(error)) from error

    def node_of(self, key):
        """Return the block node of a drive."""
        return f"drive-{key}"


class Task:
    """A task that is stopped after so many looks."""

    def __init__(self, looks=1_000_000):
        self.looks = looks

    def check_stop(self):
        """Count down."""
        self.looks -= 1
        if self.looks < 0:
            raise ClusterError("received interrupt")


def written(vm):
    """The number of the guest's last finished write."""
    return int(vm.hmp("xp /1wx 0x500").split()[-1], 16)


@pytest.fixture
def writer(tmp_path):
    """A machine whose guest writes its disk in a known order, forever, and the disk."""
    path = disks.create(tmp_path / "disk.qcow2", 1)
    node = json.dumps({"driver": "qcow2", "node-name": "drive-ide0", "file": {"driver": "file", "filename": str(path)}})
    options = ["-M", "pc", "-m", "32", "-kernel", diskwriter.writer(SECTORS)]
    device = "ide-hd,drive=drive-ide0,bus=ide.0"
    with Machine(*options, "-blockdev", node, "-device", device, console=False) as vm:
        while written(vm) < SECTORS:
            assert vm.running
        yield vm, copying.Disk("ide0", "local:100/disk", path, "qcow2", MIB, "qcow2")


def test_a_live_copy_is_one_moment(writer, tmp_path):
    """The copy is what the disk was after one write, although the guest wrote on; and not before it began."""
    vm, disk = writer
    before = written(vm)
    with copying.live(Going(vm), [disk], tmp_path) as copy:
        after = written(vm)
        copy.wait(Task(), lambda *step: None)
    assert written(vm) >= after
    moment = diskwriter.last_write((tmp_path / "ide0.copy").read_bytes(), SECTORS)
    assert moment is not None, "the copy was never the disk's content"
    assert before <= moment <= after + 1


def test_a_copy_lets_go_of_everything(writer, tmp_path):
    """Afterwards there is no job and no block node of the backup, and a second one works."""
    vm, disk = writer
    for _ in range(2):
        with copying.live(Going(vm), [disk], tmp_path) as copy:
            copy.wait(Task(), lambda *step: None)
        assert vm.execute("query-jobs") == []
        nodes = {node["node-name"] for node in vm.execute("query-named-block-nodes", flat=True)}
        assert not {name for name in nodes if name.startswith("backup-")}


def test_a_copy_that_is_stopped_is_cancelled(writer, tmp_path):
    """A stopped task leaves the machine running, without job or node."""
    vm, disk = writer
    with pytest.raises(ClusterError, match="interrupt"), copying.live(Going(vm), [disk], tmp_path) as copy:
        copy.wait(Task(looks=0), lambda *step: None)
    assert vm.execute("query-jobs") == []
    assert vm.runstate == "running"
    now = written(vm)
    while written(vm) == now:
        assert vm.running


def test_disks_of_one_machine_are_copied_at_one_moment(tmp_path):
    """Two disks come out as they were together: what came first is never older than what came second."""
    paths = [disks.create(tmp_path / f"d{n}.qcow2", 4) for n in range(2)]
    with Machine("-M", "none", "-S", console=False) as vm:
        for number, path in enumerate(paths):
            vm.execute(
                "blockdev-add",
                {
                    "driver": "qcow2",
                    "node-name": f"drive-scsi{number}",
                    "file": {"driver": "file", "filename": str(path)},
                },
            )
        for number in range(2):
            vm.hmp(f'qemu-io drive-scsi{number} "write -P {number + 1} 0 4M"')
        wanted = [copying.Disk(f"scsi{n}", f"x:{n}", path, "qcow2", 4 * MIB, "qcow2") for n, path in enumerate(paths)]
        with copying.live(Going(vm), wanted, tmp_path) as copy:
            for number in range(2):
                vm.hmp(f'qemu-io drive-scsi{number} "write -P 9 0 4M"')
            copy.wait(Task(), lambda *step: None)
    for number in range(2):
        assert set((tmp_path / f"scsi{number}.copy").read_bytes()) == {number + 1}


def test_a_stopped_machine_is_read_with_qemu_img(tmp_path):
    """Without a machine the copy is the image's content, and progress goes to the end."""
    path = disks.create(tmp_path / "d.qcow2", 4)
    seen = []
    disk = copying.Disk("scsi0", "x:0", path, "qcow2", 4 * MIB, "qcow2")
    copying.stopped([disk], tmp_path, Task(), lambda *step: seen.append(step))
    assert (tmp_path / "scsi0.copy").stat().st_size == 4 * MIB
    assert seen[-1] == (4 * MIB, 4 * MIB)
    assert images.allocated(tmp_path / "scsi0.copy") < MIB


def test_a_machine_that_ends_meanwhile_is_an_error(tmp_path):
    """QEMU that is killed during the copy is said so; letting go of it does not fail on top."""

    def execute(command, *arguments, **keywords):
        if command == "query-jobs":
            raise ClusterError("VM 100 not running")

    gone = types.SimpleNamespace(execute=execute, node_of=lambda key: key)
    disk = copying.Disk("scsi0", "x:0", tmp_path / "d", "raw", MIB, "raw")
    with pytest.raises(ClusterError, match="VM 100 not running"), copying.live(gone, [disk], tmp_path) as copy:
        copy.wait(Task(), lambda *step: None)
