"""The stateful filter at a guest's port: connections, order, spoofing, answers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.network import macros
from course.network.conntrack import Status, Tracker
from course.network.frames import (
    ACK,
    FIN,
    RST,
    SYN,
    Arp,
    Ethernet,
    Icmp,
    IPv4,
    IPv6,
    Tcp,
    Udp,
    layers,
    segment_is_intact,
)
from course.network.guard import Chain, GuestGuard, InputFilter
from course.network.packet import Packet
from course.network.rules import Addresses, Rule, matches, ports

from ..cluster.steady import steady

MINE, THEIRS = "bc:24:11:00:00:01", "bc:24:11:00:00:02"
ME, PEER = "10.0.0.1", "10.0.0.2"


def wire(src, dst, protocol, segment, *, to_me, mac=None, **fields):
    """Return a packet between the guest and its peer."""
    cards = (MINE, THEIRS) if to_me else (THEIRS, mac or MINE)
    packet = (IPv6 if ":" in src else IPv4)(src, dst, protocol, segment, **fields)
    return Packet(Ethernet(*cards, 0x86DD if ":" in src else 0x0800, packet.build()).build())


def to_me(segment, src=PEER, dst=ME, **fields):
    """Return a packet that the guest is about to get."""
    return _packet(segment, src, dst, to_me=True, **fields)


def from_me(segment, src=ME, dst=PEER, **fields):
    """Return a packet that the guest sends."""
    return _packet(segment, src, dst, to_me=False, **fields)


def _packet(segment, src, dst, **fields):
    if isinstance(segment, Icmp):
        return wire(src, dst, 58 if ":" in src else 1, segment.build(src, dst), **fields)
    return wire(src, dst, 6 if isinstance(segment, Tcp) else 17, segment.build(src, dst), **fields)


def rule(action="ACCEPT", log="", **fields):
    """Return a rule."""
    return Rule(action, matches(**fields), f"{action} {fields}", log)


def guard(rules_in=(), rules_out=(), policy_in="DROP", policy_out="ACCEPT", **options):
    """Return the filter of a guest's port."""
    return GuestGuard(
        mac=MINE,
        rules_in=Chain("tap169i0-IN", rules_in, policy_in, options.pop("level", "nolog")),
        rules_out=Chain("tap169i0-OUT", rules_out, policy_out),
        **options,
    )


def passes(verdict):
    """Say whether a packet passes."""
    return verdict.accept


PING, PONG = Icmp.echo(7, 1, b"x" * 16), Icmp.echo(7, 1, b"x" * 16, reply=True)


def test_what_nobody_allowed_is_dropped_and_answers_are_not():
    """The default of a guest: it may ask and be answered, nobody may ask it."""
    one = guard()
    assert not passes(one.arriving(to_me(PING), 0))
    assert passes(one.leaving(from_me(PING), 0))
    assert passes(one.arriving(to_me(PONG), 1))
    assert not passes(one.arriving(to_me(Icmp.echo(8, 1, reply=True)), 1))


def test_a_connection_of_tcp_lives_both_ways_until_it_ends():
    """SYN asks the rules; all that follows passes, in both directions; another port's segment does not."""
    one = guard([rule(proto="tcp", dport="22")])
    assert passes(one.arriving(to_me(Tcp(40000, 22)), 0))
    assert passes(one.leaving(from_me(Tcp(22, 40000, flags=SYN | ACK)), 0))
    one.rules_in = Chain("tap169i0-IN", [], "DROP")  # the rule goes, the connection stays
    assert passes(one.arriving(to_me(Tcp(40000, 22, flags=ACK)), 1000))
    assert not passes(one.arriving(to_me(Tcp(40001, 22, flags=ACK)), 1000))
    assert passes(one.arriving(to_me(Tcp(40000, 22, flags=FIN | ACK)), 1001))
    assert not passes(one.arriving(to_me(Tcp(40000, 22)), 1001 + 121))


def test_datagrams_are_remembered_for_a_while():
    """An answer after 29 s passes, one after 31 s does not."""
    for seconds, expected in ((29, True), (31, False)):
        one = guard()
        assert passes(one.leaving(from_me(Udp(5000, 53)), 0))
        assert passes(one.arriving(to_me(Udp(53, 5000)), seconds)) is expected


def test_errors_about_a_connection_pass_and_others_do_not():
    """An error about the guest's own datagram is related to it; one about a stranger's is invalid."""
    one = guard(policy_in="ACCEPT")
    sent = from_me(Udp(5000, 33434, b"trace"))
    assert passes(one.leaving(sent, 0))
    related = Icmp(3, 3, bytes(4) + sent.frame[14 : 14 + 28])
    assert one.tracker.status(to_me(related, src="10.0.0.254"), 1) is Status.RELATED
    other = from_me(Udp(5001, 33434, b"trace")).frame[14 : 14 + 28]
    assert one.arriving(to_me(Icmp(3, 3, bytes(4) + other), src="10.0.0.254"), 1).rule == "invalid"


def test_the_first_rule_that_is_about_a_packet_decides():
    """DROP before ACCEPT drops, ACCEPT before DROP accepts, and what neither is about meets the policy."""
    drop, accept = rule("DROP", proto="tcp", dport="80"), rule(proto="tcp", dport="80:90")
    assert not passes(guard([drop, accept]).arriving(to_me(Tcp(1024, 80)), 0))
    assert passes(guard([accept, drop]).arriving(to_me(Tcp(1024, 80)), 0))
    assert passes(guard([drop, accept]).arriving(to_me(Tcp(1024, 85)), 0))
    assert guard([drop, accept]).arriving(to_me(Tcp(1024, 91)), 0).rule == "policy DROP of tap169i0-IN"


def test_who_bears_another_cards_address_is_dropped():
    """A spoofed sender gets nothing through: no ARP, no packet; `macfilter` off lets both pass."""
    question = Arp(1, THEIRS, ME, "00:00:00:00:00:00", PEER).build()
    arp = Packet(Ethernet("ff:ff:ff:ff:ff:ff", THEIRS, 0x0806, question).build())
    spoofed = from_me(PING, mac=THEIRS)
    assert [guard().leaving(packet, 0).rule for packet in (arp, spoofed)] == ["macfilter", "macfilter"]
    assert all(passes(guard(macfilter=False).leaving(packet, 0)) for packet in (arp, spoofed))
    assert passes(guard(frames_too=False).leaving(arp, 0))


def test_who_uses_another_address_is_dropped():
    """With an `ipfilter` only the addresses of the set leave, and only they are claimed in ARP."""
    mine = Addresses([ME])
    one = guard(ipfilter=mine, arpfilter=mine)
    assert passes(one.leaving(from_me(PING), 0))
    assert one.leaving(from_me(PING, src="10.0.0.9"), 0).rule == "ipfilter"
    for claimed, expected in ((ME, True), ("10.0.0.9", False)):
        body = Arp(2, MINE, claimed, THEIRS, PEER).build()
        assert passes(one.leaving(Packet(Ethernet(THEIRS, MINE, 0x0806, body).build()), 0)) is expected


def test_arp_needs_no_rule():
    """ARP arrives whatever the policy: it is no IP."""
    body = Arp(1, THEIRS, PEER, "00:00:00:00:00:00", ME).build()
    assert passes(guard().arriving(Packet(Ethernet(MINE, THEIRS, 0x0806, body).build()), 0))


def test_dhcp_and_neighbours_have_switches_of_their_own():
    """Both pass without a rule, and need one where their switch is off."""
    request = from_me(Udp(68, 67), src="0.0.0.0", dst="255.255.255.255")
    advert = to_me(Icmp(136, 0, bytes(20)), src="fe80::2", dst="fe80::1")
    strict = guard(policy_out="DROP", dhcp=False, ndp=False)
    assert passes(guard(policy_out="DROP").leaving(request, 0))
    assert passes(guard().arriving(advert, 0))
    assert not passes(strict.leaving(request, 0))
    assert not passes(strict.arriving(advert, 0))


def test_a_guest_is_no_router_unless_it_may():
    """Router advertisements that a guest sends are dropped unless `radv` is on."""
    advert = from_me(Icmp(134, 0, bytes(12)), src="fe80::1", dst="ff02::1")
    assert guard().leaving(advert, 0).rule == "radv"
    assert passes(guard(radv=True).leaving(advert, 0))


def test_a_policy_that_drops_lets_critical_errors_pass():
    """Without "fragmentation needed" connections hang: the DROP policy lets it pass where it is about none of ours."""
    needed = Icmp(3, 4, bytes(4) + from_me(Tcp(1, 2)).frame[14:42])
    assert passes(guard(allow_invalid=True).arriving(to_me(needed), 0))


def test_the_blacklist_comes_before_the_rules():
    """A sender on it is dropped whatever the rules accept; connections that stand go on."""
    one = guard([rule()], before=InputFilter(blacklist=Addresses(["10.0.0.0/24"], ["10.0.0.3"])))
    assert one.arriving(to_me(PING), 0).rule == "blacklist"
    assert passes(one.arriving(to_me(PING, src="10.0.0.3"), 0))
    assert passes(one.leaving(from_me(PING), 0))
    assert passes(one.arriving(to_me(PONG), 0))


@pytest.mark.parametrize(("flags", "sport"), [(0, 9), (SYN | FIN, 9), (SYN | RST, 9), (41, 9), (SYN, 0)])
def test_flags_that_make_no_sense_are_dropped_on_demand(flags, sport):
    """Each of netfilter's five combinations, with `tcp_flags` on; a plain SYN passes."""
    accept = [rule()]
    strict = guard(accept, before=InputFilter(tcp_flags=True))
    assert strict.arriving(to_me(Tcp(sport, 80, flags=flags)), 0).rule in ("tcpflags", "invalid")
    assert passes(strict.arriving(to_me(Tcp(9, 80)), 0))


def test_broken_and_unknown_pieces_do_not_pass():
    """A packet that contradicts itself, and a fragment whose first was not seen or not allowed."""
    short = Packet(from_me(Tcp(1, 2)).frame[:40])
    assert short.broken
    assert not passes(guard(policy_in="ACCEPT").arriving(short, 0))
    first = wire(PEER, ME, 17, Udp(9, 53, bytes(16)).build(PEER, ME)[:16], to_me=True, more=True, id=5)
    later = wire(PEER, ME, 17, bytes(8), to_me=True, fragment=16, id=5)
    one = guard([rule(proto="udp", dport="53")])
    assert not passes(one.arriving(later, 0))
    assert not first.broken
    assert passes(one.arriving(first, 0))
    assert passes(one.arriving(later, 0))


def test_reject_answers_as_if_nobody_listened():
    """TCP gets a reset that fits its segment, UDP "port unreachable", a ping nothing; all with right checksums."""
    one = guard([rule("REJECT")])
    for segment, kind in ((Tcp(40000, 80, seq=1000, payload=b"abc"), Tcp), (Udp(40000, 80, b"abc"), Icmp)):
        verdict = one.arriving(to_me(segment), 0)
        ethernet, packet, answer = layers(verdict.reply)
        assert (ethernet.dst, ethernet.src, packet.src, packet.dst) == (THEIRS, MINE, ME, PEER)
        assert isinstance(answer, kind)
        assert segment_is_intact(packet)
        if isinstance(answer, Tcp):
            assert (answer.sport, answer.dport, answer.flags, answer.ack) == (80, 40000, RST | ACK, 1004)
        else:
            assert (answer.type, answer.code) == (3, 3)
            assert answer.body[4:].startswith(to_me(segment).frame[14:42])
    assert one.arriving(to_me(PING), 0) == (False, one.arriving(to_me(PING), 0).rule, None)


def test_the_sender_is_told_about_its_own_connection():
    """The answer to a rejected datagram is related to it at the sender's filter, so that it gets through."""
    sender, receiver = guard(), guard([rule("REJECT")])
    datagram = from_me(Udp(40000, 80, b"abc"))
    assert passes(sender.leaving(datagram, 0))
    back = Packet(receiver.arriving(datagram, 0).reply)
    assert passes(sender.arriving(back, 0))


def test_logs_name_chain_and_action():
    """A rule with a level logs what it does, a policy with one what it drops; noise is left out."""
    lines = []
    one = guard(
        [rule("ACCEPT", "info", proto="tcp", dport="22"), rule("DROP", proto="tcp", dport="23")],
        level="warning",
        log=lambda level, chain, words, packet: lines.append((level, chain, words, packet.dport)),
    )
    for port in (22, 23, 24, 445):
        one.arriving(to_me(Tcp(40000, port)), 0)
    assert lines == [
        ("info", "tap169i0-IN", "ACCEPT", 22),
        ("warning", "tap169i0-IN", "policy DROP", 24),
    ]


def test_the_tracker_is_bounded():
    """A scan of many ports does not grow the table; the connection that speaks is not the one that goes."""
    tracker = Tracker(limit=100)
    kept = from_me(Tcp(1, 22))
    tracker.remember(kept, 0)
    for port in range(1000):
        tracker.remember(from_me(Tcp(2, port)), 0)
        tracker.status(kept, 0)
    assert len(tracker) == 100
    assert tracker.status(to_me(Tcp(22, 1, flags=SYN | ACK)), 0) is Status.ESTABLISHED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("80,,90", "extraneous commas"),
        ("90:80", "backwards range '90:80'"),
        ("65536", "invalid port '65536'"),
        ("gopher-not-there", "invalid port 'gopher-not-there'"),
        (",".join(map(str, range(16))), "too many entries"),
        ("1:2:3", "invalid port"),
    ],
)
def test_ports_that_cannot_be_meant_are_refused(text, words):
    """Each with its words."""
    with pytest.raises(ValueError, match=words):
        ports(text)


def test_every_macro_can_be_asked():
    """Each macro gives at least one alternative, of the versions that it is for."""
    for name in macros.MACROS:
        found = matches(macro=name)
        assert found
        assert {match.version for match in found} <= {4, 6}
    assert {match.version for match in matches(macro="NeighborDiscovery")} == {6}


def test_ping_as_a_macro_is_both_versions():
    """`Ping` lets ICMP and ICMPv6 echo requests pass, and no other message."""
    found = matches(macro="ping")
    six = to_me(Icmp.echo(1, 1, v6=True), src="fd00::2", dst="fd00::1")
    answers = [any(match.holds(packet) for match in found) for packet in (to_me(PING), six, to_me(PONG))]
    assert answers == [True, True, False]


NETWORKS = st.builds(
    lambda number, length: str(ipaddress.ip_network((number, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@steady
@given(st.lists(NETWORKS, max_size=6), st.lists(NETWORKS, max_size=3), st.integers(0, 2**32 - 1))
def test_a_set_holds_what_python_says(inside, without, address):
    """The narrowest network that holds an address decides, by Python's own arithmetic of networks."""
    networks = [(ipaddress.ip_network(text), False) for text in without]
    networks += [(ipaddress.ip_network(text), True) for text in inside]
    around = [found for found in networks if ipaddress.IPv4Address(address) in found[0]]
    narrowest = max((network.prefixlen for network, _ in around), default=None)
    deciding = {kind for network, kind in around if network.prefixlen == narrowest}
    expected = bool(deciding) and deciding == {True}
    assert Addresses(inside, without).holds(4, address) is expected


ENDS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.1.0.1", "192.168.7.7"])
SPECS = st.fixed_dictionaries(
    {"action": st.sampled_from(["ACCEPT", "DROP"])},
    optional={
        "proto": st.sampled_from(["tcp", "udp"]),
        "dport": st.sampled_from(["80", "22,80", "70:90"]),
        "source": st.sampled_from(["10.0.0.0/8", "10.0.0.1", "10.0.0.1-10.0.0.9"]),
    },
)
HOLDS = {"80": {80}, "22,80": {22, 80}, "70:90": set(range(70, 91))}


def naive(spec, protocol, source, port):
    """Say whether a rule is about a packet, the long way."""
    address = ipaddress.ip_address(source)
    where = spec.get("source")
    near = ipaddress.ip_address("10.0.0.1") <= address <= ipaddress.ip_address("10.0.0.9")
    about = {
        None: True,
        "10.0.0.0/8": address in ipaddress.ip_network("10.0.0.0/8"),
        "10.0.0.1": source == "10.0.0.1",
        "10.0.0.1-10.0.0.9": near,
    }[where]
    return about and spec.get("proto", protocol) == protocol and ("dport" not in spec or port in HOLDS[spec["dport"]])


@steady
@given(
    st.lists(SPECS, max_size=6),
    st.sampled_from(["ACCEPT", "DROP"]),
    st.sampled_from(["tcp", "udp"]),
    ENDS,
    st.sampled_from([22, 80, 85, 443]),
)
def test_rules_decide_as_a_reading_of_them_does(specs, policy, protocol, source, port):
    """Whatever the rules: the first one that is about a new packet decides, and the policy about the rest."""
    specs = [spec for spec in specs if "dport" not in spec or "proto" in spec]
    expected = next((spec["action"] for spec in specs if naive(spec, protocol, source, port)), policy)
    rules = []
    for spec in specs:
        fields = {key: value for key, value in spec.items() if key not in ("action", "source")}
        where = Addresses([spec["source"]]) if "source" in spec else None
        rules.append(rule(spec["action"], source=where, **fields))
    segment = (Tcp if protocol == "tcp" else Udp)(40000, port)
    verdict = guard(rules, policy_in=policy).arriving(to_me(segment, src=source), 0)
    assert verdict.accept is (expected == "ACCEPT")
