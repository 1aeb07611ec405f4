"""The network of the lab: bridges, cables between nodes, ports of guests. A silence is proved by what comes next."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from course.cluster.net import witness
from course.error import ClusterError
from course.network import pcap
from course.network.frames import Arp, Ethernet, Icmp, IPv4, Tcp, Udp, layers

ON = "[OPTIONS]\nenable: 1\n"


def ping(guest, other, source="10.0.0.101", dest="10.0.0.102", number=1):
    """Return a ping from one guest to another."""
    packet = IPv4(source, dest, 1, Icmp.echo(number, 1, b"ping").build())
    return Ethernet(other.mac, guest.mac, 0x0800, packet.build())


def test_guests_of_two_nodes_hear_each_other(rack):
    """A frame for all crosses the cable; the answer to one goes to that one alone."""
    one, other = rack.plug("franklin", 101), rack.plug("trevor", 102)
    third = rack.plug("michael", 103)
    one.say(b"hello")
    assert (other.heard(), third.heard()) == (b"hello", b"hello")
    other.say(b"hello you", to=one)
    assert one.heard() == b"hello you"
    one.say(b"quietly", to=other)
    one.say(b"to all")
    assert (other.heard(), other.heard()) == (b"quietly", b"to all")
    assert third.heard() == b"to all"


def test_qemu_gets_arguments_for_unix_datagrams(rack):
    """The command line names the port's two sockets; the same as QMP's arguments."""
    rack["franklin"]
    option, text = rack["franklin"].port(169, 2, mac="bc:24:11:00:00:01")
    here, there = rack["franklin"].paths(169, 2)
    assert option == "-netdev"
    assert json.loads(text) == {
        "type": "dgram",
        "id": "net2",
        "local": {"type": "unix", "path": str(there)},
        "remote": {"type": "unix", "path": str(here)},
    }
    assert here.is_socket()
    assert len(str(there)) < 100


def test_a_bridge_that_does_not_exist_is_refused(rack):
    """In Proxmox VE's words."""
    with pytest.raises(ClusterError, match=r"^bridge 'vmbr9' does not exist$"):
        rack["franklin"].port(169, 0, bridge="vmbr9", mac="bc:24:11:00:00:01")
    assert rack["franklin"].bridges() == ["vmbr0"]


def test_a_guest_that_moves_is_found_at_its_new_node(rack):
    """After one frame from its new node, answers go there; the old port is gone."""
    one, before = rack.plug("franklin", 101), rack.plug("trevor", 102)
    before.say(b"here")
    assert one.heard() == b"here"
    after = rack.plug("michael", 102)
    rack["trevor"].unplug(102)
    after.say(b"now here")
    assert one.heard() == b"now here"
    one.say(b"answer", to=after)
    assert after.heard() == b"answer"


def test_a_node_whose_cable_is_out_is_alone(rack):
    """Its guests hear each other and nobody else, in both directions, until the cable is back."""
    one, beside, far = rack.plug("franklin", 101), rack.plug("franklin", 102), rack.plug("trevor", 103)
    unplugged = rack.folder / "run" / "franklin" / "unplugged"
    unplugged.touch()
    one.say(b"anybody?")
    far.say(b"me")
    assert beside.heard() == b"anybody?"
    _until(lambda: rack["franklin"].lan.lost)
    unplugged.unlink()
    one.say(b"back")
    assert far.heard() == b"back"
    far.say(b"good")
    assert (beside.heard(), beside.heard()) == (b"back", b"good")


def test_a_dead_node_holds_nobody_up(rack):
    """Frames for a node that is gone are lost; the others go on hearing each other."""
    one, other = rack.plug("franklin", 101), rack.plug("trevor", 102)
    gone = rack.plug("michael", 103)
    gone.say(b"bye")
    assert (one.heard(), other.heard()) == (b"bye", b"bye")
    rack.nodes.pop("michael").fabric.stop()
    one.say(b"are you there?", to=gone)
    one.say(b"hello")
    assert other.heard() == b"hello"


def test_a_tag_makes_a_lan_of_its_own_across_nodes(rack):
    """Guests of tag 10 hear each other on two nodes; one of tag 20 does not; one without a tag sees tags."""
    ten, also_ten = rack.plug("franklin", 101, tag=10), rack.plug("trevor", 102, tag=10)
    twenty, trunk = rack.plug("trevor", 103, tag=20), rack.plug("trevor", 104)
    ten.say(b"ten")
    assert also_ten.heard() == b"ten"
    seen = trunk.hear()
    assert (seen.vlan, seen.payload) == (10, b"ten")
    trunk.say(b"twenty", vlan=20)
    assert twenty.heard() == b"twenty"


def test_a_bridge_without_a_card_stays_on_its_node(rack):
    """vmbr1 without a port is its node's own; one with the second card is another cable."""
    for name in ("franklin", "trevor"):
        fabric = rack[name]
        text = fabric.interfaces_file.read_text() + "\nauto vmbr1\niface vmbr1 inet manual\n\tbridge-ports none\n"
        fabric.interfaces_file.write_text(text)
        fabric.reload()
    one, beside = rack.plug("franklin", 101, bridge="vmbr1"), rack.plug("franklin", 102, bridge="vmbr1")
    far = rack.plug("trevor", 103, bridge="vmbr1")
    one.say(b"inside")
    assert beside.heard() == b"inside"
    for name in ("franklin", "trevor"):
        fabric = rack[name]
        fabric.interfaces_file.write_text(fabric.interfaces_file.read_text().replace("none", "eno2"))
        fabric.reload()
    one.say(b"outside")
    assert far.heard() == b"outside"


def test_a_card_can_be_changed_while_its_guest_runs(rack):
    """Another tag, a cable that is out and back in, another bridge: the guest's socket stays."""
    one, other = rack.plug("franklin", 101), rack.plug("franklin", 102, tag=7)
    rack["franklin"].change(101, 0, tag=7)
    one.say(b"seven")
    assert other.heard() == b"seven"
    rack["franklin"].change(102, 0, link_down=True)
    one.say(b"lost")
    _until(lambda: rack["franklin"].counters(101)["net0"]["netout"] == 28 + len(b"sevenlost"))
    rack["franklin"].change(102, 0, link_down=False)
    one.say(b"back")
    assert other.heard() == b"back"
    with pytest.raises(ClusterError, match="net3 of guest 101 is not plugged"):
        rack["franklin"].change(101, 3, tag=1)


def test_a_rate_limits_a_guest(rack):
    """Of a burst beyond the rate only a part arrives, and the rest is counted at the port."""
    one, other = rack.plug("franklin", 101), rack.plug("franklin", 102, rate=0.001)
    thread = threading.Thread(target=lambda: [one.say(bytes(1400)) for _ in range(1500)])
    thread.start()
    _until(lambda: _port(rack, "franklin", "tap102i0")["drops"].get("rate"))
    thread.join()
    assert other.heard() == bytes(1400)


def test_counters_are_the_guests(rack):
    """What a guest sent and got, in bytes; what the firewall dropped it did not get."""
    one, other = rack.plug("franklin", 101), rack.plug("franklin", 102, firewall=True)
    one.say(b"12345")
    other.heard()
    assert rack["franklin"].counters(101) == {"net0": {"netin": 0, "netout": 19}}
    assert rack["franklin"].counters(102) == {"net0": {"netin": 19, "netout": 0}}
    rack.write("firewall/cluster.fw", ON)
    rack.write("firewall/102.fw", ON)
    one.send(ping(one, other))
    one.say(b"67890")
    assert other.heard() == b"67890"
    assert rack["franklin"].counters(102) == {"net0": {"netin": 38, "netout": 0}}


@pytest.mark.parametrize(
    ("cluster", "guest", "firewall", "arrives"),
    [
        (ON, ON, True, False),
        (ON, ON + "[RULES]\nIN Ping(ACCEPT)\n", True, True),
        (ON, ON + "[RULES]\n|IN Ping(ACCEPT)\n", True, False),
        (ON, ON + "policy_in: ACCEPT\n", True, True),
        (ON, ON + "[RULES]\nGROUP web -i net0\n[ALIASES]\n", True, False),
        (ON + "[group web]\nIN ACCEPT -p icmp\n", ON + "[RULES]\nGROUP web -i net0\n", True, True),
        (ON + "[group web]\nIN ACCEPT -p icmp\n", ON + "[RULES]\nGROUP web -i net1\n", True, False),
        (ON + "[IPSET friends]\n10.0.0.101\n", ON + "[RULES]\nIN ACCEPT -source +friends\n", True, True),
        (ON + "[IPSET friends]\n10.0.0.0/24\n!10.0.0.101\n", ON + "[RULES]\nIN ACCEPT -source +friends\n", True, False),
        ("", ON, True, True),
        (ON, "", True, True),
        (ON, ON, False, True),
        (ON + "[RULES]\nIN ACCEPT -p icmp\n", ON, True, False),
        (ON, ON + "this line is nonsense\n[RULES]\nIN ACCEPT -p icmp\n", True, True),
    ],
)
def test_all_levels_have_to_be_on_for_a_rule_to_count(rack, cluster, guest, firewall, arrives):
    """Datacenter, guest and card: one that is off lets all pass; the datacenter's own rules are not for guests."""
    one, other = rack.plug("franklin", 101), rack.plug("trevor", 102, firewall=firewall)
    rack.write("firewall/cluster.fw", cluster)
    rack.write("firewall/102.fw", guest)
    one.send(ping(one, other))
    one.say(b"and then")
    heard = other.hear()
    assert (heard.type == 0x0800) is arrives
    if not arrives:
        drops = [drop for seen in rack["trevor"].witness()["frames"] for drop in seen["drops"] if drop[0] == "tap102i0"]
        assert drops == [["tap102i0", "policy DROP of tap102i0-IN"]]


def test_a_rule_counts_for_the_next_frame(rack):
    """A file that changed is read before the next frame is judged, and a rule that went is gone as quickly."""
    one, other = rack.plug("franklin", 101), rack.plug("franklin", 102, firewall=True)
    rack.write("firewall/cluster.fw", ON)
    for number in range(6):
        allowed = bool(number % 2)
        rack.write("firewall/102.fw", ON + ("[RULES]\nIN ACCEPT -p icmp\n" if allowed else ""))
        one.send(ping(one, other, number=number))
        one.say(b"%d" % number)
        assert (other.hear().type == 0x0800) is allowed
        if allowed:
            assert other.heard() == b"%d" % number


def test_a_spoofed_card_reaches_nobody_and_teaches_nothing(rack):
    """With the firewall on, frames under another's address are dropped at their own port."""
    liar, victim, peer = rack.plug("franklin", 101, firewall=True), rack.plug("trevor", 102), rack.plug("michael", 103)
    rack.write("firewall/cluster.fw", ON)
    rack.write("firewall/101.fw", ON)
    victim.say(b"I am 102")
    assert (peer.heard(), liar.heard()) == (b"I am 102",) * 2
    liar.send(Ethernet("ff:ff:ff:ff:ff:ff", victim.mac, 0x88B5, b"I am 102 too"))
    liar.say(b"I am 101")
    assert peer.heard() == b"I am 101"
    peer.say(b"for 102", to=victim)
    assert (victim.heard(), victim.heard()) == (b"I am 101", b"for 102")
    assert _port(rack, "franklin", "tap101i0")["drops"] == {"macfilter": 1}


def test_a_rejected_packet_is_answered_over_the_cable(rack):
    """REJECT on another node: the sender gets a reset from where it wanted to go."""
    one, other = rack.plug("franklin", 101), rack.plug("trevor", 102, firewall=True)
    rack.write("firewall/cluster.fw", ON)
    rack.write("firewall/102.fw", ON + "[RULES]\nIN REJECT -p tcp -dport 80 -log info\n")
    segment = Tcp(40000, 80, seq=7).build("10.0.0.101", "10.0.0.102")
    packet = IPv4("10.0.0.101", "10.0.0.102", 6, segment)
    one.send(Ethernet(other.mac, one.mac, 0x0800, packet.build()))
    answer = layers(one.socket.recv(65536))
    assert (answer[1].src, answer[2].flag_names, answer[2].ack) == ("10.0.0.102", "RA", 8)
    (line,) = rack["trevor"].log.lines(102)
    assert line.startswith("102 6 tap102i0-IN ")
    assert "REJECT: OUT=tap102i0 " in line
    assert line.endswith("SRC=10.0.0.101 DST=10.0.0.102 LEN=40 TTL=64 ID=0 PROTO=TCP SPT=40000 DPT=80 SYN")


def test_the_node_itself_answers_and_has_a_firewall(rack):
    """It answers ARP and pings at its address; the datacenter's rules are for it; without them it drops."""
    one = rack.plug("franklin", 101)
    question = Arp(1, one.mac, "10.0.0.101", "00:00:00:00:00:00", "10.0.0.2")
    rack["trevor"]
    one.send(Ethernet("ff:ff:ff:ff:ff:ff", one.mac, 0x0806, question.build()))
    found = layers(one.socket.recv(65536))[1]
    assert (found.operation, found.sender, found.target) == (2, "10.0.0.2", "10.0.0.101")

    class Node:
        mac = found.sender_mac

    one.send(ping(one, Node, dest="10.0.0.2"))
    assert layers(one.socket.recv(65536))[2].type == 0
    rack.write("firewall/cluster.fw", ON)
    one.send(ping(one, Node, dest="10.0.0.2", number=2))
    _until(lambda: _port(rack, "trevor", "host")["drops"])
    rack.write("firewall/cluster.fw", ON + "[RULES]\nIN Ping(ACCEPT)\n")
    one.send(ping(one, Node, dest="10.0.0.2", number=3))
    assert layers(one.socket.recv(65536))[2].body[:2] == b"\0\3"
    rack.write("nodes/trevor/host.fw", "[RULES]\nIN REJECT -p udp\n")
    datagram = Udp(9, 9).build("10.0.0.101", "10.0.0.2")
    one.send(Ethernet(found.sender_mac, one.mac, 0x0800, IPv4("10.0.0.101", "10.0.0.2", 17, datagram).build()))
    assert layers(one.socket.recv(65536))[2].type == 3


def test_a_connection_is_remembered_as_long_as_the_node_says(rack):
    """The node's option for established connections counts at each guest's port; without it, five days."""
    rack.plug("franklin", 101, firewall=True)
    fabric = rack["franklin"]
    assert fabric.levels.established_s == 432000
    rack.write("nodes/franklin/host.fw", "[OPTIONS]\nnf_conntrack_tcp_timeout_established: 7875\n")
    fabric.refresh()
    assert fabric._plugged[101, 0].tracker.established_s == 7875


def test_a_node_that_died_comes_back(rack):
    """What a killed node left in its folder does not hinder it; the others find it again."""
    one = rack.plug("franklin", 101)
    rack.plug("trevor", 102).say(b"before")
    assert one.heard() == b"before"
    left = rack.folder / "run" / "michael" / "net"
    left.mkdir(parents=True)
    for name in ("lan", "witness", "103.net0"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(left / name))  # closing leaves the file, as a killed process does
    back = rack.plug("michael", 103)
    one.say(b"are you back?")
    assert back.heard() == b"are you back?"
    back.say(b"I am", to=one)
    assert one.heard() == b"I am"


def test_a_witness_outside_sees_the_wire(rack):
    """Over a Unix socket: ports, addresses, frames and why some were dropped; and a recording of it."""
    one, other = rack.plug("franklin", 101, tag=5), rack.plug("franklin", 102, tag=6)
    one.say(b"five")
    other.say(b"six")
    _until(lambda: len(witness.look(rack.folder / "run", "franklin")["frames"]) == 2)
    seen = witness.look(rack.folder / "run", "franklin")
    assert [(entry["vlan"], entry["address"], entry["port"]) for entry in seen["table"]] == [
        (5, one.mac, "tap101i0"),
        (6, other.mac, "tap102i0"),
    ]
    assert {port["name"] for port in seen["ports"]} == {"eno1", "host", "tap101i0", "tap102i0"}
    frames = [Ethernet.parse(one.data) for one in pcap.read(witness.pcap(seen))]
    assert [(frame.vlan, frame.payload) for frame in frames] == [(5, b"five"), (6, b"six")]
    assert "tap101i0" in rack["franklin"].describe()
    with pytest.raises(ClusterError, match="bridge 'vmbr9' does not exist"):
        witness.look(rack.folder / "run", "franklin", "vmbr9")
    with pytest.raises(ClusterError, match="of node 'trevor' does not answer"):
        witness.look(rack.folder / "run", "trevor")


def test_garbage_does_not_stop_the_network(rack):
    """Short frames, empty ones and nonsense from the cable: the next frame arrives."""
    one, other = rack.plug("franklin", 101, firewall=True), rack.plug("trevor", 102, firewall=True)
    rack.write("firewall/cluster.fw", ON)
    for vmid in (101, 102):
        rack.write(f"firewall/{vmid}.fw", ON + "policy_in: ACCEPT\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\0", b"eno1\0", b"eno1\0nobody\0" + bytes(60), b"eno1\0franklin\0short"):
            stranger.sendto(data, str(rack.folder / "run" / "trevor" / "net" / "lan"))
    for data in (b"", b"x", bytes(13), b"\xff" * 14, ping(one, other).build()[:37], b"\xff" * 60000):
        one.send(data)
    one.say(b"still there")
    while other.heard() != b"still there":  # the nonsense for all may come first
        pass


def test_nothing_is_left_when_a_node_ends(rack):
    """No socket, no thread."""
    rack.plug("franklin", 101)
    threads = threading.active_count()
    rack["franklin"].unplug(101)
    rack.nodes.pop("franklin").fabric.stop()
    assert list((rack.folder / "run" / "franklin" / "net").iterdir()) == []
    assert threading.active_count() == threads - 2


def test_a_guest_that_does_not_read_costs_only_its_own_frames(rack):
    """Frames for a full queue wait, then are dropped and counted; others go on getting theirs."""
    one, deaf, other = (rack.plug("franklin", vmid) for vmid in (101, 102, 103))
    for number in range(600):
        one.say(b"%d" % number)
        assert other.heard() == b"%d" % number
    assert _port(rack, "franklin", "tap102i0")["drops"]["not taken"] > 0
    assert deaf.heard() == b"0"


def _port(rack, node, name):
    """Return what a port counted."""
    return next(port for port in rack[node].witness()["ports"] if port["name"] == name)


def _until(true):
    """Wait until something holds; each test has its time limit."""
    wait = threading.Event()
    while not true():
        wait.wait(0.005)
