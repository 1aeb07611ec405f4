"""The node itself on its bridges: it has addresses, answers who asks for them, answers pings, and refuses the rest.

Nothing of the real host is reachable from a guest: this is all that there is. Between the bridge and the node stands
the node's own firewall, whose rules are those of ``host.fw`` and then those of the datacenter.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable

from ...error import UsageError
from ...network.address import mac_text
from ...network.conntrack import Tracker
from ...network.frames import ARP, ICMP, TCP, UDP, Arp, Ethernet, Icmp, IPv4
from ...network.guard import Chain, InputFilter, Log, by_connection
from ...network.packet import Packet
from ...network.reject import answer
from ...network.switch import PASS, Verdict


class HostGuard:
    """The node's firewall at its own port of a bridge; `leaving` is what the node sends."""

    def __init__(self, chain_in: Chain, chain_out: Chain, before: InputFilter, tracker: Tracker, log: Log) -> None:
        self._in, self._out = chain_in, chain_out
        self._before = before
        self._tracker = tracker
        self._log = log

    def leaving(self, packet: Packet, now: float) -> Verdict:
        """Judge a frame that the node sends."""
        return by_connection(self._tracker, packet, now, self._new_out)

    def arriving(self, packet: Packet, now: float) -> Verdict:
        """Judge a frame that the node is about to get."""
        return by_connection(self._tracker, packet, now, self._new_in)

    def _new_out(self, packet: Packet) -> Verdict:
        return PASS if packet.is_ndp else self._out.judge(packet, self._log)

    def _new_in(self, packet: Packet) -> Verdict:
        if packet.is_ndp:
            return PASS
        why = self._before.reason(packet, self._log)
        return Verdict(False, why) if why else self._in.judge(packet, self._log)


class Stack:
    """A node's card in a bridge.

    Args:
        node: its name, which its card's address comes from.
        bridge: the bridge's name.
        address: with the length of the network's part.
        send: takes the frames that the node sends.
    """

    def __init__(self, node: str, bridge: str, address: ipaddress.IPv4Interface, send: Callable[[bytes], None]) -> None:
        self.mac = b"\x02" + hashlib.sha256(f"{node}/{bridge}".encode()).digest()[:5]
        self.address = address
        self._own = address.ip.packed
        self._send = send

    def take(self, frame: bytes) -> bool:
        """Take a frame, and answer it if it asks for an answer."""
        if frame[:6] not in (self.mac, b"\xff" * 6):
            return True
        try:
            reply = self._arp(frame) if frame[12:14] == b"\x08\x06" else self._ip(Packet(frame))
        except UsageError:
            return True  # what cannot be read is not answered
        if reply is not None:
            self._send(reply)
        return True

    def _arp(self, frame: bytes) -> bytes | None:
        asked = Arp.parse(frame[14:])
        own = str(self.address.ip)
        if asked.operation != 1 or asked.target != own:
            return None
        reply = Arp(2, mac_text(self.mac), own, asked.sender_mac, asked.sender)
        return Ethernet(asked.sender_mac, mac_text(self.mac), ARP, reply.build()).build()

    def _ip(self, packet: Packet) -> bytes | None:
        here = packet.version == 4 and packet.dst.to_bytes(4, "big") == self._own
        if not here or packet.broken or packet.pieces or packet.dst_mac != self.mac:
            return None
        if packet.protocol in (TCP, UDP):
            return answer(packet)
        if packet.icmp != (8, 0):
            return None
        asked = IPv4.parse(packet.frame[14:])
        segment = Icmp(0, 0, Icmp.parse(asked.payload).body).build()
        inside = IPv4(asked.dst, asked.src, ICMP, segment).build()
        return Ethernet(mac_text(packet.src_mac), mac_text(self.mac), packet.type, inside).build()

    def announcement(self) -> bytes:
        """Return the frame that tells everybody which card has the node's address."""
        own, card = str(self.address.ip), mac_text(self.mac)
        return Ethernet("ff:ff:ff:ff:ff:ff", card, ARP, Arp(1, card, own, card, own).build()).build()
