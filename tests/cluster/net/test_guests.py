"""Real virtual machines on the network of the lab: two nodes, pings, rules, and a live migration."""

from __future__ import annotations

import re

import pytest

from course import guest
from course.network.frames import IPv4, IPv6, layers, segment_is_intact

pytestmark = pytest.mark.qemu

ON = "[OPTIONS]\nenable: 1\n"


def nic(fabric, vmid, **card):
    """Return a card for `guest.linux` that is plugged into a node."""
    mac = f"bc:24:11:00:00:{vmid % 256:02x}"
    netdev = fabric.netdev(vmid, 0, mac=mac, **card)
    return {**{key: value for key, value in netdev.items() if key != "id"}, "mac": mac}


def address(vm, number):
    """Give a guest its address."""
    vm.console.run(
        f"ip link set eth0 up; ip addr add 10.0.0.{number}/24 dev eth0; ip addr add fd00::{number}/64 dev eth0"
    )


def reaches(vm, target, options="-c 1 -W 20"):
    """Say whether a guest gets an answer to its ping; it waits long for one that is to come."""
    return vm.console.run(f"ping {options} {target}", timeout_s=120)[0] == 0


@pytest.fixture
def pair(rack):
    """Two guests on two nodes, the second behind its firewall."""
    one = guest.linux("one", nics=[nic(rack["franklin"], 101)])
    two = guest.linux("two", nics=[nic(rack["trevor"], 102, firewall=True)])
    with one, two:
        address(one, 101)
        address(two, 102)
        yield one, two


def test_guests_on_two_nodes_ping_each_other_until_a_rule_says_no(rack, pair):
    """ICMP of both versions and TCP cross the cable; with the firewall on only what a rule lets in does; answers do.

    All that the guests' kernels sent has intact checksums, so ours are read as theirs are made.
    """
    one, two = pair
    assert reaches(one, "10.0.0.102")
    assert reaches(two, "10.0.0.101")
    rack.write("firewall/cluster.fw", ON)
    rack.write("firewall/102.fw", ON + "[RULES]\nIN ACCEPT -p tcp -dport 80\nIN REJECT -p tcp -dport 81\n")
    assert not reaches(one, "10.0.0.102", "-c 2 -W 1")
    assert reaches(two, "10.0.0.101")
    two.console.run(
        "(echo served | nc -l -p 80 >/dev/null &); until grep -q ':0050 ' /proc/net/tcp*; do usleep 20000; done"
    )
    assert "served" in one.console.run("nc -w 60 10.0.0.102 80 </dev/null", timeout_s=120)[1]
    refused = one.console.run("nc -w 60 10.0.0.102 81 </dev/null", timeout_s=120)
    assert refused[0] != 0
    assert "refused" in refused[1]
    rack.write("firewall/102.fw", ON + "[RULES]\nIN Ping(ACCEPT)\n")
    assert reaches(one, "10.0.0.102")
    seen = rack["trevor"].witness()
    packets = [layers(bytes.fromhex(frame["data"])) for frame in seen["frames"]]
    whole = [found[1] for found in packets if len(found) > 2 and isinstance(found[1], IPv4 | IPv6)]
    assert len(whole) > 10
    assert [packet for packet in whole if not segment_is_intact(packet)] == []
    (port,) = [port for port in seen["ports"] if port["name"] == "tap102i0"]
    assert port["drops"]["policy DROP of tap102i0-IN"] >= 2


def test_a_guest_is_found_after_its_migration(rack, pair):
    """Live migration to a third node: its neighbour's pings find it without a word from us."""
    one, two = pair
    assert reaches(one, "10.0.0.102")
    target = two.migration_target()
    card = nic(rack["michael"], 102, firewall=True)
    backend = {"id": "net0", **{key: value for key, value in card.items() if key != "mac"}}
    for number, device in enumerate(target.devices):
        target.devices[number] = type(device)(backend, device.device)
    with target:
        two.migrate(target)
        rack["trevor"].unplug(102)
        assert reaches(one, "10.0.0.102", "-c 1 -W 60")
        where = re.findall(r"bc:24:11:00:00:66 +(\S+)", rack["michael"].describe())
        assert where == ["tap102i0"]
        assert re.findall(r"bc:24:11:00:00:66 +(\S+)", rack["franklin"].describe()) == ["eno1"]
