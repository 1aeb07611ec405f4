"""Frames and packets: apart and together again, with checksums that others computed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.error import UsageError
from course.network.checksum import checksum
from course.network.frames import (
    ACK,
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
from course.network.packet import Packet

from ..cluster.steady import steady

MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
FOURS = st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number)))
SIXES = st.integers(0, 2**128 - 1).map(lambda number: str(ipaddress.IPv6Address(number)))
PORTS = st.integers(0, 65535)
DATA = st.binary(max_size=64)

# Frames that Linux and QEMU sent, recorded from a guest of this course, and a datagram of RFC 1624's kind of example.
PING = bytes.fromhex(
    "bc2411000002bc241100000108004500005418f3400040010cea0a0000650a0000660800bd4a00010000e0c39ee80000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000"
)


SEGMENT = bytes.fromhex(
    "bc2411000001bc2411000002080045000034ec024000400639f70a0000660a0000650016d5e04375dc2d2128596b80111fd1da720000"
    "0101080a7d319bc76e767011"
)
DHCP_HEADER = bytes.fromhex("450001ac0100000040117842 00000000ffffffff")


def test_the_checksum_is_the_rfcs():
    """RFC 1071's own example sums up to ddf2, whose complement is the checksum."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_the_checksum_of_other_peoples_headers_is_zero():
    """Headers that a kernel and a boot ROM made add up to nothing, their checksums included."""
    assert [checksum(SEGMENT[14:34]), checksum(DHCP_HEADER)] == [0, 0]


def test_a_segment_of_linux_is_read_and_written_alike():
    """A TCP segment that Linux sent has an intact checksum, and is rebuilt byte for byte."""
    ethernet, packet, segment = layers(SEGMENT)
    assert segment_is_intact(packet)
    assert (segment.sport, segment.dport, segment.flag_names) == (22, 0xD5E0, "FA")
    assert segment.build(packet.src, packet.dst) == packet.payload
    again = IPv4(packet.src, packet.dst, 6, packet.payload, packet.ttl, packet.id, dont_fragment=True)
    assert again.build() == ethernet.payload
    assert ethernet.build() == SEGMENT


def test_a_damaged_header_is_refused():
    """A bit that flipped in an IPv4 header is noticed, and the message says how."""
    broken = bytearray(SEGMENT[14:])
    broken[8] ^= 1
    with pytest.raises(UsageError, match="checksum of the header"):
        IPv4.parse(bytes(broken))


@steady
@given(MACS, MACS, st.integers(0x600, 0xFFFF).filter(lambda kind: kind != 0x8100), DATA,
       st.none() | st.integers(1, 4094), st.integers(0, 7))  # fmt: skip
def test_a_frame_survives(  # noqa: PLR0917
    dst, src, kind, payload, vlan, priority
):
    """What was built is parsed to the same frame, with and without a tag."""
    frame = Ethernet(dst, src, kind, payload, vlan, priority if vlan else 0)
    assert Ethernet.parse(frame.build()) == frame


@steady
@given(FOURS, FOURS, PORTS, PORTS, st.integers(0, 2**32 - 1), st.integers(0, 63), DATA)
def test_a_tcp_packet_survives(  # noqa: PLR0917
    src, dst, sport, dport, seq, flags, payload
):
    """A whole packet of version 4 is parsed to what it was built of, and its checksum is right."""
    segment = Tcp(sport, dport, seq, 0, flags, payload=payload)
    packet = IPv4(src, dst, 6, segment.build(src, dst))
    parsed = IPv4.parse(packet.build())
    assert parsed == packet
    assert Tcp.parse(parsed.payload) == segment
    assert segment_is_intact(parsed)


@steady
@given(SIXES, SIXES, PORTS, PORTS, DATA)
def test_a_udp_packet_of_version_6_survives(src, dst, sport, dport, payload):
    """A datagram of version 6 always has a checksum, and it is right."""
    datagram = Udp(sport, dport, payload)
    parsed = IPv6.parse(IPv6(src, dst, 17, datagram.build(src, dst)).build())
    assert (parsed.src, parsed.dst, Udp.parse(parsed.payload)) == (src, dst, datagram)
    assert parsed.payload[6:8] != b"\0\0"
    assert segment_is_intact(parsed)


@steady
@given(SIXES, SIXES, DATA)
def test_a_ping_of_version_6_sums_up_its_addresses(src, dst, data):
    """ICMPv6's checksum covers the addresses; a packet with another one is not intact."""
    built = Icmp.echo(7, 1, data, v6=True).build(src, dst)
    assert segment_is_intact(IPv6(src, dst, 58, built))
    other = str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(src)) ^ 1))
    assert not segment_is_intact(IPv6(other, dst, 58, built))


def test_arp_survives():
    """A question in ARP is parsed to itself."""
    question = Arp(1, "bc:24:11:00:00:01", "10.0.0.1", "00:00:00:00:00:00", "10.0.0.2")
    assert Arp.parse(question.build()) == question


@steady
@given(st.binary(max_size=120))
def test_no_bytes_upset_the_readers(data):
    """Whatever comes, taking it apart ends with what could be read."""
    layers(data)
    packet = Packet(data + bytes(14))
    assert packet.version in (0, 4, 6)


@steady
@given(st.sampled_from([PING, SEGMENT]), st.integers(14, 70), st.binary(min_size=1, max_size=4))
def test_no_damage_upsets_the_quick_reader(frame, where, bytes_):
    """A packet that was overwritten somewhere is read or called broken, never more."""
    damaged = frame[:where] + bytes_ + frame[where + len(bytes_) :]
    Packet(damaged[: len(frame)])


@steady
@given(FOURS, FOURS, PORTS, PORTS, st.sampled_from([6, 17]), DATA)
def test_the_quick_reader_agrees_with_the_other(  # noqa: PLR0917
    src, dst, sport, dport, protocol, data
):
    """What a filter sees is what `layers` sees."""
    segment = Tcp(sport, dport, flags=SYN | ACK, payload=data) if protocol == 6 else Udp(sport, dport, data)
    frame = Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", 0x0800,
                     IPv4(src, dst, protocol, segment.build(src, dst)).build()).build()  # fmt: skip
    quick = Packet(frame)
    assert (str(ipaddress.IPv4Address(quick.src)), str(ipaddress.IPv4Address(quick.dst))) == (src, dst)
    assert (quick.sport, quick.dport, quick.protocol, quick.broken) == (sport, dport, protocol, False)
    assert quick.flags == (SYN | ACK if protocol == 6 else 0)


def test_ports_behind_extension_headers_are_found():
    """A datagram behind a hop-by-hop header has its ports."""
    src, dst = "fd00::1", "fd00::2"
    payload = bytes((17, 0, 5, 2, 0, 0, 1, 0)) + Udp(53, 5353).build(src, dst)
    quick = Packet(Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", 0x86DD,
                            IPv6(src, dst, 0, payload).build()).build())  # fmt: skip
    assert (quick.protocol, quick.sport, quick.dport) == (17, 53, 5353)


def test_a_later_fragment_has_no_ports():
    """What looks like ports in a later fragment is data."""
    packet = IPv4("10.0.0.1", "10.0.0.2", 6, bytes(24), fragment=1480, id=7)
    quick = Packet(Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", 0x0800, packet.build()).build())
    assert (quick.fragment, quick.pieces, quick.id, quick.sport) == (True, True, 7, 0)
