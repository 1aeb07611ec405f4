"""A thin pool that is filled by a guest of the lab, seen and put right through the API; its backup has all bytes."""

from __future__ import annotations

import hashlib
import json
import socket

import pytest
from proxmoxer import ResourceException

from course.cluster.storage import images, set_capacity
from course.guest import labcd

from ..vm.machines import done, machine, until

pytestmark = pytest.mark.qemu

MIB = 1 << 20
NODE = "trevor"


@pytest.fixture
def pool(lab):
    """The pool's directory; it has its size again afterwards."""
    root = lab.state / "nodes" / NODE / "lvm"
    before = int((root / ".capacity").read_text())
    yield root
    set_capacity(root, before)


@pytest.fixture
def guest(lab, api):
    """A running Lab Linux with an empty disk on the pool; its number."""
    if not (lab.state / "shared" / "template" / "iso" / labcd.NAME).exists():
        pytest.skip("there is no kernel for guests here, and none can be fetched")
    settings = {
        "memory": 128,
        "ide2": f"shared:iso/{labcd.NAME},media=cdrom",
        "boot": "order=ide2",
        "scsihw": "virtio-scsi-pci",
        "scsi0": "local-lvm:0.03125",
        "agent": 1,
        "start": 1,
    }
    with machine(api, NODE, **settings) as vmid:
        until(lambda: answers(api.nodes(NODE).qemu(vmid)), "the agent's answer")
        yield vmid


def answers(vm):
    """Say whether the guest's agent is there."""
    try:
        vm.agent.ping.post()
    except ResourceException:
        return False
    return True


def outcome(vm, pid):
    """Wait for the end of a program in the guest; what it wrote."""
    told = until(lambda: (found := vm.agent("exec-status").get(pid=pid))["exited"] and found, "the program's end")
    assert told["exitcode"] == 0, told
    return told["out-data"]


def test_a_pool_that_a_guest_fills(lab, api, pool, guest, tmp_path):
    """Paused with io-error at the pool's end; with room it goes on, and a backup restores what the guest wrote."""
    node, vm = api.nodes(NODE), api.nodes(NODE).qemu(guest)
    room = node.storage("local-lvm").status.get
    set_capacity(pool, room()["used"] + 8 * MIB)
    until(lambda: room()["avail"] <= 8 * MIB, "a pool that shows its new size")
    disk = next(pool.glob(f"vm-{guest}-disk-0"))
    until(lambda: limit_of(lab, guest) <= images.allocated(disk) + 9 * MIB, "a machine that knows it")
    script = "dd if=/dev/urandom of=/dev/sda bs=64k count=384 conv=fsync 2>/dev/null && sha256sum < /dev/sda"
    pid = vm.agent.exec.post(command=["/bin/sh", "-c", script])["pid"]
    until(lambda: vm.status.current.get()["qmpstatus"] == "io-error", "a write without room")
    assert room()["used"] <= room()["total"]
    with pytest.raises(ResourceException) as refused:
        node.storage("local-lvm").content.post(vmid=guest, filename=f"vm-{guest}-disk-1", size="1G")
    assert "free space in thin pool pve/data reached threshold" in refused.value.content
    set_capacity(pool, 256 * MIB)
    done(api, vm.status.resume.post())
    checksum = outcome(vm, pid).split()[0]
    done(api, node.vzdump.post(vmid=guest, storage="local", compress="gzip", mode="snapshot"))
    archive = node.storage("local").content.get(content="backup", vmid=guest)[0]["volid"]
    with machine(api, NODE) as other:
        done(api, node.qemu.post(vmid=other, archive=archive, storage="local", unique=1, force=1))
        volid = node.qemu(other).config.get()["scsi0"].partition(",")[0]
        restored = node.storage("local").content(volid).get()["path"]
        with open(restored, "rb") as file:  # noqa: PTH123 - the API tells a path
            assert hashlib.file_digest(file, "sha256").hexdigest() == checksum
    done(api, node.storage("local").content(archive).delete())


def limit_of(lab, vmid):
    """Where QEMU ends the disk now, asked by its own monitor as an administrator would."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(f"{lab.run}/{NODE}/qemu-server/{vmid}.qmp")
        lines = monitor.makefile("rw")
        lines.readline()
        for command in ("qmp_capabilities", "query-named-block-nodes"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                pass  # an event
        return next(n["image"]["virtual-size"] for n in answer["return"] if n["node-name"] == "drive-scsi0-limit")
