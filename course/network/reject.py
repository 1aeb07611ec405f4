"""The answers of a filter that refuses aloud: the sender learns at once what it would learn by waiting.

::

    TCP                     RST, as if nobody listened
    UDP                     ICMP "port unreachable"
    all else                ICMP "administratively prohibited"
    ICMP, frames for all    nothing: an answer to those would breed answers

Source: RFC 1122 (3.2.2), RFC 4443 (2.4), RFC 9293 (3.10.7.1).
"""

from __future__ import annotations

from .address import ip_text, mac_text
from .frames import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, Ethernet, Icmp, IPv4, IPv6, Tcp
from .packet import Packet

_QUOTED = 1232  # of a packet of version 6, so that the error fits where every network carries it


def answer(packet: Packet) -> bytes | None:
    """Return the frame that tells a sender that its packet was refused, or None when nothing is to be said."""
    if not packet.version or packet.broken or packet.fragment or packet.icmp is not None or packet.dst_mac[0] & 1:
        return None
    size = 4 if packet.version == 4 else 16
    here, there = (ip_text(number.to_bytes(size, "big")) for number in (packet.dst, packet.src))
    if packet.protocol == TCP:
        if packet.flags & RST:
            return None
        protocol, segment = TCP, _reset(packet).build(here, there)
    else:
        message = _unreachable(packet)
        segment = message.build(here, there)
        protocol = ICMP if packet.version == 4 else ICMPV6
    carrier = IPv4 if packet.version == 4 else IPv6
    inside = carrier(here, there, protocol, segment).build()
    return Ethernet(mac_text(packet.src_mac), mac_text(packet.dst_mac), packet.type, inside).build()


def _reset(packet: Packet) -> Tcp:
    """Return the segment that ends a connection which the packet wanted to begin or to go on with."""
    segment = packet.frame[packet.offset :]
    seq, ack = int.from_bytes(segment[4:8], "big"), int.from_bytes(segment[8:12], "big")
    if packet.flags & ACK:
        return Tcp(packet.dport, packet.sport, seq=ack, flags=RST, window=0)
    data = max(0, _segment_end(packet) - packet.offset - (segment[12] >> 4) * 4)
    length = data + bool(packet.flags & SYN) + bool(packet.flags & FIN)
    return Tcp(packet.dport, packet.sport, ack=(seq + length) & 0xFFFFFFFF, flags=RST | ACK, window=0)


def _segment_end(packet: Packet) -> int:
    """Return where the packet ends within its frame; what follows is padding."""
    if packet.version == 4:
        return 14 + int.from_bytes(packet.frame[16:18], "big")
    return 54 + int.from_bytes(packet.frame[18:20], "big")


def _unreachable(packet: Packet) -> Icmp:
    """Return the error about a packet, with the packet's beginning in it."""
    begin = packet.frame[14 : _segment_end(packet)]
    header = packet.offset - 14
    quoted = begin[: header + 8] if packet.version == 4 else begin[:_QUOTED]
    if packet.version == 4:
        return Icmp(3, 3 if packet.protocol == UDP else 10, bytes(4) + quoted)
    return Icmp(1, 4 if packet.protocol == UDP else 1, bytes(4) + quoted)
