"""The scheduler of backup jobs with a clock of the test's own, and a node that is killed during a backup."""

from __future__ import annotations

import calendar
import random
import signal
import subprocess
import sys
import time

import pytest

from course.cluster.backup import dump, jobs, packing, settings, vma
from course.cluster.config.guest import GuestConfig, Section
from course.cluster.node import Node
from course.cluster.settings import Settings
from course.cluster.state import State
from course.cluster.storage import set_capacity, storage_of

STORAGES = "dir: local\n\tpath /var/lib/vz\n\tcontent images,backup\n"


@pytest.fixture
def node(tmp_path):
    """A node without a server, with one machine that has no disks."""
    state = State(tmp_path / "state", tmp_path / "run", node="michael")
    for name in state.nodes:
        (state.pve / "nodes" / name / "qemu-server").mkdir(parents=True)
    state.write("storage.cfg", STORAGES)
    state.create_guest("michael", "qemu", 100, GuestConfig(Section({"memory": "64", "name": "one"})))
    made = Node("michael", state, Settings())
    made.members.quorate = lambda: True
    yield made
    made.tasks.stop_all()


@pytest.fixture
def clock():
    """A clock that is set by hand: a Monday, a few seconds after noon, local time."""
    return [int(time.mktime((2026, 11, 23, 12, 0, 5, 0, 0, -1)))]


@pytest.fixture
def scheduler(node, clock):
    """The node's scheduler by that clock."""
    return jobs.Scheduler(node, lambda: clock[0])


def finished(node, upids):
    """Wait for tasks; how they ended."""
    for upid in upids:
        assert node.tasks.wait(upid, 60)
    return [node.tasks.status(upid)["exitstatus"] for upid in upids]


def test_a_job_runs_at_its_times(node, clock, scheduler):
    """Not before its minute, once in it, again in the next one; the archive is there."""
    jobs.create(node.state, {"id": "often", "schedule": "*:0/10", "vmid": "100", "compress": "gzip"})
    assert scheduler.tick() == []
    clock[0] += 9 * 60
    assert scheduler.tick() == []
    clock[0] += 60
    first = scheduler.tick()
    assert finished(node, first) == ["OK"]
    clock[0] += 1
    assert scheduler.tick() == []
    clock[0] += 600
    assert finished(node, scheduler.tick()) == ["OK"]
    assert len(storage_of(node, "local").volumes("backup", 100)) == 2


def test_only_what_is_meant_runs(node, clock, scheduler):
    """A disabled job, one for another node, and one for guests elsewhere do nothing; without quorum nothing does."""
    for name, values in {
        "off": {"all": 1, "enabled": 0},
        "elsewhere": {"all": 1, "node": "trevor"},
        "here": {"all": 1},
    }.items():
        jobs.create(node.state, {"id": name, "schedule": "*:*", **values})
    scheduler.tick()
    clock[0] += 60
    node.members.quorate = lambda: False
    assert scheduler.tick() == []
    node.members.quorate = lambda: True
    upids = scheduler.tick()
    assert len(upids) == 1
    assert finished(node, upids) == ["OK"]


def test_missed_runs_are_repeated_only_when_asked_for(node, clock):
    """A node that was off while a job was due makes up for it if the job says so."""
    for name, repeat in (("strict", 1), ("easy", 0)):
        jobs.create(node.state, {"id": name, "schedule": "*:0/10", "vmid": "100", "repeat-missed": repeat})
    first = jobs.Scheduler(node, lambda: clock[0])
    first.tick()
    clock[0] += 600
    assert finished(node, first.tick()) == ["OK", "OK"]
    clock[0] += 3600
    late = jobs.Scheduler(node, lambda: clock[0]).tick()
    assert finished(node, late) == ["OK"]


def test_a_changed_schedule_counts_from_now(node, clock, scheduler):
    """A job whose schedule is changed to a time that has gone does not run at once."""
    jobs.create(node.state, {"id": "moved", "schedule": "*:0/10", "vmid": "100"})
    scheduler.tick()
    clock[0] += 540
    jobs.change(node.state, "moved", {"schedule": "*:0/3"}, "")
    assert scheduler.tick() == []
    clock[0] += 180
    assert finished(node, scheduler.tick()) == ["OK"]


def test_retention_of_a_job(node, clock, scheduler):
    """A job with keep-last keeps as many archives."""
    jobs.create(
        node.state, {"id": "keep", "schedule": "*:*", "vmid": "100", "prune-backups": "keep-last=2", "storage": "local"}
    )
    scheduler.tick()
    for _ in range(3):
        clock[0] += 60
        assert finished(node, scheduler.tick()) == ["OK"]
    assert len(storage_of(node, "local").volumes("backup", 100)) == 2


def test_the_next_run_is_in_local_time(node):
    """What the API shows is a moment of the schedule on the node's clock."""
    jobs.create(node.state, {"id": "early", "schedule": "05:30", "vmid": "100"})
    entry = jobs.record(jobs.job(node.state, "early"), calendar.timegm((2026, 11, 23, 0, 0, 0)))
    assert time.localtime(entry["next-run"])[3:6] == (5, 30, 0)


def with_a_disk(node, megabytes):
    """Give the machine a disk with so many MiB that cannot be packed well, and return its storage."""
    storage = storage_of(node, "local")
    volid = storage.alloc(100, "qcow2", 64 << 20)
    content = storage.root / "content"
    content.write_bytes(random.Random(1).randbytes(megabytes << 20))
    write = ["qemu-io", "-f", "qcow2", "-c", f"write -s {content} 0 {megabytes}M", storage.path(volid)]
    subprocess.run(write, capture_output=True, check=True)
    content.unlink()
    with node.state.guest_lock(100) as config:
        config.current.values["scsi0"] = f"{volid},size=64M"
    return storage


def test_a_full_storage_keeps_no_archive(node):
    """An archive that the storage has no room for fails its guest; nothing of it stays, the lock neither."""
    storage = with_a_disk(node, 4)
    set_capacity(storage.root, storage.status().used + (2 << 20))
    values = {"vmid": "100", "storage": "local", "compress": "gzip"}
    plan = settings.plan(node, values, [100])
    upid = node.tasks.start("vzdump", "100", "root@pam", lambda task: dump.run(node, task, [100], plan))
    assert finished(node, [upid]) == ["job errors"]
    assert "No space left on device" in node.tasks.known(upid)[1].read_text()
    assert storage.volumes("backup") == []
    assert not list(storage.root.rglob(".unfinished-*"))
    assert "lock" not in node.state.load_guest(100).current.values


def test_a_stopped_job_leaves_nothing(node):
    """Wherever a job is stopped: no hidden file, no lock, and what is listed is whole."""
    storage = with_a_disk(node, 16)
    plan = settings.plan(node, {"vmid": "100", "storage": "local", "compress": "gzip"}, [100])
    upid = node.tasks.start("vzdump", "100", "root@pam", lambda task: dump.run(node, task, [100], plan))
    while not list((storage.root / "dump").glob(".unfinished-*")) and not storage.volumes("backup"):
        pass
    node.tasks.stop(upid)
    ended = finished(node, [upid])
    assert not list(storage.root.rglob(".unfinished-*"))
    assert "lock" not in node.state.load_guest(100).current.values
    assert (ended == ["OK"]) == bool(storage.volumes("backup"))


KILLED = """
import sys
from pathlib import Path
from course.cluster.backup import dump, settings
from course.cluster.node import Node
from course.cluster.settings import Settings
from course.cluster.state import State
state = State(Path(sys.argv[1]), Path(sys.argv[2]), node="michael")
node = Node("michael", state, Settings())
values = {"vmid": "100", "storage": "local", "compress": "gzip"}
plan = settings.plan(node, values, [100])
print("ready", flush=True)
while True:
    upid = node.tasks.start("vzdump", "100", "root@pam", lambda task: dump.run(node, task, [100], plan))
    node.tasks.wait(upid)
    print(node.tasks.status(upid)["exitstatus"], flush=True)
"""


@pytest.mark.qemu
def test_a_node_that_is_killed_leaves_no_half_archive(node):
    """After SIGKILL in the middle, each listed archive is whole, nothing hidden is left, and the lock tells of it."""
    storage = with_a_disk(node, 16)
    line = [sys.executable, "-c", KILLED, str(node.state.root), str(node.state.run)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        assert child.stdout.readline() == "OK\n"
        while not list((storage.root / "dump").glob(".unfinished-*/*")):  # the next one has begun
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    left = storage.sweep()
    assert not list(storage.root.rglob(".unfinished-*"))
    whole = storage.volumes("backup", 100)
    assert whole
    for entry in whole:
        _assert_whole(storage.path(entry["volid"]))
    if left:  # it did not get as far as the next backup's end
        assert node.state.load_guest(100).current.values["lock"] == "backup"
        assert [entry.status for entry in node.tasks.recover()] == ["unexpected status"]


def _assert_whole(path):
    with packing.reading(path) as file:
        assert sum(len(data) for _, _, data in vma.Reader(file).clusters()) == 64 << 20
