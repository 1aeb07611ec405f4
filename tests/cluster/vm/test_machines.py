"""Machines through the API: each running one is a QEMU process, and what is asked of it happens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from typing import Any

import pytest
from proxmoxer import ResourceException

from course.cluster.lab import Cluster
from course.cluster.terminal import Terminal
from course.guest import bootcounter
from course.machine.process import alive
from tests.cluster.vm.machines import done, ended, machine, number, processes, until, where

pytestmark = pytest.mark.qemu

CD = "shared:iso/counter.iso,media=cdrom"


@pytest.fixture(scope="module")
def counter(lab: Cluster) -> str:
    """A CD on the shared storage that counts in RAM and on the serial line."""
    path = lab.state / "shared" / "template" / "iso" / "counter.iso"
    path.write_bytes(bootcounter.cd().read_bytes())
    return CD


def refusal(action: Any, **values: Any) -> tuple[int, str, dict[str, str] | None]:
    """Return with which status, words and errors something is refused."""
    with pytest.raises(ResourceException) as refused:
        action(**values)
    return refused.value.status_code, refused.value.content, refused.value.errors


def query_status(path: str) -> str:
    """Ask a QEMU itself, over the monitor that its node offers."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(60)
        monitor.connect(path)
        lines = monitor.makefile("rw")
        lines.readline()
        for command in ("qmp_capabilities", "query-status"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                pass
        return str(answer["return"]["status"])


def test_what_runs_is_a_process_and_what_is_stopped_is_none(lab: Cluster, api: Any) -> None:
    """One QEMU with the number on its command line, in the state that it says itself; none after the stop."""
    with machine(api, name="web", serial0="socket") as vmid:
        vm = api.nodes("michael").qemu(vmid)
        assert processes(vmid, lab.run) == []
        done(api, vm.status.start.post())
        now = vm.status.current.get()
        assert [int(now["pid"])] == processes(vmid, lab.run, "michael")
        assert now["qmpstatus"] == query_status(f"{lab.run}/michael/qemu-server/{vmid}.qmp") == "running"
        done(api, vm.status.suspend.post())
        assert vm.status.current.get()["qmpstatus"] == query_status(f"{lab.run}/michael/qemu-server/{vmid}.qmp")
        assert refusal(vm.status.shutdown.post)[:2] == (500, "VM is paused - cannot shutdown")
        done(api, vm.status.resume.post())
        assert ended(api, vm.status.start.post()).status == f"VM {vmid} already running"
        done(api, vm.status.stop.post())
        assert vm.status.current.get()["status"] == vm.status.current.get()["qmpstatus"] == "stopped"
        assert processes(vmid, lab.run) == []
        for verb in ("reset", "reboot", "suspend", "resume"):
            assert refusal(vm.status(verb).post)[:2] == (500, f"VM {vmid} not running")
        done(api, vm.status.shutdown.post())


def test_a_qemu_that_somebody_kills_is_noticed(lab: Cluster, api: Any) -> None:
    """The node says stopped, and starts it again when asked."""
    with machine(api) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        done(api, vm.status.start.post())
        os.kill(int(vm.status.current.get()["pid"]), signal.SIGKILL)
        until(lambda: vm.status.current.get()["status"] == "stopped", "noticing the end")
        done(api, vm.status.start.post())


def test_a_guest_that_ignores_the_power_button_is_ended_only_by_force(api: Any, counter: str) -> None:
    """Without force the task fails in Proxmox VE's words."""
    with machine(api, ide2=counter, boot="order=ide2", start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        assert ended(api, vm.status.shutdown.post(timeout=0)).status == "VM quit/powerdown failed - got timeout"
        assert vm.status.current.get()["status"] == "running"
        done(api, vm.status.shutdown.post(timeout=0, forceStop=1))
        assert vm.status.current.get()["status"] == "stopped"


HARDWARE: dict[str, dict[str, Any]] = {
    "q35": {
        "machine": "q35",
        "scsihw": "virtio-scsi-single",
        "scsi0": "local-lvm:0.01,iothread=1,discard=on,ssd=1",
        "scsi1": "local:0.01,format=raw",
        "sata0": "local-lvm:0.01",
        "virtio7": "local-lvm:0.01",
        "ide0": "none,media=cdrom",
        "net0": "virtio,bridge=vmbr0,mtu=1400",
        "net6": "e1000,bridge=vmbr0",
    },
    "serial console": {
        "vga": "serial0",
        "serial0": "socket",
        "serial3": "socket",
        "scsi8": "local-lvm:0.01",
        "rng0": "source=/dev/urandom",
        "watchdog": "model=i6300esb,action=reset",
        "net0": "rtl8139,bridge=vmbr0,link_down=1",
    },
    "limits and nodes": {
        "scsihw": "megasas",
        "scsi0": "local-lvm:0.01,cache=writethrough,serial=abc,mbps_rd=5,iops_wr=100",
        "vga": "cirrus",
        "audio0": "device=ich9-intel-hda",
        "numa": 1,
        "sockets": 2,
        "cores": 2,
        "vcpus": 3,
        "memory": 64,
        "cpu": "host,flags=+aes",
    },
    "old": {
        "machine": "pc-i440fx-6.2",
        "scsihw": "pvscsi",
        "scsi0": "local-lvm:0.01,werror=report,rerror=ignore",
        "vga": "vmware,memory=16",
        "keyboard": "de",
        "localtime": 1,
        "acpi": 0,
        "tablet": 0,
        "balloon": 0,
    },
}


@pytest.mark.parametrize("kind", HARDWARE)
def test_what_the_schema_allows_starts(api: Any, kind: str) -> None:
    """Buses, controllers, cards, screens and clocks of all kinds make machines that QEMU starts."""
    with machine(api, **HARDWARE[kind]) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        done(api, vm.status.start.post())
        assert vm.status.current.get()["qmpstatus"] == "running"
        drives = [key for key in HARDWARE[kind] if re.fullmatch(r"(ide|sata|scsi|virtio)\d+", key)]
        assert set(drives) <= set(vm.status.current.get()["blockstat"])
        if kind == "limits and nodes":
            assert "bps_rd=5242880" in vm.monitor.post(command="info block -v")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"net0": "virtio,bridge=vmbr9"}, "bridge 'vmbr9' does not exist"),
        ({"args": "-nonsense"}, "start failed: QEMU exited with code 1"),
        ({"machine": "pc-q35-99.1"}, "is too old to run machine type 'pc-q35-99.1', please upgrade node 'michael'"),
        ({"cores": 1, "vcpus": 2}, "MAX 1 vcpus allowed per VM on this node"),
    ],
)
def test_what_cannot_start_says_why(lab: Cluster, api: Any, settings: dict[str, Any], words: str) -> None:
    """The task fails with the cause, and no process is left."""
    with machine(api, **settings) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        assert words in ended(api, vm.status.start.post()).status
        assert vm.status.current.get()["status"] == "stopped"
        assert processes(vmid, lab.run) == []


def test_what_cannot_be_plugged_waits_for_the_next_start(api: Any) -> None:
    """Cores wait; a name, a disk, a card and a CD do not."""
    with machine(api, scsihw="virtio-scsi-pci", ide2="none,media=cdrom", start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        vm.config.put(cores=2, name="other", scsi3="local-lvm:0.01", net0="virtio,bridge=vmbr0", ide2=lab_cd())
        waiting = {entry["key"]: entry["pending"] for entry in vm.pending.get() if "pending" in entry}
        assert waiting == {"cores": 2}
        assert "cores" not in vm.config.get(current=1)
        assert vm.config.get()["cores"] == 2
        blocks = vm.monitor.post(command="info block")
        assert "scsi3" in blocks
        assert "lab-linux.iso" in blocks
        assert "virtio-net-pci" in vm.monitor.post(command="info qtree").split("dev: ", 1)[1]
        vm.config.put(delete="scsi3")
        assert vm.config.get()["unused0"].endswith(f"vm-{vmid}-disk-0")
        vm.config.put(scsi2=vm.config.get()["unused0"])
        assert "unused0" not in vm.config.get()
        vm.config.put(sata0="local-lvm:0.01")
        vm.config.put(revert="sata0")
        assert vm.config.get()["unused0"] == f"local-lvm:vm-{vmid}-disk-1"
        vm.config.put(revert="cores")
        assert not [entry for entry in vm.pending.get() if "pending" in entry]
        vm.config.put(cores=2)
        done(api, vm.status.stop.post())
        done(api, vm.status.start.post())
        assert vm.status.current.get()["cpus"] == 2
        assert vm.monitor.post(command="info cpus").count("CPU #") == 2


def lab_cd() -> str:
    """The CD that each node has."""
    return "local:iso/lab-linux.iso,media=cdrom"


def test_changes_are_refused_as_proxmox_refuses_them(api: Any) -> None:
    """Digest, lock, protection, wrong storage, wrong boot order, contradictions: nothing is changed."""
    with machine(api, scsi0="local-lvm:0.01") as vmid:
        vm = api.nodes("michael").qemu(vmid)
        words = "checksum mismatch (file change by other user?)"
        assert refusal(vm.config.put, name="a", digest="0" * 40)[:2] == (500, words)
        assert refusal(vm.config.put, scsi1="nowhere:1")[:2] == (500, "storage 'nowhere' does not exist")
        assert refusal(vm.config.put, boot="order=scsi7")[1] == "invalid bootorder: device 'scsi7' does not exist'"
        status, _, errors = refusal(vm.config.put, name="a", delete="name")
        assert (status, errors) == (400, {"delete": "you can't use '-name' and -delete name' at the same time"})
        before = vm.config.get()
        vm.config.put(protection=1)
        assert refusal(vm.config.put, delete="scsi0")[1] == "can't remove drive 'scsi0' - protection mode enabled"
        assert refusal(vm.delete)[1] == f"can't remove VM {vmid} - protection mode enabled"
        vm.config.put(delete="protection", lock="backup")
        assert refusal(vm.config.put, name="a")[1] == "VM is locked (backup)"
        assert refusal(vm.migrate.post, target="trevor")[1] == "VM is locked (backup)"
        assert ended(api, vm.status.start.post()).status == "VM is locked (backup)"
        vm.config.put(delete="lock", skiplock=1)
        assert vm.config.get() == before


def test_disks_grow_and_never_shrink(api: Any) -> None:
    """A running guest sees the new size; the configuration says it."""
    with machine(api, virtio0="local-lvm:0.0625", start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        done(api, vm.resize.put(disk="virtio0", size="+64M"))
        assert "size=128M" in vm.config.get()["virtio0"]
        assert str(128 << 20) in vm.monitor.post(command="info block -v") or "128 MiB" in vm.monitor.post(
            command="info block -v"
        )
        assert refusal(vm.resize.put, disk="virtio0", size="64M")[1] == "shrinking disks is not supported"
        assert refusal(vm.resize.put, disk="scsi9", size="+1M")[1] == "disk 'scsi9' does not exist"


def test_a_snapshot_with_ram_brings_the_moment_back(api: Any, counter: str) -> None:
    """The counter, which is only in RAM, returns to where it was and goes on; without RAM the machine is stopped."""
    settings: dict[str, Any] = {"ide2": counter, "boot": "order=ide2", "virtio0": "local-lvm:0.01", "start": 1}
    with machine(api, **settings) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        until(lambda: number(vm) > 3, "counting")
        life = number(vm, bootcounter.LIFE_GPA)
        done(api, vm.snapshot.post(snapname="before", description="as it was"))
        log = done(api, vm.snapshot.post(snapname="moment", vmstate=1))
        assert log[0] == "saving VM state and RAM using storage 'local-lvm'"
        assert f"snapshotting 'drive-virtio0' (local-lvm:vm-{vmid}-disk-0)" in log
        then = number(vm)
        until(lambda: number(vm) > then + 20, "counting on")
        late = number(vm)
        done(api, vm.snapshot("moment").rollback.post())
        assert number(vm) < late
        until(lambda: number(vm) > then, "going on")
        assert number(vm, bootcounter.LIFE_GPA) == life
        done(api, vm.snapshot("before").rollback.post())
        assert vm.status.current.get()["status"] == "stopped"
        names = [(entry["name"], entry.get("parent")) for entry in vm.snapshot.get()]
        assert names == [("before", None), ("moment", "before"), ("current", "before")]
        for name in ("before", "moment"):
            done(api, vm.snapshot(name).delete())
        assert not [
            x for x in api.nodes("michael").storage("local-lvm").content.get(vmid=vmid) if "state" in x["volid"]
        ]


def test_a_running_guest_moves_without_a_new_life(lab: Cluster, api: Any, counter: str) -> None:
    """The counter goes on at the other node, local disks come along, and nothing is left where it was."""
    settings: dict[str, Any] = {
        "ide2": counter,
        "boot": "order=ide2",
        "serial0": "socket",
        "virtio0": "local-lvm:0.01",
        "start": 1,
    }
    with machine(api, **settings) as vmid:
        vm, there = (api.nodes(node).qemu(vmid) for node in ("michael", "trevor"))
        until(lambda: number(vm) > 3, "counting")
        life, count = number(vm, bootcounter.LIFE_GPA), number(vm)
        assert refusal(vm.migrate.post, target="trevor")[1] == "can't migrate running VM without --online"
        assert refusal(vm.migrate.post, target="michael")[2] == {"target": "target is local node."}
        assert vm.migrate.get()["local_disks"][0]["volid"] == f"local-lvm:vm-{vmid}-disk-0"
        assert ended(api, vm.migrate.post(target="trevor", online=1)).status == "migration aborted"
        log = done(api, vm.migrate.post(target="trevor", online=1, **{"with-local-disks": 1}))
        said = [line[20:] for line in log]
        assert "migration status: completed" in said
        assert any(line.startswith("average migration speed: ") and line.endswith(" ms") for line in said)
        assert said[-1].startswith("migration finished successfully (duration 00:")
        assert number(there, bootcounter.LIFE_GPA) == life
        assert number(there) >= count
        assert [len(processes(vmid, lab.run, node)) for node in ("michael", "trevor")] == [0, 1]
        volumes = [api.nodes(n).storage("local-lvm").content.get(vmid=vmid) for n in ("michael", "trevor")]
        assert [len(found) for found in volumes] == [0, 1]
        with Terminal(api, "trevor", vmid) as terminal:
            shown = int(terminal.expect(r"\n(\d+)\n", 120)[1])
        assert shown > count
        done(api, there.status.stop.post())
        done(api, there.migrate.post(target="franklin"))
        assert where(api, vmid) == "franklin"
        assert api.nodes("trevor").storage("local-lvm").content.get(vmid=vmid) == []


def test_a_migration_that_fails_leaves_the_guest_where_it_was(lab: Cluster, api: Any, counter: str) -> None:
    """The target's QEMU is killed on the way: the source goes on, the target has nothing."""
    with machine(api, ide2=counter, boot="order=ide2", virtio0="local-lvm:0.01", memory=64, start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        until(lambda: number(vm) > 3, "counting")
        life = number(vm, bootcounter.LIFE_GPA)
        upid = vm.migrate.post(target="trevor", online=1, bwlimit=20, **{"with-local-disks": 1})
        task = api.nodes("michael").tasks(upid)
        until(
            lambda: (
                any("start migrate command" in line["t"] for line in task.log.get(limit=0))
                or task.status.get()["status"] == "stopped"
            ),
            "sending RAM",
        )
        for pid in processes(vmid, lab.run, "trevor"):
            os.kill(pid, signal.SIGKILL)
        assert ended(api, upid).status == "migration problems"
        assert vm.status.current.get()["qmpstatus"] == "running"
        assert number(vm, bootcounter.LIFE_GPA) == life
        assert "lock" not in vm.config.get()
        assert processes(vmid, lab.run, "trevor") == []
        assert api.nodes("trevor").storage("local-lvm").content.get(vmid=vmid) == []
        assert "mirror" not in vm.monitor.post(command="info block-jobs")


def test_a_migration_can_be_stopped(lab: Cluster, api: Any, counter: str) -> None:
    """Stopping its task leaves the guest running, nothing at the target, and the next one succeeds."""
    with machine(api, ide2=counter, boot="order=ide2", virtio0="local-lvm:0.01", memory=64, start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        upid = vm.migrate.post(target="trevor", online=1, bwlimit=20, **{"with-local-disks": 1})
        task = api.nodes("michael").tasks(upid)
        until(lambda: any("start migrate command" in line["t"] for line in task.log.get(limit=0)), "sending RAM")
        task.delete()
        assert ended(api, upid).status == "migration problems"
        assert vm.status.current.get()["qmpstatus"] == "running"
        until(lambda: processes(vmid, lab.run, "trevor") == [], "the end of the target")
        assert api.nodes("trevor").storage("local-lvm").content.get(vmid=vmid) == []
        done(api, vm.migrate.post(target="trevor", online=1, **{"with-local-disks": 1}))


def test_a_guest_whose_configuration_cannot_move_goes_on_at_its_source(lab: Cluster, api: Any, counter: str) -> None:
    """All its RAM has arrived, but the target has a file of that name: never do two run, and the source does."""
    with machine(api, ide2=counter, boot="order=ide2", virtio0="shared:0.01", start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        until(lambda: number(vm) > 3, "counting")
        life = number(vm, bootcounter.LIFE_GPA)
        upid = vm.migrate.post(target="trevor", online=1, bwlimit=400)
        task = api.nodes("michael").tasks(upid)
        until(lambda: any("start migrate command" in line["t"] for line in task.log.get(limit=0)), "sending RAM")
        obstacle = lab.state / "pve" / "nodes" / "trevor" / "qemu-server" / f"{vmid}.conf"
        obstacle.write_text("memory: 16\n")
        try:
            result = ended(api, upid)
        finally:
            obstacle.unlink()
        assert result.status == "migration problems"
        assert "migration status: completed" in [line[20:] for line in result.log]
        assert processes(vmid, lab.run, "trevor") == []
        assert vm.status.current.get()["qmpstatus"] == "running"
        now = number(vm)
        until(lambda: number(vm) > now, "counting on")
        assert number(vm, bootcounter.LIFE_GPA) == life
        done(api, vm.status.suspend.post())
        done(api, vm.migrate.post(target="trevor", online=1))
        assert api.nodes("trevor").qemu(vmid).status.current.get()["qmpstatus"] == "paused"


def test_a_source_that_dies_on_the_way_leaves_nothing_at_the_target(lab: Cluster, api: Any, counter: str) -> None:
    """The target forgets the guest; the source has it back, locked as it was, and starts it when it is unlocked."""
    with machine(api, ide2=counter, boot="order=ide2", virtio0="shared:0.01", memory=64, start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        upid = vm.migrate.post(target="trevor", online=1, bwlimit=20)
        task = api.nodes("michael").tasks(upid)
        until(lambda: any("start migrate command" in line["t"] for line in task.log.get(limit=0)), "sending RAM")
        lab.power_off("michael")
        try:
            until(lambda: processes(vmid, lab.run) == [], "the end of both machines")
        finally:
            lab.power_on("michael")
        assert vm.config.get()["lock"] == "migrate"
        assert task.status.get()["exitstatus"] == "unexpected status"
        vm.config.put(delete="lock", skiplock=1)
        done(api, vm.status.start.post())


def test_clones_have_lives_of_their_own(api: Any) -> None:
    """Another identity, other addresses; a linked clone keeps its template from going."""
    with machine(api, scsi0="local-lvm:0.01", net0="virtio,bridge=vmbr0", name="first") as vmid:
        vm = api.nodes("michael").qemu(vmid)
        full, linked = (int(api.cluster.nextid.get(vmid=vmid + offset)) for offset in (100, 101))
        done(api, vm.clone.post(newid=full, name="second"))
        words = f"Linked clone feature is not supported for 'local-lvm:vm-{vmid}-disk-0' (scsi0)"
        assert refusal(vm.clone.post, newid=linked, full=0)[1] == words
        one, two = vm.config.get(), api.nodes("michael").qemu(full).config.get()
        assert two["name"] == "second"
        for key in ("smbios1", "vmgenid", "net0", "scsi0"):
            assert one[key] != two[key]
        done(api, vm.template.post())
        assert ended(api, vm.status.start.post()).status == "you can't start a vm if it's a template"
        done(api, vm.clone.post(newid=linked))
        disk = api.nodes("michael").qemu(linked).config.get()["scsi0"]
        assert disk.startswith(f"local-lvm:base-{vmid}-disk-0/vm-{linked}-disk-0")
        assert "is still in use" in ended(api, vm.delete()).status
        for other in (linked, full):
            done(api, api.nodes("michael").qemu(other).delete())


def test_a_disk_moves_while_its_machine_runs(api: Any) -> None:
    """To another storage and format; what it was is kept, or removed when asked."""
    with machine(api, virtio0="local-lvm:0.01", start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        done(api, vm.move_disk.post(disk="virtio0", storage="local", format="qcow2", delete=1))
        assert vm.config.get()["virtio0"].startswith(f"local:{vmid}/vm-{vmid}-disk-0.qcow2,")
        assert api.nodes("michael").storage("local-lvm").content.get(vmid=vmid) == []
        assert f"vm-{vmid}-disk-0.qcow2" in vm.monitor.post(command="info block")
        done(api, vm.move_disk.post(disk="virtio0", storage="local-lvm"))
        assert vm.config.get()["unused0"] == f"local:{vmid}/vm-{vmid}-disk-0.qcow2"
        done(api, vm.snapshot.post(snapname="after"))
        done(api, vm.snapshot("after").delete())


def test_a_suspended_machine_sleeps_on_disk(api: Any, counter: str) -> None:
    """No process while it sleeps; awake, it goes on counting."""
    with machine(api, ide2=counter, boot="order=ide2", start=1) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        until(lambda: number(vm) > 3, "counting")
        life = number(vm, bootcounter.LIFE_GPA)
        done(api, vm.status.suspend.post(todisk=1, statestorage="local-lvm"))
        assert vm.status.current.get()["status"] == "stopped"
        assert vm.config.get()["lock"] == "suspended"
        done(api, vm.status.resume.post())
        assert number(vm, bootcounter.LIFE_GPA) == life
        assert "lock" not in vm.config.get()
        assert api.nodes("michael").storage("local-lvm").content.get(vmid=vmid) == []


def test_a_node_takes_its_machines_with_it(lab: Cluster, api: Any) -> None:
    """No QEMU of a node without power goes on; back again, it starts those that are to start with it."""
    with machine(api, node="trevor", start=1) as one, machine(api, node="trevor", onboot=1, start=1) as two:
        pids = processes(one, lab.run) + processes(two, lab.run)
        lab.power_off("trevor")
        try:
            until(lambda: not any(alive(pid) for pid in pids), "the end of the machines")
        finally:
            lab.power_on("trevor")
        until(lambda: api.nodes("trevor").qemu(two).status.current.get()["status"] == "running", "starting on boot")
        assert api.nodes("trevor").qemu(one).status.current.get()["status"] == "stopped"
