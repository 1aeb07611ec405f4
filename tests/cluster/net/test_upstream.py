"""The regression tests of pve-firewall: files of all levels, and for each packet what has to become of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from course.cluster.net.levels import Levels
from course.cluster.net.stack import HostGuard
from course.network.conntrack import Tracker
from course.network.frames import Ethernet, Icmp, IPv4, Tcp, Udp
from course.network.guard import silent
from course.network.icmp import V4
from course.network.packet import Packet

NODES = {"prox1": "172.16.1.11", "prox2": "172.16.1.12", "prox3": "172.16.1.3", "self": "172.16.1.2"}
CARDS = {  # as in upstream's fwtester.pl
    "vm100": "0E:0B:38:B8:B3:21",
    "vm100i1": "0E:0B:38:B9:B4:21",
    "vm100i2": "0E:0B:38:BA:B4:21",
    "vm101": "0E:0B:38:B8:B3:22",
    "vm110": "0E:0B:38:B8:B4:21",
    "ct200": "0E:18:24:41:2C:43",
    "ct201": "0E:18:24:41:2C:44",
}
OWN = {200: ("10.0.200.1",), 201: ("10.0.200.2",)}
ZONES = ("host", "outside", "nfvm", "vm100", "ct200")
LEFT_OUT = ("239.192.158.83", "172.16.2.")  # multicast and a second ring of corosync: the lab has neither


@pytest.fixture(scope="session")
def upstream(pve: Path) -> Path:
    """The folder of upstream's tests."""
    folder = pve / "vectors" / "firewall-5.0"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the folders test-* of pve-firewall's own tests belong there")
    return folder


def levels_of(folder: Path, target: Path) -> Levels:
    """Return the levels of one of upstream's tests."""
    (target / "firewall").mkdir(parents=True)
    (target / "nodes" / "self").mkdir(parents=True)
    for file in folder.glob("*.fw"):
        where = target / "nodes" / "self" if file.name == "host.fw" else target / "firewall"
        shutil.copy(file, where / file.name)
    cluster = target / "firewall" / "cluster.fw"
    before = cluster.read_text() if cluster.exists() else ""
    cluster.write_text(f"{before}\n[ALIASES]\nlocal_network 172.16.1.0/24\n")  # upstream finds it out by itself
    return Levels(target, "self", lambda vmid: silent, lambda words: None, NODES)


def packet_of(case: dict[str, str]) -> Packet:
    """Return the packet of a case; what is missing is what upstream's simulator takes."""
    source = case.get("source") or ("172.16.1.2" if case["from"] == "host" else "100.100.1.2")
    dest = case.get("dest") or ("172.16.1.2" if case["to"] == "host" else "100.200.3.4")
    kind, port = case.get("proto", "tcp"), case.get("dport", "9")
    if kind == "icmp":
        wanted = V4.get(port) or (int(port), 0)
        number, segment = 1, Icmp(wanted[0], wanted[1] or 0, bytes(4)).build()
    elif kind == "icmpv6":  # upstream's packets are all of version 4
        number, segment = 58, bytes((int(port), 0)) + bytes(6)
    elif kind == "udp":
        number, segment = 17, Udp(40000, int(port)).build(source, dest)
    else:
        number, segment = 6, Tcp(40000, int(port)).build(source, dest)
    card = CARDS.get(case["from"], "02:00:00:00:00:01")
    inside = IPv4(source, dest, number, segment).build()
    return Packet(Ethernet("02:00:00:00:00:02", card, 0x0800, inside).build())


def judged(levels: Levels, case: dict[str, str]) -> str:
    """Return what becomes of a packet on its way through the guards of both ends."""
    packet = packet_of(case)
    for zone, way in ((case["from"], "leaving"), (case["to"], "arriving")):
        guard: Any = None
        found = re.fullmatch(r"(vm|ct)(\d+)(?:i(\d))?", zone)
        if found:
            vmid, index = int(found[2]), int(found[3] or 0)
            guard = levels.guest(vmid, index, CARDS[zone], "tap", Tracker(), OWN.get(vmid, ()))
            if guard is not None:
                guard.allow_invalid = True  # upstream tries rules alone: there, an answer needs no question
        elif zone == "host" and levels.host_enabled:
            chains = levels.host_chain("in"), levels.host_chain("out")
            guard = HostGuard(*chains, levels.host_filter(), Tracker(), silent)
        if guard is not None:
            verdict = getattr(guard, way)(packet, 1.0)
            if not verdict.accept:
                return "REJECT" if verdict.reply else "DROP"
    return "ACCEPT"


def cases_of(text: str) -> list[dict[str, str]]:
    """Read upstream's lines; one without an end stands for all zones."""
    found = []
    for line in text.splitlines():
        if not line.startswith("{") or any(address in line for address in LEFT_OUT):
            continue
        fields = {key: words.strip("'") for key, words in re.findall(r"([\w-]+)\s*=>\s*('[^']*'|\d+)", line)}
        for end in ("from", "to"):
            if end not in fields:
                other = fields["from" if end == "to" else "to"]
                found += [{**fields, end: zone} for zone in ZONES if zone != other]
                break
        else:
            found.append(fields)
    return found


def test_the_filter_does_what_upstreams_tests_say(upstream, tmp_path, compare):
    """Every packet of pve-firewall's regression tests passes, is dropped or is rejected as they say."""
    cases = []
    for folder in sorted(upstream.glob("test-*")):
        levels = levels_of(folder, tmp_path / folder.name)
        for case in cases_of((folder / "tests").read_text()):
            words = " ".join(f"{key}={value}" for key, value in case.items() if key != "action")
            cases.append((f"{folder.name} {words}", case["action"], judged(levels, case)))
    compare("packets of pve-firewall's regression tests", cases)
