"""A machine of the API behind its firewall: what its card gets, asked as monitoring tools ask."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from proxmoxer.tools import Tasks

from course.cluster.net import witness
from course.network.frames import Ethernet, Icmp, IPv4

MAC, NEIGHBOUR = "bc:24:11:aa:bb:01", "bc:24:11:aa:bb:02"

pytestmark = pytest.mark.qemu


def done(api, upid):
    """Wait for a task that has to end well."""
    assert Tasks.blocking_status(api, upid, timeout=120, polling_interval=0.1)["exitstatus"] == "OK"


@pytest.fixture
def machine(lab, api):
    """A running machine without a disk on michael, its card behind the firewall; gone afterwards."""
    vmid = int(api.cluster.nextid.get())
    vm = api.nodes("michael").qemu(vmid)
    card = f"virtio={MAC},bridge=vmbr0,firewall=1"
    done(api, api.nodes("michael").qemu.post(vmid=vmid, memory=32, net0=card, boot="order=net0", vga="none"))
    try:
        done(api, vm.status.start.post())
        yield vm, vmid
    finally:
        with contextlib.suppress(Exception):
            done(api, vm.status.stop.post())
        done(api, vm.delete())
        (lab.state / "pve" / "firewall" / "cluster.fw").unlink(missing_ok=True)


def knock(lab, number):
    """Send a ping to the machine over the cable, as a machine of franklin would; number is the ping's."""
    ping = IPv4("10.0.7.2", "10.0.7.1", 1, Icmp.echo(number, 1, b"knock").build()).build()
    frame = Ethernet(MAC, NEIGHBOUR, 0x0800, ping).build()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as cable:
        cable.sendto(b"eno1\0franklin\0" + frame, str(lab.run / "michael" / "net" / "lan"))
    return frame.hex()


def fate(lab, data, port):
    """Wait until a frame was seen on michael's bridge; return why it was dropped at a port, or None."""
    wait = threading.Event()
    while True:
        for seen in witness.look(lab.run, "michael")["frames"]:
            if seen["data"] == data:
                return dict(seen["drops"]).get(port)
        wait.wait(0.01)


def test_a_rule_over_the_api_decides_what_the_card_gets(lab, api, machine):
    """Off, all pass; on, nothing does and the log says so; with a rule it passes again; without, it does not."""
    vm, vmid = machine
    port = f"tap{vmid}i0"
    assert fate(lab, knock(lab, 1), port) is None
    vm.firewall.options.put(enable=1, log_level_in="info")
    assert fate(lab, knock(lab, 2), port) is None  # the datacenter's switch is still off
    api.cluster.firewall.options.put(enable=1)
    assert fate(lab, knock(lab, 3), port) == f"policy DROP of {port}-IN"
    (line,) = [entry["t"] for entry in vm.firewall.log.get() if "PROTO=ICMP" in entry["t"]]
    assert line.startswith(f"{vmid} 6 {port}-IN ")
    vm.firewall.rules.post(type="in", action="ACCEPT", macro="Ping", source="10.0.7.0/24", enable=1)
    assert fate(lab, knock(lab, 4), port) is None
    vm.firewall.rules(0).put(action="DROP")
    assert fate(lab, knock(lab, 5), port) == "IN Ping(DROP) -source 10.0.7.0/24"
    vm.config.put(net0=f"virtio={MAC},bridge=vmbr0,firewall=0")
    assert fate(lab, knock(lab, 6), port) is None
    assert vm.status.current.get()["netin"] > 0
