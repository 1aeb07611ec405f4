"""What a filter looks at in a frame, read once and quickly: addresses, protocol, ports, flags.

`course.network.frames` is for people; this is for a switch that asks many rules about each frame. Nothing here raises:
a frame that ends too early or contradicts itself is `broken`, and a filter drops it.
"""

from __future__ import annotations

import struct

from .frames import ICMP, ICMPV6, IPV4, IPV6, TCP, UDP

PORTS = frozenset((TCP, UDP, 33, 132, 136))  # DCCP, SCTP and UDP-Lite have theirs at the same place
_EXTENSIONS = frozenset((0, 43, 60))  # hop-by-hop, routing, destination options
_FRAGMENT = 44
_PORTS = struct.Struct(">HH")
_NDP = range(133, 138)


class Packet:
    """One frame, its tag removed.

    Attributes:
        frame: its bytes.
        type: such as 0x0800.
        version: 4 or 6; 0 when it is not IP.
        src, dst: the packet's addresses as numbers.
        protocol: such as 6 for TCP.
        sport, dport: ports, where the protocol has them; of a ping its number and 0; otherwise 0.
        flags: of TCP.
        icmp: type and code of ICMP and ICMPv6, or None.
        fragment: whether this is a later fragment, which has no ports.
        pieces: whether it is a fragment at all.
        id: common to all fragments of one packet.
        offset: where the segment begins, in bytes from the frame's beginning.
        broken: it contradicts itself.
    """

    __slots__ = (
        "broken", "dport", "dst", "flags", "fragment", "frame", "icmp", "id", "offset", "pieces", "protocol", "sport",
        "src", "type", "version",
    )  # fmt: skip

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.version = self.src = self.dst = self.protocol = self.sport = self.dport = self.flags = self.id = 0
        self.icmp: tuple[int, int] | None = None
        self.fragment = self.pieces = self.broken = False
        self.offset = 14
        self.type = int.from_bytes(frame[12:14], "big")
        if self.type == IPV4:
            self._ipv4(frame)
        elif self.type == IPV6:
            self._ipv6(frame)

    @property
    def src_mac(self) -> bytes:
        """The address of the card that sent it."""
        return self.frame[6:12]

    @property
    def dst_mac(self) -> bytes:
        """The address of the card that it is for."""
        return self.frame[:6]

    @property
    def is_ndp(self) -> bool:
        """Whether it is about neighbours and routers of IPv6, which is never part of a connection."""
        return self.protocol == ICMPV6 and self.icmp is not None and self.icmp[0] in _NDP

    def _ipv4(self, frame: bytes) -> None:
        if len(frame) < 34 or frame[14] >> 4 != 4:
            self.broken = True
            return
        header = (frame[14] & 15) * 4
        total = int.from_bytes(frame[16:18], "big")
        if header < 20 or not header <= total <= len(frame) - 14:
            self.broken = True
            return
        self.version, self.protocol = 4, frame[23]
        self.src, self.dst = int.from_bytes(frame[26:30], "big"), int.from_bytes(frame[30:34], "big")
        where = int.from_bytes(frame[20:22], "big")
        self.id = int.from_bytes(frame[18:20], "big")
        self.pieces, self.fragment = bool(where & 0x3FFF), bool(where & 0x1FFF)
        self._segment(frame, 14 + header, 14 + total)

    def _ipv6(self, frame: bytes) -> None:
        if len(frame) < 54 or frame[14] >> 4 != 6:
            self.broken = True
            return
        end = 54 + int.from_bytes(frame[18:20], "big")
        if end > len(frame):
            self.broken = True
            return
        self.version = 6
        self.src, self.dst = int.from_bytes(frame[22:38], "big"), int.from_bytes(frame[38:54], "big")
        kind, offset = frame[20], 54
        while kind in _EXTENSIONS or kind == _FRAGMENT:
            if offset + 8 > end:
                self.broken = True
                return
            if kind == _FRAGMENT:
                self.pieces, self.id = True, int.from_bytes(frame[offset + 4 : offset + 8], "big")
                self.fragment = int.from_bytes(frame[offset + 2 : offset + 4], "big") & 0xFFF8 != 0
                size = 8
            else:
                size = 8 + frame[offset + 1] * 8
            kind, offset = frame[offset], offset + size
            if self.fragment:
                break
        self.protocol = kind
        self._segment(frame, offset, end)

    def _segment(self, frame: bytes, offset: int, end: int) -> None:
        """Read what begins at `offset`; a later fragment has nothing to read."""
        self.offset = offset
        if self.fragment:
            return
        protocol = self.protocol
        if protocol in PORTS:
            if end - offset < (20 if protocol == TCP else 8):
                self.broken = True
                return
            self.sport, self.dport = _PORTS.unpack_from(frame, offset)
            if protocol == TCP:
                self.flags = frame[offset + 13]
        elif (protocol == ICMP and self.version == 4) or (protocol == ICMPV6 and self.version == 6):
            if end - offset < 8:
                self.broken = True
                return
            self.icmp = (frame[offset], frame[offset + 1])
            if self.icmp[0] in (0, 8, 13, 14) if self.version == 4 else self.icmp[0] in (128, 129):
                self.sport = int.from_bytes(frame[offset + 4 : offset + 6], "big")
