"""Backups through the API: made of machines and containers, restored, kept and pruned, on a running lab."""

from __future__ import annotations

import subprocess
import types

import pytest
from proxmoxer import ResourceException
from proxmoxer.tools import Tasks

NODE = "michael"

pytestmark = pytest.mark.qemu


@pytest.fixture
def node(api):
    """A node, as proxmoxer sees it."""
    return api.nodes(NODE)


@pytest.fixture
def done(api, node):
    """Wait for a task; its exit status and its log."""

    def wait(upid):
        status = Tasks.blocking_status(api, upid, timeout=120, polling_interval=0.05)
        return status["exitstatus"], [line["t"] for line in node.tasks(upid).log.get(limit=500)]

    return wait


@pytest.fixture
def guest(api, node, done):
    """Make machines with one small disk; all of them and their backups go afterwards."""
    made = []

    def make(**settings):
        vmid = int(api.cluster.nextid.get())
        made.append(vmid)
        settings = {"memory": 64, "name": f"vm{vmid}", "scsi0": "local-lvm:0.0625", **settings}
        assert done(node.qemu.post(vmid=vmid, **settings))[0] == "OK"
        return vmid

    make.made = made
    yield make
    for vmid in made:
        places = {entry["vmid"]: entry for entry in node.qemu.get()}
        if vmid in places:
            if places[vmid]["status"] == "running":
                done(node.qemu(vmid).status.stop.post())
            assert done(node.qemu(vmid).delete())[0] == "OK"
        for storage in ("local", "shared"):
            for entry in node.storage(storage).content.get(content="backup", vmid=vmid):
                node.storage(storage).content(entry["volid"]).put(protected=0)
                assert done(node.storage(storage).content(entry["volid"]).delete())[0] == "OK"


def back_up(node, done, vmid, **options):
    """Back a machine up; the new archive and the log."""
    place = node.storage(options.get("storage", "local"))
    before = {entry["volid"] for entry in place.content.get(content="backup", vmid=vmid)}
    status, log = done(node.vzdump.post(vmid=vmid, **{"storage": "local", "compress": "gzip", **options}))
    assert status == "OK", log
    after = place.content.get(content="backup", vmid=vmid)
    return next(entry for entry in after if entry["volid"] not in before), log


def disk_of(node, vmid, key="scsi0"):
    """The file of a machine's disk."""
    volid = node.qemu(vmid).config.get()[key].partition(",")[0]
    return node.storage(volid.partition(":")[0]).content(volid).get()["path"]


def fill(path, byte):
    """Write as a guest would, while no machine runs."""
    command = f"write -P {byte} 3M 2M"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], capture_output=True, check=True)


def same(one, other):
    """Ask qemu-img whether guests would read the same."""
    return subprocess.run(["qemu-img", "compare", one, other], capture_output=True, check=False).returncode == 0


def refusal(call, *arguments, **keywords):
    """What a refused call says: status, words, errors by field."""
    with pytest.raises(ResourceException) as caught:
        call(*arguments, **keywords)
    return types.SimpleNamespace(
        status=caught.value.status_code, words=caught.value.content, errors=caught.value.errors
    )


@pytest.mark.parametrize("compress", ["0", "gzip", "zstd"])
def test_a_backup_restores_under_another_number(node, done, guest, compress):
    """Disk and settings come back in a new machine, with new identities; the old one stays as it is."""
    vmid = guest(net0="virtio,bridge=vmbr0", description="precious")
    fill(disk_of(node, vmid), 7)
    archive, _ = back_up(node, done, vmid, compress=compress)
    assert archive["format"] == {"0": "vma", "gzip": "vma.gz", "zstd": "vma.zst"}[compress]
    other = guest()
    done(node.qemu(other).delete())
    status, log = done(node.qemu.post(vmid=other, archive=archive["volid"], storage="local", unique=1))
    assert status == "OK", log
    old, new = node.qemu(vmid).config.get(), node.qemu(other).config.get()
    assert new["scsi0"].startswith(f"local:{other}/vm-{other}-disk-0.raw,")
    assert (new["memory"], new["description"]) == (old["memory"], old["description"])
    assert new["net0"] != old["net0"]
    assert new["smbios1"] != old["smbios1"]
    assert same(disk_of(node, vmid), disk_of(node, other))


def test_the_log_of_a_backup(node, done, guest):
    """The lines are those of Proxmox VE, in its order."""
    vmid = guest(scsi1="local-lvm:0.0625,backup=0")
    archive, log = back_up(node, done, vmid, **{"notes-template": "{{guestname}}", "prune-backups": "keep-last=1"})
    begins = [
        f"INFO: starting new backup job: vzdump {vmid} --",
        f"INFO: Starting Backup of VM {vmid} (qemu)",
        "INFO: Backup started at ",
        "INFO: status = stopped",
        f"INFO: VM Name: vm{vmid}",
        f"INFO: include disk 'scsi0' 'local-lvm:vm-{vmid}-disk-0' 64M",
        f"INFO: exclude disk 'scsi1' 'local-lvm:vm-{vmid}-disk-1' (backup=no)",
        "INFO: backup mode: stop",
        "INFO: ionice priority: 7",
        "INFO: creating vzdump archive '",
        "INFO: 100% (64.00 MiB of 64.00 MiB)",
        "INFO: backup is sparse: 64.00 MiB (100%) total zero data",
        "INFO: transferred 64.00 MiB in ",
        "INFO: archive file size: ",
        "INFO: adding notes to backup",
        "INFO: prune older backups with retention: keep-last=1",
        "INFO: pruned 0 backup(s) not covered by keep-retention policy",
        f"INFO: Finished Backup of VM {vmid} (00:00:",
        "INFO: Backup finished at ",
        "INFO: Backup job finished successfully",
        "TASK OK",
    ]
    shown = [line for line in log if "%" not in line or "100%" in line]
    assert [line[: len(begin)] for line, begin in zip(shown, begins, strict=True)] == begins
    assert archive["notes"] == f"vm{vmid}"
    told = node.vzdump.extractconfig.get(volume=archive["volid"])
    assert "#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:\n" in told
    assert "scsi1: " in told


@pytest.mark.parametrize("mode", ["snapshot", "suspend"])
def test_a_running_machine_goes_on(node, done, guest, mode):
    """The machine is the same process before and after, unlocked, and its archive restores."""
    vmid = guest()
    fill(disk_of(node, vmid), 5)
    assert done(node.qemu(vmid).status.start.post())[0] == "OK"
    before = node.qemu(vmid).status.current.get()
    archive, log = back_up(node, done, vmid, mode=mode)
    after = node.qemu(vmid).status.current.get()
    assert (after["pid"], after["qmpstatus"]) == (before["pid"], "running")
    assert "lock" not in after
    assert f"INFO: backup mode: {mode}" in log
    assert done(node.qemu(vmid).status.stop.post())[0] == "OK"
    fill(disk_of(node, vmid), 6)
    now = disk_of(node, vmid)
    assert done(node.qemu.post(vmid=vmid, archive=archive["volid"], force=1))[0] == "OK"
    restored = disk_of(node, vmid)
    assert restored != now
    check = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "read -P 5 3M 2M", restored], capture_output=True, text=True, check=False
    )
    assert (check.returncode, "failed" in check.stdout) == (0, False)
    volumes = node.storage("local-lvm").content.get(vmid=vmid)
    assert len(volumes) == 1, "the overwritten machine's disk is gone, the restored one is there"


def test_stopping_a_guest_that_ignores_it_fails(node, done, guest):
    """Mode stop needs a guest that shuts down; one that does not stays as it was, and no archive is left."""
    vmid = guest()
    assert done(node.qemu(vmid).status.start.post())[0] == "OK"
    status, log = done(node.vzdump.post(vmid=vmid, storage="local", mode="stop", stopwait=0))
    assert status == "job errors"
    assert f"ERROR: Backup of VM {vmid} failed - VM quit/powerdown failed - got timeout" in log
    current = node.qemu(vmid).status.current.get()
    assert (current["status"], "lock" in current) == ("running", False)
    assert node.storage("local").content.get(content="backup", vmid=vmid) == []


def test_what_is_in_the_way_of_a_restore(node, done, guest):
    """A machine that is there, runs, or is protected is not overwritten."""
    vmid = guest()
    archive, _ = back_up(node, done, vmid)
    words = f"unable to restore VM {vmid} - "
    taken = refusal(node.qemu.post, vmid=vmid, archive=archive["volid"])
    assert taken.words == f"{words}VM {vmid} already exists on node '{NODE}'"
    assert done(node.qemu(vmid).status.start.post())[0] == "OK"
    assert refusal(node.qemu.post, vmid=vmid, archive=archive["volid"], force=1).words == f"{words}vm is running"
    assert done(node.qemu(vmid).status.stop.post())[0] == "OK"
    node.qemu(vmid).config.put(protection=1)
    protected = refusal(node.qemu.post, vmid=vmid, archive=archive["volid"], force=1)
    assert protected.words == f"{words}protection mode enabled"
    node.qemu(vmid).config.put(protection=0)
    missing = archive["volid"].replace("20", "19", 1)
    assert "does not exist" in refusal(node.qemu.post, vmid=vmid + 1, archive=missing).words


def test_a_damaged_archive_restores_nothing(node, done, guest):
    """The old machine's disk stays, the new volumes are gone, the lock too."""
    vmid = guest()
    fill(disk_of(node, vmid), 3)
    archive, _ = back_up(node, done, vmid, compress="0")
    with open(node.storage("local").content(archive["volid"]).get()["path"], "r+b") as file:  # noqa: PTH123
        file.truncate(archive["size"] - 100)
    before = node.qemu(vmid).config.get()
    status, _ = done(node.qemu.post(vmid=vmid, archive=archive["volid"], force=1))
    assert status == f"unable to restore VM {vmid} - vma archive is truncated - unexpected end of file"
    assert node.qemu(vmid).config.get() == before
    assert [entry["volid"] for entry in node.storage("local-lvm").content.get(vmid=vmid)] == [
        f"local-lvm:vm-{vmid}-disk-0"
    ]


def test_a_template_is_restored_as_one(node, done, guest):
    """Its disk is a template's again, and linked clones can be made of it."""
    vmid, other = guest(), guest()
    done(node.qemu(other).delete())
    assert done(node.qemu(vmid).template.post())[0] == "OK"
    archive, _ = back_up(node, done, vmid)
    assert done(node.qemu.post(vmid=other, archive=archive["volid"]))[0] == "OK"
    config = node.qemu(other).config.get()
    assert (config["template"], config["scsi0"]) == (1, f"local-lvm:base-{other}-disk-0,size=64M")


def test_notes_protection_and_retention(node, done, guest):
    """Notes are changed, a protected backup is neither removed nor pruned, the others as the rules say."""
    vmid = guest()
    volids = [back_up(node, done, vmid)[0]["volid"] for _ in range(3)]
    place = node.storage("local")
    place.content(volids[0]).put(notes="first\nof all", protected=1)
    told = place.content(volids[0]).get()
    assert (told["notes"], told["protected"]) == ("first\nof all", 1)
    assert done(place.content(volids[0]).delete())[0] == f"can't remove protected archive '{volids[0]}'"
    rules = {"prune-backups": "keep-last=1", "vmid": vmid}
    marks = {entry["volid"]: entry["mark"] for entry in place.prunebackups.get(**rules)}
    assert marks == {volids[0]: "protected", volids[1]: "remove", volids[2]: "keep"}
    assert done(place.prunebackups.delete(**rules))[0] == "OK"
    assert [entry["volid"] for entry in place.content.get(content="backup", vmid=vmid)] == [volids[0], volids[2]]


def test_a_locked_machine_is_not_backed_up(node, done, guest):
    """A lock that is there is kept, and the job says whose it is."""
    vmid = guest()
    node.qemu(vmid).config.put(lock="migrate")
    status, log = done(node.vzdump.post(vmid=vmid, storage="local"))
    assert (status, f"ERROR: Backup of VM {vmid} failed - VM is locked (migrate)" in log) == ("job errors", True)
    node.qemu(vmid).config.put(delete="lock", skiplock=1)


def test_what_a_backup_job_refuses(api, node):
    """Missing guests fail visibly; wrong storages, programs and parameters are refused at once."""
    assert refusal(node.vzdump.post, storage="local").errors == {"vmid": "property is missing and it is not optional"}
    assert refusal(node.vzdump.post, vmid=999, storage="local-lvm").words == (
        "can't use storage 'local-lvm' for backups - wrong content type"
    )
    assert "'lzo' is not available" in refusal(node.vzdump.post, vmid=999, storage="local", compress="lzo").words
    upid = node.vzdump.post(vmid=999, storage="local")
    assert Tasks.blocking_status(api, upid, polling_interval=0.05)["exitstatus"] == "job errors"


def test_backup_jobs_are_kept_in_their_file(api, lab):
    """A job is made, shown with its next run, changed and removed; the file is Proxmox VE's."""
    api.cluster.backup.post(
        id="nightly", schedule="mon..fri 02:30", vmid="100,101", storage="shared", **{"prune-backups": "keep-last=2"}
    )
    found = next(entry for entry in api.cluster.backup.get() if entry["id"] == "nightly")
    assert (found["enabled"], found["prune-backups"]) == (1, {"keep-last": "2"})
    assert found["next-run"] % 60 == 0
    text = (lab.state / "pve" / "jobs.cfg").read_text()
    assert "vzdump: nightly\n\tenabled 1\n" in text
    assert "\tschedule mon..fri 02:30\n" in text
    api.cluster.backup("nightly").put(all=1, enabled=0)
    changed = api.cluster.backup("nightly").get()
    assert (changed["all"], changed["enabled"], "vmid" in changed) == (1, 0, False)
    assert "already exists" in refusal(api.cluster.backup.post, id="nightly", schedule="daily", all=1).words
    api.cluster.backup("nightly").delete()
    assert refusal(api.cluster.backup("nightly").get).errors == {"id": "No such job 'nightly'"}


def test_a_container_is_restored(api, node, done):
    """Its files and settings come back in another one."""
    template = node.storage("local").content.get(content="vztmpl")[0]["volid"]
    vmid, made = int(api.cluster.nextid.get()), []
    options = {"ostemplate": template, "rootfs": "local:1", "memory": 64, "hostname": "source"}
    try:
        assert done(node.lxc.post(vmid=vmid, **options))[0] == "OK"
        made.append(vmid)
        archive, log = back_up(node, done, vmid, compress="zstd")
        assert "INFO: CT Name: source" in log
        assert "hostname: source" in node.vzdump.extractconfig.get(volume=archive["volid"])
        other = int(api.cluster.nextid.get())
        status, log = done(node.lxc.post(vmid=other, ostemplate=archive["volid"], restore=1, storage="local-lvm"))
        assert status == "OK", log
        made.append(other)
        config = node.lxc(other).config.get()
        assert (config["hostname"], config["rootfs"]) == ("source", f"local-lvm:vm-{other}-disk-0,size=1G")
        path = node.storage("local-lvm").content(f"vm-{other}-disk-0").get()["path"]
        source = node.storage("local").content(f"{vmid}/subvol-{vmid}-disk-0.subvol").get()["path"]
        compared = subprocess.run(["diff", "-r", source, path], capture_output=True, text=True, check=False)
        assert [line for line in compared.stdout.splitlines() if "vzdump" not in line] == []
        assert done(node.storage("local").content(archive["volid"]).delete())[0] == "OK"
    finally:
        for number in made:
            done(node.lxc(number).delete())
