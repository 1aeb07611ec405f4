"""What the checks of lesson 11 stand on: the relay, the transcript, frames, and one lab cluster for all of them."""

from __future__ import annotations

import struct

import pytest
from proxmoxer import ProxmoxAPI, ResourceException

from course.check.outside import let_go
from course.check.proxmox_cluster.lab import Lab, Transcript, lab
from course.check.proxmox_cluster.wire import ping, syn

UPID = "UPID:michael:00000001:00000002:65000000:qmstart:169:root@pam:"
POSTED = {"method": "POST", "path": "nodes/michael/qemu/169/status/start", "values": {}, "status": 200, "data": UPID}


def told(path, data):
    """An answer to a GET."""
    return {"method": "GET", "path": path, "values": {}, "status": 200, "words": "OK", "data": data}


@pytest.mark.parametrize(
    "end",
    [
        told(f"nodes/michael/tasks/{UPID}/status", {"status": "stopped", "exitstatus": "OK"}),
        told("nodes/michael/tasks/" + UPID.replace(":", "%3A") + "/status", {"status": "stopped"}),
        told(f"nodes/michael/tasks/{UPID}/log", [{"n": 1, "t": "TASK ERROR: no"}]),
        told("nodes/michael/tasks", [{"upid": UPID, "endtime": 5, "status": "OK"}]),
    ],
)
def test_the_end_of_a_task_is_known_by_any_way_that_tells_it(end):
    """Status, log and list; one that is over before it began tells nothing."""
    assert Transcript([POSTED, end]).unfinished() == ""
    assert Transcript([end, POSTED]).unfinished() == UPID


@pytest.mark.parametrize(
    "news",
    [
        told(f"nodes/michael/tasks/{UPID}/status", {"status": "running"}),
        told("nodes/michael/qemu/169/status/current", {"status": "stopped"}),
        told(f"nodes/michael/tasks/{UPID}/log", [{"n": 1, "t": "starting"}]),
        told("cluster/tasks", [{"upid": UPID, "starttime": 5}]),
    ],
)
def test_other_news_are_not_the_end_of_a_task(news):
    """Neither a task under way nor a machine that is stopped."""
    assert Transcript([POSTED, news]).unfinished() == UPID


def checksum(data):
    """The Internet checksum, written another way: 0 for data that carries its own."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


@pytest.mark.parametrize("frame", [ping("BC:24:11:00:00:01", "BC:24:11:00:00:02", 7)])
def test_frames_carry_valid_checksums(frame):
    """A guest would believe them."""
    assert frame[:12] == bytes.fromhex("bc2411000002bc2411000001")
    assert checksum(frame[14:34]) == 0
    length = struct.unpack("!H", frame[16:18])[0]
    assert checksum(frame[34 : 14 + length]) == 0


def test_a_tcp_segment_names_its_port():
    """It begins a connection: the flag SYN alone."""
    segment = syn("BC:24:11:00:00:01", "BC:24:11:00:00:02", 22, 40000)[34:]
    assert struct.unpack("!HH", segment[:4]) == (40000, 22)
    assert segment[13] == 2


@pytest.fixture(scope="module")
def cluster():
    """The lab of this process."""
    yield lab()
    let_go()


@pytest.mark.qemu
def test_the_relay_writes_down_what_is_asked_and_changes_nothing(cluster: Lab):
    """Also a refusal: its status and words come through, and no token is kept."""
    cluster.outside.ask("listen")
    api = ProxmoxAPI(**cluster.access)
    assert {node["node"] for node in api.nodes.get()} == {"franklin", "trevor", "michael"}
    with pytest.raises(
        ResourceException, match=r"Configuration file 'nodes/trevor/qemu-server/9999\.conf' does not exist"
    ):
        api.nodes("trevor").qemu(9999).config.get()
    first, second = cluster.outside.ask("heard")
    assert (first["method"], first["path"], first["status"]) == ("GET", "nodes", 200)
    assert (second["status"], second["data"]) == (500, None)
    assert cluster.outside.told["token"] not in repr((first, second))


@pytest.mark.qemu
def test_the_witness_sees_a_guest_s_life(cluster: Lab):
    """Process, memory, disk and frames are those of the machine itself."""
    with cluster.guest("trevor", net0="virtio,bridge=vmbr0", scsi0="shared:0.01,format=qcow2") as vmid:
        [process] = cluster.processes(vmid)
        assert (process["node"], process["memory_mib"]) == ("trevor", 32)
        count, life = cluster.counts_on("trevor", vmid)
        later, same = cluster.counts_on("trevor", vmid)
        assert later > count
        assert same == life
        cluster.do("POST", f"nodes/trevor/qemu/{vmid}/status/reset")
        while (moment := cluster.counts_on("trevor", vmid))[1] == life:
            pass
        assert moment[0] >= 1
    assert cluster.processes(vmid) == []
    assert cluster.place(vmid) == ""


@pytest.mark.qemu
def test_another_lab_of_the_same_process_is_trusted_too(cluster: Lab):
    """Each lab has an authority of its own: what was written for the one before is not used again."""
    let_go()
    again = lab()
    again.outside.ask("listen")
    assert len(ProxmoxAPI(**again.access).nodes.get()) == 3
