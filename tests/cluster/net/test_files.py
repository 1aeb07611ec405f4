"""Interfaces, the firewall's log and its limits: what is written is read again."""

from __future__ import annotations

import time

import pytest

from course.cluster.net import interfaces
from course.cluster.net.firewalllog import FirewallLog
from course.cluster.net.interfaces import Interface
from course.network.frames import Ethernet, IPv4, Udp
from course.network.packet import Packet

PACKET = Packet(
    Ethernet("bc:24:11:00:00:02", "bc:24:11:00:00:01", 0x0800,
             IPv4("10.0.0.1", "10.0.0.2", 17, Udp(1, 2).build("10.0.0.1", "10.0.0.2")).build()).build()
)  # fmt: skip

OTHERS = """auto lo
iface lo inet loopback

iface eno1 inet manual

auto bond0
iface bond0 inet manual
	bond-slaves eno1 eno2
	bond-mode active-backup

auto vmbr0
iface vmbr0 inet static
	address 192.168.1.2
	netmask 255.255.255.0
	gateway 192.168.1.1
	bridge_ports bond0
	bridge_stp off
iface vmbr0 inet6 static
	address fd00::2/64
#for all
#guests

iface vmbr0.5 inet manual
"""


def test_an_administrators_file_is_understood():
    """Old spellings, two versions and remarks; written and read again, it says the same."""
    found = interfaces.parse(OTHERS)
    assert {name: one.type for name, one in found.items()} == {
        "lo": "loopback",
        "eno1": "eth",
        "bond0": "bond",
        "vmbr0": "bridge",
        "vmbr0.5": "vlan",
    }
    bridge = found["vmbr0"]
    assert (str(bridge.network), bridge.ports, bridge.auto) == ("192.168.1.2/24", ["bond0"], True)
    assert (bridge.method6, bridge.options["address6"], bridge.comment) == ("static", "fd00::2/64", "for all\nguests\n")
    assert interfaces.parse(interfaces.render(found)) == found


def test_a_new_nodes_file_is_stable():
    """What the installer writes is read and written without a change."""
    text = interfaces.default("10.0.0.1")
    assert interfaces.render(interfaces.parse(text)) == text
    assert "auto vmbr0\niface vmbr0 inet static\n\taddress 10.0.0.1/24\n" in text


@pytest.mark.parametrize("address", ["", "10.0.0.300/24", "nonsense"])
def test_an_address_that_is_none_gives_the_node_none(address):
    """A bridge with such an address is a bridge without one."""
    assert Interface("vmbr0", "static", options={"address": address}).network is None


@pytest.mark.parametrize(
    ("setting", "lines"),
    [("", 5), ("0", 30), ("enable=0", 30), ("1,burst=2", 2), ("enable=1,burst=7,rate=1/day", 7), ("rate=nonsense", 5)],
)
def test_a_flood_of_packets_is_no_flood_of_lines(tmp_path, setting, lines, monkeypatch):
    """The datacenter's limit holds: a burst, then a rate; switched off, each packet leaves its line."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    log = FirewallLog(tmp_path / "pve-firewall.log")
    log.limit(setting)
    for _ in range(30):
        log.of(169)("info", "tap169i0-IN", "policy DROP", PACKET)
    assert len(list(log.lines(169))) == lines


def test_lines_are_found_by_guest_and_time(tmp_path):
    """Each guest's lines alone, and those of a span of time alone."""
    log = FirewallLog(tmp_path / "pve-firewall.log")
    log.of(169)("info", "tap169i0-IN", "policy DROP", PACKET)
    log.of(0)("warning", "PVEFW-HOST-IN", "DROP", PACKET)
    assert [line.split()[0] for line in log.lines()] == ["169", "0"]
    assert [line.split()[0] for line in log.lines(169)] == ["169"]
    now = int(time.time())
    assert list(log.lines(since=now + 3600)) == []
    assert len(list(log.lines(since=now - 3600, until=now + 3600))) == 2


def test_a_log_that_grows_begins_anew(tmp_path, monkeypatch):
    """A full file becomes the old one; there are never more than two."""
    monkeypatch.setattr("course.cluster.net.firewalllog.LARGEST", 300)
    log = FirewallLog(tmp_path / "pve-firewall.log")
    log.limit("0")
    for _ in range(20):
        log.of(169)("info", "tap169i0-IN", "policy DROP", PACKET)
    assert {path.name for path in tmp_path.iterdir()} <= {"pve-firewall.log", "pve-firewall.log.1"}
