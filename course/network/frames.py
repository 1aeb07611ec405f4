"""Frames and packets: bytes apart into named fields, and fields together into bytes with right checksums.

::

    Ethernet   dst 6 | src 6 | [8100 | tag 2] | type 2 | payload
    ARP        who has this address? | it is at that card
    IPv4/IPv6  from, to, protocol | payload
    ICMP       type, code | body             TCP  ports, sequence, flags | data          UDP  ports | data

Each class has `parse(bytes)` and `build()`, which undo each other. `layers` takes a whole frame apart. What is quick
enough for a switch that looks at every frame is in `course.network.packet`.

Source: IEEE 802.3 and 802.1Q; RFC 826 (ARP), 791 (IPv4), 8200 (IPv6), 792 and 4443 (ICMP), 9293 (TCP), 768 (UDP).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from ..error import UsageError
from .address import ip_bytes, ip_text, mac_bytes, mac_text
from .checksum import checksum, pseudo_header

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_FLAGS = "FSRPAU"


def _need(what: str, data: bytes, length: int) -> None:
    """Refuse bytes that end too early."""
    if len(data) < length:
        raise UsageError(f"{what} of {len(data)} bytes; expected at least {length}")


@dataclass(frozen=True, slots=True)
class Ethernet:
    """A frame.

    Attributes:
        dst, src: addresses of cards.
        type: of the payload, such as 0x0800.
        payload: the packet.
        vlan: number of the virtual LAN, 1 to 4094, in a tagged frame; None in one without a tag.
        priority: 0 to 7, of a tagged frame.
    """

    dst: str
    src: str
    type: int
    payload: bytes = b""
    vlan: int | None = None
    priority: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a frame apart.

        Raises:
            UsageError: it ends within its header.
        """
        _need("a frame", data, 14)
        kind = int.from_bytes(data[12:14], "big")
        if kind != VLAN:
            return cls(mac_text(data[:6]), mac_text(data[6:12]), kind, bytes(data[14:]))
        _need("a tagged frame", data, 18)
        tag, kind = struct.unpack_from(">HH", data, 14)
        return cls(mac_text(data[:6]), mac_text(data[6:12]), kind, bytes(data[18:]), tag & 0xFFF, tag >> 13)

    def build(self) -> bytes:
        """Return the frame's bytes, without padding and without the checksum that the card adds."""
        tag = b"" if self.vlan is None else struct.pack(">HH", VLAN, self.priority << 13 | self.vlan)
        return mac_bytes(self.dst) + mac_bytes(self.src) + tag + self.type.to_bytes(2, "big") + self.payload


@dataclass(frozen=True, slots=True)
class Arp:
    """A question for the card behind an address (operation 1), or the answer (2)."""

    operation: int
    sender_mac: str
    sender: str
    target_mac: str
    target: str

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a packet apart.

        Raises:
            UsageError: it is not about IPv4 over Ethernet.
        """
        _need("an ARP packet", data, 28)
        if data[:6] != bytes.fromhex("000108000604"):
            raise UsageError(f"an ARP packet that begins with {data[:6].hex()}; expected 000108000604")
        cards = mac_text(data[8:14]), mac_text(data[18:24])
        operation = int.from_bytes(data[6:8], "big")
        return cls(operation, cards[0], ip_text(data[14:18]), cards[1], ip_text(data[24:28]))

    def build(self) -> bytes:
        """Return its bytes."""
        parts = (mac_bytes(self.sender_mac), ip_bytes(self.sender), mac_bytes(self.target_mac), ip_bytes(self.target))
        return bytes.fromhex("000108000604") + self.operation.to_bytes(2, "big") + b"".join(parts)


@dataclass(frozen=True, slots=True)
class IPv4:
    """A packet of version 4.

    Attributes:
        src, dst: addresses.
        protocol: such as 6 for TCP.
        payload: the segment.
        ttl: how many routers it may still pass.
        id: common to the fragments of one packet.
        fragment: offset in bytes of this fragment's payload in the whole.
        more: whether more fragments follow.
        dont_fragment: whether routers must not take it apart.
    """

    src: str
    dst: str
    protocol: int
    payload: bytes = b""
    ttl: int = 64
    id: int = 0
    fragment: int = 0
    more: bool = False
    dont_fragment: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a packet apart; what the frame has behind it is padding.

        Raises:
            UsageError: it is too short, of another version, or its header's checksum is wrong.
        """
        _need("an IPv4 packet", data, 20)
        first, _, total, number, where, ttl, protocol, _ = struct.unpack_from(">BBHHHBBH", data)
        header = (first & 15) * 4
        if first >> 4 != 4 or header < 20 or not header <= total <= len(data):
            raise UsageError(
                f"an IPv4 packet of version {first >> 4} with {header} bytes of header and {total} in all, in "
                f"{len(data)} bytes; expected version 4 and lengths that fit"
            )
        if checksum(data[:header]):
            raise UsageError(f"the checksum of the header {data[:header].hex()} is wrong; summed up it must be 0")
        addresses = ip_text(data[12:16]), ip_text(data[16:20])
        flags = where >> 13
        return cls(
            *addresses, protocol, bytes(data[header:total]), ttl, number, (where & 0x1FFF) * 8, bool(flags & 1),
            bool(flags & 2),
        )  # fmt: skip

    def build(self) -> bytes:
        """Return its bytes."""
        where = self.dont_fragment << 14 | self.more << 13 | self.fragment // 8
        fixed = (0x45, 0, 20 + len(self.payload), self.id, where, self.ttl, self.protocol)
        addresses = ip_bytes(self.src) + ip_bytes(self.dst)
        header = struct.pack(">BBHHHBBH", *fixed, 0) + addresses
        return struct.pack(">BBHHHBBH", *fixed, checksum(header)) + addresses + self.payload


@dataclass(frozen=True, slots=True)
class IPv6:
    """A packet of version 6; `protocol` is that of its first header after the fixed one."""

    src: str
    dst: str
    protocol: int
    payload: bytes = b""
    hop_limit: int = 64

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a packet apart.

        Raises:
            UsageError: it is too short, or of another version.
        """
        _need("an IPv6 packet", data, 40)
        length, protocol, hops = struct.unpack_from(">HBB", data, 4)
        if data[0] >> 4 != 6 or 40 + length > len(data):
            raise UsageError(
                f"an IPv6 packet of version {data[0] >> 4} with {length} bytes of payload, in {len(data)} bytes; "
                "expected version 6 and a length that fits"
            )
        return cls(ip_text(data[8:24]), ip_text(data[24:40]), protocol, bytes(data[40 : 40 + length]), hops)

    def build(self) -> bytes:
        """Return its bytes."""
        fixed = struct.pack(">IHBB", 6 << 28, len(self.payload), self.protocol, self.hop_limit)
        return fixed + ip_bytes(self.src) + ip_bytes(self.dst) + self.payload


Packet = IPv4 | IPv6


@dataclass(frozen=True, slots=True)
class Icmp:
    """A message of ICMP or ICMPv6: type and code, and what follows the checksum."""

    type: int
    code: int
    body: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a message apart.

        Raises:
            UsageError: it is too short.
        """
        _need("an ICMP message", data, 4)
        return cls(data[0], data[1], bytes(data[4:]))

    def build(self, src: str | None = None, dst: str | None = None) -> bytes:
        """Return its bytes; ICMPv6 sums up the packet's addresses too, ICMP does not."""
        blank = bytes((self.type, self.code, 0, 0)) + self.body
        pseudo = b""
        if src is not None and dst is not None and ":" in src:
            pseudo = pseudo_header(ip_bytes(src), ip_bytes(dst), ICMPV6, len(blank))
        return blank[:2] + checksum(pseudo + blank).to_bytes(2, "big") + self.body

    @classmethod
    def echo(cls, number: int, sequence: int, data: bytes = b"", *, reply: bool = False, v6: bool = False) -> Self:
        """Return a ping, or the answer to one."""
        kind = (129 if reply else 128) if v6 else (0 if reply else 8)
        return cls(kind, 0, struct.pack(">HH", number, sequence) + data)


@dataclass(frozen=True, slots=True)
class Tcp:
    """A segment of TCP; flags as the sum of `FIN`, `SYN`, `RST`, `PSH`, `ACK` and `URG`."""

    sport: int
    dport: int
    seq: int = 0
    ack: int = 0
    flags: int = SYN
    window: int = 65535
    options: bytes = b""
    payload: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a segment apart.

        Raises:
            UsageError: its lengths do not fit.
        """
        _need("a TCP segment", data, 20)
        sport, dport, seq, ack, offset, flags, window = struct.unpack_from(">HHIIBBH", data)
        header = (offset >> 4) * 4
        if not 20 <= header <= len(data):
            raise UsageError(f"a TCP segment with {header} bytes of header in {len(data)}; expected 20 or more")
        return cls(sport, dport, seq, ack, flags, window, bytes(data[20:header]), bytes(data[header:]))

    def build(self, src: str, dst: str) -> bytes:
        """Return its bytes; the checksum is over the packet's addresses too."""
        options = self.options + bytes(-len(self.options) % 4)
        offset = (20 + len(options)) << 2
        head = struct.pack(">HHIIBBH", self.sport, self.dport, self.seq, self.ack, offset, self.flags, self.window)
        return _summed(src, dst, TCP, head, b"\0\0" + options + self.payload)

    @property
    def flag_names(self) -> str:
        """The flags as letters, such as ``SA`` for SYN and ACK."""
        return "".join(letter for bit, letter in enumerate(_FLAGS) if self.flags >> bit & 1)


@dataclass(frozen=True, slots=True)
class Udp:
    """A datagram of UDP."""

    sport: int
    dport: int
    payload: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a datagram apart.

        Raises:
            UsageError: its length does not fit.
        """
        _need("a UDP datagram", data, 8)
        sport, dport, length, _ = struct.unpack_from(">HHHH", data)
        if not 8 <= length <= len(data):
            raise UsageError(f"a UDP datagram that says {length} bytes, in {len(data)}; expected 8 to {len(data)}")
        return cls(sport, dport, bytes(data[8:length]))

    def build(self, src: str, dst: str) -> bytes:
        """Return its bytes; the checksum is over the packet's addresses too, and never 0, which means none."""
        head = struct.pack(">HHH", self.sport, self.dport, 8 + len(self.payload))
        built = _summed(src, dst, UDP, head, self.payload)
        return built if built[6:8] != b"\0\0" else built[:6] + b"\xff\xff" + built[8:]


def _summed(src: str, dst: str, protocol: int, head: bytes, tail: bytes) -> bytes:
    """Return a segment with its checksum between head and tail."""
    pseudo = pseudo_header(ip_bytes(src), ip_bytes(dst), protocol, len(head) + 2 + len(tail))
    return head + checksum(pseudo + head + b"\0\0" + tail).to_bytes(2, "big") + tail


Layer = Ethernet | Arp | IPv4 | IPv6 | Icmp | Tcp | Udp


def layers(frame: bytes) -> list[Layer]:
    """Take a frame apart as far as it makes sense: what cannot be read ends the list."""
    found: list[Layer] = []
    try:
        ethernet = Ethernet.parse(frame)
        found.append(ethernet)
        if ethernet.type == ARP:
            found.append(Arp.parse(ethernet.payload))
        if ethernet.type not in (IPV4, IPV6):
            return found
        packet: Packet = (IPv4 if ethernet.type == IPV4 else IPv6).parse(ethernet.payload)
        found.append(packet)
        if isinstance(packet, IPv4) and packet.fragment:
            return found
        kinds: dict[int, type[Icmp] | type[Tcp] | type[Udp]] = {ICMP: Icmp, ICMPV6: Icmp, TCP: Tcp, UDP: Udp}
        if packet.protocol in kinds:
            found.append(kinds[packet.protocol].parse(packet.payload))
    except UsageError:
        pass
    return found


def segment_is_intact(packet: Packet) -> bool:
    """Say whether the checksum of a whole packet's TCP, UDP, ICMP or ICMPv6 is right."""
    data = packet.payload
    if packet.protocol == ICMP:
        return checksum(data) == 0
    if packet.protocol == UDP and data[6:8] == b"\0\0":
        return isinstance(packet, IPv4)  # no checksum at all, which only IPv4 allows
    pseudo = pseudo_header(ip_bytes(packet.src), ip_bytes(packet.dst), packet.protocol, len(data))
    return checksum(pseudo + data) == 0
