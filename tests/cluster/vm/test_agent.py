"""The lab's own Linux and the guest agent in it, by the API's calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from proxmoxer import ResourceException

from course.cluster.lab import Cluster
from course.cluster.terminal import Terminal
from course.guest import labcd
from tests.cluster.vm.machines import done, machine, until

pytestmark = pytest.mark.qemu

MAC = "BC:24:11:00:2A:07"


@pytest.fixture(scope="module")
def guest(lab: Cluster, api: Any) -> Iterator[Any]:
    """A running Lab Linux whose agent answers."""
    if not (lab.state / "shared" / "template" / "iso" / labcd.NAME).exists():
        pytest.skip("there is no kernel for guests here, and none can be fetched")
    settings: dict[str, Any] = {
        "memory": 128,
        "ide2": f"shared:iso/{labcd.NAME},media=cdrom",
        "boot": "order=ide2",
        "net0": f"virtio={MAC},bridge=vmbr0",
        "scsihw": "virtio-scsi-pci",
        "scsi0": "shared:0.01",
        "ide0": "local-lvm:cloudinit",
        "ipconfig0": "ip=10.77.1.2/24,gw=10.77.1.1",
        "name": "vera-lab",
        "agent": 1,
        "serial0": "socket",
        "start": 1,
    }
    with machine(api, **settings) as vmid:
        vm = api.nodes("michael").qemu(vmid)
        until(lambda: answers(vm), "the agent's answer")
        yield vm


def answers(vm: Any) -> bool:
    """Say whether the agent is there."""
    try:
        vm.agent.ping.post()
    except ResourceException as refused:
        if refused.content != "QEMU guest agent is not running":
            raise
        return False
    return True


def run(vm: Any, *command: str, **more: str) -> dict[str, Any]:
    """Run a program in the guest and return how it ended."""
    pid = vm.agent.exec.post(command=list(command), **more)["pid"]
    outcome: dict[str, Any] = until(
        lambda: (found := vm.agent("exec-status").get(pid=pid))["exited"] and found, f"the end of {command}"
    )
    return outcome


def test_the_agent_tells_what_the_guest_is(guest: Any) -> None:
    """Its system, its address from its MAC, its commands; a freeze is undone."""
    assert guest.agent("get-osinfo").get()["result"]["id"] == "lab"
    cards = {card["name"]: card for card in guest.agent("network-get-interfaces").get()["result"]}
    assert cards["eth0"]["hardware-address"].upper() == MAC
    assert labcd.address_of(MAC) == "10.69.42.7"
    assert {"ip-address-type": "ipv4", "ip-address": "10.69.42.7", "prefix": 16} in cards["eth0"]["ip-addresses"]
    names = {entry["name"] for entry in guest.agent.info.get()["result"]["supported_commands"]}
    assert {"guest-ping", "guest-exec", "guest-shutdown"} <= names
    assert guest.agent("fsfreeze-status").post() == {"result": "thawed"}


def test_the_guest_is_what_cloud_init_says(guest: Any) -> None:
    """Name and address from the CD that was written at the start; what changed since is told as pending."""
    until(lambda: "10.77.1.2" in run(guest, "ip", "addr")["out-data"], "the address")
    assert guest.agent("get-host-name").get() == {"result": {"host-name": "vera-lab"}}
    assert run(guest, "ip", "route", "get", "1.1.1.1")["out-data"].startswith("1.1.1.1 via 10.77.1.1")
    guest.config.put(ipconfig0="ip=10.77.1.3/24")
    told = {entry["key"]: entry for entry in guest.cloudinit.get()}["ipconfig0"]
    assert (told["value"], told["pending"]) == ("ip=10.77.1.2/24,gw=10.77.1.1", "ip=10.77.1.3/24")
    guest.cloudinit.put()
    assert "pending" not in {entry["key"]: entry for entry in guest.cloudinit.get()}["ipconfig0"]
    look = "for cd in /dev/sr*; do mount -t iso9660 $cd /mnt; cat /mnt/network-config; umount /mnt; done 2>/dev/null"
    assert "10.77.1.3" in run(guest, "sh", "-c", look)["out-data"]
    assert guest.cloudinit.dump.get(type="user").startswith("#cloud-config\nhostname: vera-lab\n")


def test_the_agent_runs_programs(guest: Any) -> None:
    """Any words, any input; output, errors and exit status come back."""
    words = 'it\'s "quoted" \\ $HOME\n\tü€'
    assert run(guest, "printf", "%s", words) == {"exited": 1, "exitcode": 0, "out-data": words}
    told = run(guest, "sh", "-c", "cat; echo bad >&2; exit 3", **{"input-data": "in: ä\n"})
    assert told == {"exited": 1, "exitcode": 3, "out-data": "in: ä\n", "err-data": "bad\n"}
    with pytest.raises(ResourceException, match="Failed to execute child process"):
        guest.agent.exec.post(command=["no-such-program"])
    with pytest.raises(ResourceException, match="PID 1 does not exist"):
        guest.agent("exec-status").get(pid=1)


def test_the_guest_sees_what_is_plugged_and_lets_it_go(guest: Any) -> None:
    """A disk, a card with its own address; both go again."""
    guest.config.put(virtio2="local-lvm:0.01", net1="virtio=BC:24:11:00:2A:08,bridge=vmbr0")
    until(lambda: "10.69.42.8" in run(guest, "ip", "addr")["out-data"], "the second card")
    until(lambda: "vda" in run(guest, "ls", "/dev")["out-data"], "the new disk")
    assert "sda" in run(guest, "ls", "/dev")["out-data"]
    guest.config.put(delete="virtio2,net1")
    assert "vda" not in run(guest, "ls", "/dev")["out-data"]
    assert "10.69.42.8" not in run(guest, "ip", "addr")["out-data"]
    guest.config.put(delete="unused0")


def test_the_balloon_and_the_counters_tell_of_the_guest(guest: Any) -> None:
    """Memory as the guest counts it; frames that went through its card."""
    until(lambda: "free_mem" in guest.status.current.get()["ballooninfo"], "the guest's own count")
    now = guest.status.current.get()
    assert 0 < now["ballooninfo"]["free_mem"] < now["maxmem"]
    assert now["freemem"] + now["mem"] == now["ballooninfo"]["total_mem"]
    run(guest, "ping", "-c", "1", "-W", "1", "10.69.42.9")
    until(lambda: guest.status.current.get()["netout"] > 0, "frames")


def test_the_serial_line_has_a_shell(lab: Cluster, api: Any, guest: Any) -> None:
    """A terminal by websocket: what is typed is done, what the guest writes is seen."""
    vmid = int(guest.status.current.get()["vmid"])
    with Terminal(api, "michael", vmid) as terminal:
        terminal.write("\n")
        terminal.expect("# ", 60)
        terminal.write("echo $((6 * 7)) is the answer\n")
        assert terminal.expect(r"\n(\d+) is the answer", 60)[1] == "42"


def test_a_guest_with_an_agent_shuts_down_by_it(api: Any, guest: Any) -> None:
    """Last in this file: the task ends when the guest has ended itself, and the machine is stopped."""
    done(api, guest.status.shutdown.post(timeout=200))
    assert guest.status.current.get()["status"] == "stopped"
    with pytest.raises(ResourceException, match="is not running"):
        guest.agent.ping.post()
