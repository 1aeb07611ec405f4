"""Volumes: made, named, listed, copied, snapshotted, removed. What is in the images, qemu-img and qemu-io say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from course.cluster.storage import images, room, set_capacity
from course.error import ClusterError

MIB = 1 << 20
GIB = 1 << 30


def qemu_img(*arguments):
    """Ask qemu-img; its answer as data."""
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if "--output=json" in arguments else done.stdout


def fill(path, driver, byte, at, length):
    """Write bytes as a guest would."""
    command = f"write -P {byte} {at} {length}"
    subprocess.run(["qemu-io", "-f", driver, "-c", command, path], capture_output=True, check=True)


def reads(path, driver, byte, at, length):
    """Say whether a guest would read only this byte there."""
    done = subprocess.run(
        ["qemu-io", "-f", driver, "-c", f"read -P {byte} {at} {length}", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode == 0 and "failed" not in done.stdout


def one_disk(storage, vmid=100, size=16 * MIB):
    """Allocate a disk that keeps snapshots."""
    return storage.alloc(vmid, "qcow2" if "qcow2" in storage.formats else "raw", size)


@pytest.mark.parametrize(
    ("format", "name", "driver"),
    [("raw", "100/vm-100-disk-0.raw", "raw"), ("qcow2", "100/vm-100-disk-0.qcow2", "qcow2")],
)
def test_a_disk_on_a_directory_is_what_its_name_says(local, format, name, driver):
    """The name, the place and the format are Proxmox VE's, and qemu-img finds the size that was asked for."""
    volid = local.alloc(100, format, 3 * GIB if format == "qcow2" else 8 * MIB)
    assert volid == f"local:{name}"
    told = qemu_img("info", "--output=json", local.path(volid))
    assert (driver, local.size(volid)) == (told["format"], told["virtual-size"])
    assert local.path(volid) == local.root / "images" / name
    assert local.driver(volid) == driver


def test_a_thin_volume_is_raw_for_clients_and_thin_for_real(thin):
    """A volume may be larger than its pool, takes next to nothing, and is listed as a block device is."""
    said = []
    volid = thin.alloc(100, "raw", 8 * GIB, log=said.append)
    assert volid == "local-lvm:vm-100-disk-0"
    assert said == ['  Logical volume "vm-100-disk-0" created.']
    assert thin.format(volid) == "raw"
    assert thin.driver(volid) == qemu_img("info", "--output=json", thin.path(volid))["format"] == "qcow2"
    assert thin.size(volid) == 8 * GIB
    assert thin.status().used < MIB


def test_numbers_are_the_first_that_are_free(storage):
    """A removed disk's number is given again; other guests' disks do not count."""
    first, second, third = (one_disk(storage) for _ in range(3))
    other = one_disk(storage, vmid=101)
    assert [storage.volume(v).name.partition(".")[0] for v in (first, second, third, other)] == [
        "vm-100-disk-0", "vm-100-disk-1", "vm-100-disk-2", "vm-101-disk-0",
    ]  # fmt: skip
    storage.free(second)
    assert one_disk(storage) == second


def test_a_given_name_is_kept_or_refused(local, thin):
    """A name must be this guest's, fit the format, and be free."""
    assert local.alloc(100, "raw", MIB, "vm-100-state-x.raw") == "local:100/vm-100-state-x.raw"
    with pytest.raises(ClusterError, match=r"disk image '.*/images/100/vm-100-state-x.raw' already exists"):
        local.alloc(100, "raw", MIB, "vm-100-state-x.raw")
    with pytest.raises(ClusterError, match="wrong extension for format"):
        local.alloc(100, "raw", MIB, "vm-100-disk-1.qcow2")
    for storage, name in ((local, "vm-101-disk-0.raw"), (local, "../x.raw"), (thin, "vm-101-disk-0"), (thin, "x")):
        with pytest.raises(ClusterError, match="illegal name"):
            storage.alloc(100, "raw", MIB, name)
    thin.alloc(100, "raw", MIB, "vm-100-disk-7")
    with pytest.raises(ClusterError, match='Logical Volume "vm-100-disk-7" already exists in volume group "pve"'):
        thin.alloc(100, "raw", MIB, "vm-100-disk-7")


def test_many_allocate_at_once_and_no_name_is_given_twice(storage):
    """Eight threads that allocate for one guest get eight different disks."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(one_disk(storage))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8
    assert {entry["volid"] for entry in storage.volumes("images")} == set(found)


def test_a_list_tells_what_there_is(local):
    """Each kind of content is listed with size, owner, format; hidden and foreign files are not."""
    disk = local.alloc(100, "qcow2", 16 * MIB)
    tree = local.alloc(200, "subvol", GIB)
    for folder, name in (
        ("template/iso", "guest.iso"),
        ("template/iso", ".hidden.iso"),
        ("template/iso", "notes.txt"),
        ("template/cache", "busybox.tar.gz"),
        ("dump", "vzdump-qemu-100-2026_11_23-10_00_00.vma.zst"),
        ("dump", "vzdump-qemu-100-2026_11_23-10_00_00.log"),
    ):
        (local.root / folder).mkdir(parents=True, exist_ok=True)
        (local.root / folder / name).write_bytes(b"x" * 1000)
    listed = {entry["volid"]: entry for entry in local.volumes()}
    assert {volid: (entry["content"], entry["format"], entry["size"]) for volid, entry in listed.items()} == {
        disk: ("images", "qcow2", 16 * MIB),
        tree: ("rootdir", "subvol", GIB),
        "local:iso/guest.iso": ("iso", "iso", 1000),
        "local:vztmpl/busybox.tar.gz": ("vztmpl", "tgz", 1000),
        "local:backup/vzdump-qemu-100-2026_11_23-10_00_00.vma.zst": ("backup", "vma.zst", 1000),
    }
    assert listed[disk]["vmid"] == 100
    backup = listed["local:backup/vzdump-qemu-100-2026_11_23-10_00_00.vma.zst"]
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(backup["ctime"])) == "2026-11-23 10:00:00"
    assert (backup["subtype"], backup["protected"]) == ("qemu", 0)
    assert [entry["volid"] for entry in local.volumes("images", 100)] == [disk]
    assert local.volumes("images", 101) == []


def test_a_copy_reads_the_same(local, thin):
    """Between storages and formats a guest reads the same bytes, and progress goes from nothing to all."""
    source = local.alloc(100, "qcow2", 16 * MIB)
    fill(local.path(source), "qcow2", 7, "3M", "2M")
    seen = []
    for target, format, expected in (
        (thin, None, "local-lvm:vm-101-disk-0"),
        (local, "raw", "local:101/vm-101-disk-0.raw"),
        (local, None, "local:101/vm-101-disk-1.qcow2"),
    ):
        volid = local.copy(source, target, 101, format=format, progress=lambda *step: seen.append(step))
        assert volid == expected
        qemu_img("compare", local.path(source), target.path(volid))
    assert seen[0] == (0, 16 * MIB)
    assert seen[-1] == (16 * MIB, 16 * MIB)


def test_a_copy_that_is_stopped_leaves_nothing(local):
    """When the task is stopped, the copy has no name and no file."""
    source = local.alloc(100, "raw", 32 * MIB)
    fill(local.path(source), "raw", 1, 0, "32M")

    def stop():
        raise ClusterError("interrupted by signal")

    with pytest.raises(ClusterError, match="interrupted"):
        local.copy(source, local, 101, check_stop=stop)
    assert [entry["volid"] for entry in local.volumes()] == [source]
    assert not list(local.root.rglob(".unfinished*"))


def test_a_copy_of_a_snapshot_is_what_the_disk_was(storage):
    """A full clone from a snapshot reads the old bytes."""
    source = one_disk(storage)
    fill(storage.path(source), "qcow2", 1, 0, "1M")
    storage.snapshot(source, "before")
    fill(storage.path(source), "qcow2", 2, 0, "1M")
    copied = storage.copy(source, storage, 101, snapshot="before")
    assert reads(storage.path(copied), "qcow2", 1, 0, "1M")
    assert reads(storage.path(source), "qcow2", 2, 0, "1M")


def test_snapshots_keep_and_bring_back(storage):
    """A disk goes back to what it was; a removed snapshot is gone."""
    volid = one_disk(storage)
    fill(storage.path(volid), "qcow2", 1, 0, "1M")
    storage.snapshot(volid, "one")
    fill(storage.path(volid), "qcow2", 2, 0, "1M")
    storage.snapshot(volid, "two")
    assert storage.snapshots(volid) == ["one", "two"]
    storage.rollback(volid, "one")
    assert reads(storage.path(volid), "qcow2", 1, 0, "1M")
    storage.delete_snapshot(volid, "one")
    assert storage.snapshots(volid) == ["two"]
    assert [s["name"] for s in qemu_img("info", "--output=json", storage.path(volid))["snapshots"]] == ["two"]


def test_raw_disks_of_a_directory_keep_no_snapshots(local):
    """Features are those of Proxmox VE: raw copies and becomes a template, but keeps no snapshot."""
    raw, qcow2 = local.alloc(100, "raw", MIB), local.alloc(100, "qcow2", MIB)
    assert [local.has_feature("snapshot", v) for v in (raw, qcow2)] == [False, True]
    assert [local.has_feature("copy", v) for v in (raw, qcow2)] == [True, True]
    assert [local.has_feature("clone", v) for v in (raw, qcow2)] == [False, False]
    with pytest.raises(ClusterError, match="can't snapshot this image format"):
        local.snapshot(raw, "x")


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_linked_clones_on_a_directory(local, format):
    """A clone reads from its template, writes to itself, is named after it, and keeps it from being removed."""
    volid = local.alloc(900, format, 8 * MIB)
    fill(local.path(volid), format, 5, 0, "1M")
    base = local.create_base(volid)
    assert base == f"local:900/base-900-disk-0.{format}"
    clone = local.clone_linked(base, 100)
    assert clone == f"local:900/base-900-disk-0.{format}/100/vm-100-disk-0.qcow2"
    assert reads(local.path(clone), "qcow2", 5, 0, "1M")
    fill(local.path(clone), "qcow2", 6, 0, "64k")
    assert reads(local.path(base), format, 5, 0, "1M")
    listed = {entry["volid"]: entry for entry in local.volumes("images")}
    assert listed[clone]["parent"] == f"900/base-900-disk-0.{format}"
    with pytest.raises(ClusterError) as caught:
        local.free(base)
    assert caught.value.message == (
        f"base volume '900/base-900-disk-0.{format}' is still in use "
        f"(use by '900/base-900-disk-0.{format}/100/vm-100-disk-0.qcow2')"
    )
    local.free(clone)
    local.free(base)
    assert local.volumes() == []
    assert list((local.root / "images").iterdir()) == []


def test_linked_clones_on_a_thin_pool(thin):
    """The same on a pool, where the name of the template comes first."""
    base = thin.create_base(thin.alloc(900, "raw", 8 * MIB))
    clone = thin.clone_linked(base, 100)
    assert (base, clone) == ("local-lvm:base-900-disk-0", "local-lvm:base-900-disk-0/vm-100-disk-0")
    assert [entry["volid"] for entry in thin.volumes()] == [base, clone]
    with pytest.raises(ClusterError, match=r"still in use \(use by 'base-900-disk-0/vm-100-disk-0'\)"):
        thin.free(base)
    with pytest.raises(ClusterError, match="only works on base images"):
        thin.clone_linked(clone, 101)


def test_a_moved_storage_keeps_its_clones(local):
    """A clone names its template relative to itself: the state directory may be copied elsewhere."""
    base = local.create_base(local.alloc(900, "qcow2", MIB))
    clone = local.clone_linked(base, 100)
    moved = local.root.parent / "elsewhere"
    local.root.rename(moved)
    qemu_img("info", "--backing-chain", moved / local.path(clone).relative_to(local.root))


def test_a_disk_grows_and_does_not_shrink(storage):
    """qemu-img agrees with the new size, and a smaller one is refused."""
    volid = one_disk(storage, size=8 * MIB)
    storage.resize(volid, 12 * MIB)
    assert storage.size(volid) == 12 * MIB
    assert qemu_img("info", "--output=json", storage.path(volid))["virtual-size"] == 12 * MIB
    with pytest.raises(ClusterError, match="unable to resize image"):
        storage.resize(volid, 8 * MIB)


def test_a_disk_changes_hands(storage):
    """A disk given to another guest has its first free number and its content."""
    mine, theirs = one_disk(storage), one_disk(storage, vmid=101)
    fill(storage.path(mine), "qcow2", 9, 0, "64k")
    given = storage.rename(mine, 101)
    assert storage.volume(given).name.startswith("vm-101-disk-1")
    assert reads(storage.path(given), "qcow2", 9, 0, "64k")
    assert not storage.exists(mine)
    assert storage.exists(theirs)


def test_a_subvolume_keeps_snapshots(storage):
    """A container's directory is copied, kept and brought back with its links and modes."""
    volid = storage.alloc(200, "subvol", GIB)
    root = storage.path(volid)
    (root / "etc").mkdir()
    (root / "etc" / "hostname").write_text("before")
    (root / "link").symlink_to("etc/hostname")
    storage.snapshot(volid, "one")
    (root / "etc" / "hostname").write_text("after")
    copied = storage.copy(volid, storage, 201)
    storage.rollback(volid, "one")
    assert (root / "link").read_text() == "before"
    assert (storage.path(copied) / "link").read_text() == "after"
    assert (storage.size(volid), storage.size(copied), storage.snapshots(volid)) == (GIB, GIB, ["one"])
    storage.delete_snapshot(volid, "one")
    assert storage.snapshots(volid) == []
    storage.free(volid)
    storage.free(copied)
    assert storage.volumes() == []


def test_what_is_used_is_what_files_take(storage):
    """`used` follows the blocks of the files; total is what was set; what is left is the difference."""
    before = storage.status()
    assert before.total == 256 * MIB
    volid = one_disk(storage)
    fill(storage.path(volid), "qcow2", 3, 0, "8M")
    after = storage.status()
    blocks = sum(p.stat().st_blocks * 512 for p in storage.root.rglob("*") if p.is_file())
    assert after.used == blocks
    assert 8 * MIB <= after.used - before.used < 10 * MIB
    assert after.avail == after.total - after.used


def test_a_raw_disk_takes_its_whole_size(local):
    """Nothing could stop a guest that fills a sparse file, so there must be room for all of it."""
    local.alloc(100, "raw", 200 * MIB)
    assert local.status().avail < 60 * MIB
    with pytest.raises(ClusterError, match=r"unable to create image: .*No space left on device"):
        local.alloc(100, "raw", 100 * MIB)
    assert len(local.volumes()) == 1


def test_a_full_pool_makes_no_volume(thin):
    """The words are those of lvcreate."""
    volid = thin.alloc(100, "raw", GIB)
    fill(thin.path(volid), "qcow2", 1, 0, "16M")
    set_capacity(thin.root, 17 * MIB)
    with pytest.raises(ClusterError, match="free space in thin pool pve/data reached threshold"):
        thin.alloc(100, "raw", MIB)
    assert [entry["volid"] for entry in thin.volumes()] == [volid]


def test_a_copy_into_a_full_storage_is_refused(local, thin):
    """A copy that has no room leaves nothing behind."""
    source = thin.alloc(100, "raw", 64 * MIB)
    fill(thin.path(source), "qcow2", 1, 0, "16M")
    set_capacity(local.root, 8 * MIB)
    with pytest.raises(ClusterError, match="No space left on device"):
        thin.copy(source, local, 101, format="qcow2")
    assert local.volumes() == []


@pytest.mark.parametrize(
    "name", ["local:../etc/x.raw", "local:100/../../../x.raw", "local:iso/../../x.iso", "x:iso/a.iso"]
)
def test_no_name_leads_out_of_the_storage(local, name):
    """Whatever is asked of a name outside, nothing is touched."""
    outside = local.root.parent / "x.raw"
    outside.write_text("precious")
    for ask in (local.path, local.free, local.size, local.snapshots):
        with pytest.raises(ClusterError):
            ask(name)
    assert outside.read_text() == "precious"


def test_what_is_not_there(storage):
    """Each question about a missing disk is answered by its name."""
    volid = one_disk(storage)
    storage.free(volid)
    for ask in (storage.free, storage.size, storage.snapshots, storage.create_base):
        with pytest.raises(ClusterError, match="does not exist"):
            ask(volid)


MAKER = """
import sys
from pathlib import Path
from course.cluster.config.sections import TypedSection
from course.cluster.storage import {kind}
storage = {kind}(TypedSection("x", {name!r}, {{"content": "images"}}), Path(sys.argv[1]), "franklin")
print("ready", flush=True)
while True:
    print(storage.alloc(100, {format!r}, 1 << 20), flush=True)
"""


@pytest.mark.parametrize("kills", [3])
def test_a_killed_node_leaves_no_half_volume(storage, kills):
    """After SIGKILL at any moment each listed disk is whole and known to its maker; the rest is swept."""
    kind = type(storage).__name__
    told = set()
    for _ in range(kills):
        program = MAKER.format(kind=kind, name=storage.name, format=storage.formats[-2])
        with subprocess.Popen(
            [sys.executable, "-c", program, str(storage.root)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "ready\n"
            told.add(child.stdout.readline().strip())
            child.send_signal(signal.SIGKILL)
            told |= {line.strip() for line in child.stdout if line.endswith("\n")}
        storage.sweep()
        assert not list(storage.root.rglob(".unfinished*"))
    listed = {entry["volid"]: entry for entry in storage.volumes()}
    assert told - {""} <= set(listed)
    for volid, entry in listed.items():
        assert entry["size"] == MIB
        assert images.info(storage.path(volid), storage.driver(volid))["virtual-size"] == MIB


def test_a_sweep_leaves_what_other_nodes_are_making(local):
    """On a shared storage a node removes only its own leftovers."""
    folder = local.root / "images" / "100"
    folder.mkdir(parents=True)
    mine, theirs = folder / ".unfinished-franklin-1", folder / ".unfinished-trevor-1"
    for path in (mine, theirs):
        path.write_text("half")
    assert local.sweep() == [mine]
    assert theirs.exists()
    assert local.volumes() == []


def test_sums_are_made_anew_after_changes(storage):
    """A cached sum never hides an allocation of this process."""
    storage.status(fresh=False)
    one_disk(storage)
    used = sum(p.stat().st_blocks * 512 for p in storage.root.rglob("*") if p.is_file())
    assert storage.status(fresh=False).used == used
    assert room.status(storage.root / "nowhere", "dir").active is False
