"""Connections: which packets belong to one that was allowed before, and so need no rule.

::

    guest ──SYN──▶       NEW           the rules are asked; if they allow it, it is remembered
          ◀─SYN,ACK──    ESTABLISHED   no rule is asked
          ◀─ICMP "port unreachable", about a packet of a known connection ── RELATED
          ◀─an answer that nobody asked for ── INVALID

A connection is two ends and a protocol; pings are told apart by their number. It is forgotten after a time without
packets, which depends on the protocol and on how far it got.

A table is one port's, and small: when it is full, the connection that was silent for the longest time makes room, so a
scan of thousands of ports costs no memory.

Source: behaviour of the Linux kernel's netfilter, documented in Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import enum
from collections import OrderedDict

from .frames import ACK, FIN, RST, SYN, TCP, UDP
from .packet import Packet

LIMIT = 4096
_REQUESTS = {4: {8, 13, 17}, 6: {128}}
_REPLIES = {4: {0, 14, 18}, 6: {129}}
_ERRORS = {4: {3, 4, 5, 11, 12}, 6: {1, 2, 3, 4}}
_ICMP_S, _UDP_S, _UDP_STREAM_S, _OTHER_S = 30, 30, 120, 600
_TCP_NEW_S, _TCP_END_S, _TCP_RST_S = 120, 120, 10
TCP_ESTABLISHED_S = 432000

Key = tuple[int, int, int, int, int]


class Status(enum.Enum):
    """What a packet is to the connections that are known."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


class _Connection:
    """One connection: until when it is remembered, and whether both ends spoke."""

    __slots__ = ("answered", "closing", "key", "until")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.until = 0.0
        self.answered = False
        self.closing = False


class Tracker:
    """The connections at one port.

    Args:
        limit: how many are remembered.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.established_s = TCP_ESTABLISHED_S
        self._table: OrderedDict[Key, _Connection] = OrderedDict()
        self._pieces: OrderedDict[tuple[int, int, int, int], bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def status(self, packet: Packet, now: float) -> Status:
        """Say what a packet is, and remember that its connection lives.

        Args:
            packet: of either direction.
            now: a clock that never goes back, in seconds.
        """
        if packet.is_ndp or packet.broken:
            return Status.INVALID if packet.broken else Status.UNTRACKED
        if packet.icmp is not None and packet.icmp[0] in _ERRORS[packet.version]:
            return Status.RELATED if self._about(packet, now) else Status.INVALID
        connection = self._find(_key(packet), now)
        if connection is not None:
            self._seen(connection, packet, now)
            return Status.ESTABLISHED if connection.answered else Status.NEW
        if packet.icmp is not None:
            return Status.NEW if packet.icmp[0] in _REQUESTS[packet.version] else Status.INVALID
        return Status.INVALID if packet.protocol == TCP and packet.flags & RST else Status.NEW

    def remember(self, packet: Packet, now: float) -> None:
        """Take up the connection that a packet begins, once a filter let it pass."""
        key = _key(packet)
        if self._find(key, now) is not None or (packet.icmp and packet.icmp[0] not in _REQUESTS[packet.version]):
            return
        while len(self._table) >= self.limit:
            self._table.popitem(last=False)
        connection = self._table[key] = _Connection(key)
        self._seen(connection, packet, now)

    def piece(self, packet: Packet) -> bool | None:
        """Return what became of a later fragment's first one: it passed, it did not, or nobody knows."""
        return self._pieces.get((packet.src, packet.dst, packet.protocol, packet.id))

    def remember_piece(self, packet: Packet, accepted: bool) -> None:
        """Remember what becomes of the first fragment of a packet, for the others."""
        self._pieces[packet.src, packet.dst, packet.protocol, packet.id] = accepted
        while len(self._pieces) > self.limit // 16:
            self._pieces.popitem(last=False)

    def _find(self, key: Key, now: float) -> _Connection | None:
        """Return a connection by the ends of a packet of either direction."""
        for one in (key, _turned(key)):
            found = self._table.get(one)
            if found is not None:
                if found.until >= now:
                    return found
                del self._table[one]
        return None

    def _seen(self, connection: _Connection, packet: Packet, now: float) -> None:
        """Take note of a packet of a connection."""
        if _key(packet) != connection.key or (packet.icmp and packet.icmp[0] in _REPLIES[packet.version]):
            connection.answered = True
        if packet.protocol == TCP:
            seconds = self._tcp_seconds(connection, packet.flags)
        elif packet.protocol == UDP:
            seconds = _UDP_STREAM_S if connection.answered else _UDP_S
        else:
            seconds = _ICMP_S if packet.icmp is not None else _OTHER_S
        connection.until = now + seconds
        self._table.move_to_end(connection.key)

    def _tcp_seconds(self, connection: _Connection, flags: int) -> float:
        """Return how long a connection of TCP is remembered after a segment."""
        if flags & SYN and not flags & ACK and connection.closing:
            connection.closing = connection.answered = False  # the same ports again
        if flags & RST:
            connection.closing = True
            return _TCP_RST_S
        if flags & FIN:
            connection.closing = True
        if connection.closing:
            return _TCP_END_S
        return self.established_s if connection.answered else _TCP_NEW_S

    def _about(self, packet: Packet, now: float) -> bool:
        """Say whether an error is about a packet of a known connection: it carries that packet's beginning."""
        begin = packet.frame[packet.offset + 8 :]
        inner = Packet(packet.frame[:12] + (b"\x08\x00" if packet.version == 4 else b"\x86\xdd") + _lengthened(begin))
        return not inner.broken and not inner.fragment and self._find(_key(inner), now) is not None


def _lengthened(begin: bytes) -> bytes:
    """Return the beginning of a packet, followed by zeros as long as it says that it was."""
    if len(begin) < 20:
        return begin
    total = int.from_bytes(begin[2:4], "big") if begin[0] >> 4 == 4 else 40 + int.from_bytes(begin[4:6], "big")
    return begin + bytes(max(0, min(total, 65535) - len(begin)))


def _key(packet: Packet) -> Key:
    """Return the two ends of a packet and its protocol. A ping's answer has the ends of the ping turned around."""
    if packet.icmp is not None:
        sides = (packet.sport, 0) if packet.icmp[0] not in _REPLIES[packet.version] else (0, packet.sport)
        return packet.protocol, packet.src, sides[0], packet.dst, sides[1]
    return packet.protocol, packet.src, packet.sport, packet.dst, packet.dport


def _turned(key: Key) -> Key:
    """Return the same connection from the other end."""
    protocol, src, sport, dst, dport = key
    return protocol, dst, dport, src, sport
