"""The filter at a guest's port and at a node: in which order a packet meets what.

::

    at a guest's port, a frame that the guest sends             ... that it is about to get
    1  no IP (ARP, ...): passes, unless it bears another         1  no IP (ARP, ...): passes
       card's address (`macfilter`) or claims another's          2  connections: invalid drops, established passes
    2  connections: invalid drops, established passes            3  blacklist, smurfs, flags that make no sense
    3  DHCP passes                                               4  DHCP passes
    4  another card's address, router advertisements,            5  neighbours of IPv6 pass
       foreign addresses (`ipfilter`)                            6  the rules IN, in order; the first one decides
    5  neighbours of IPv6 pass                                   7  the policy IN, which drops by default
    6  the rules OUT, in order; the first one decides
    7  the policy OUT, which passes by default

A guard is replaced when a rule changes; the tracker of connections stays. So a connection that was allowed goes on, as
it does on a real cluster.

Source: what pve-firewall 5.0 makes of its files, read in its public sources and regression tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import reject
from .address import BROADCAST, mac_bytes
from .conntrack import Status, Tracker
from .frames import ACK, ARP, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP, URG
from .packet import Packet
from .rules import Action, Addresses, Match, Rule, ports
from .switch import PASS, Verdict

Log = Callable[[str, str, str, Packet], None]
"""Gets a level, the chain, what happens, and the packet."""

NOLOG = "nolog"
_MULTICAST = Addresses(("224.0.0.0/4",))
_MULTICAST_6 = Addresses(("ff00::/8",))
_NOISE = (  # what a policy that drops does not write into the log
    Match(protocol=UDP, dports=ports("135,445")),
    Match(protocol=UDP, dports=ports("137:139")),
    Match(protocol=UDP, sports=ports("137"), dports=ports("1024:65535")),
    Match(protocol=TCP, dports=ports("135,139,445")),
    Match(protocol=UDP, dports=ports("1900")),
    Match(protocol=UDP, sports=ports("53")),
)
_CRITICAL = (  # without these, connections that are allowed hang
    Match(4, ICMP, icmp=(3, 4)),
    Match(4, ICMP, icmp=(11, None)),
    Match(6, ICMPV6, icmp=(1, None)),
    Match(6, ICMPV6, icmp=(2, None)),
    Match(6, ICMPV6, icmp=(3, None)),
)
_NONSENSE = (  # flags that no sane program sends: (those looked at, those set)
    (FIN | SYN | RST | PSH | ACK | URG, FIN | PSH | URG),
    (FIN | SYN | RST | PSH | ACK | URG, 0),
    (SYN | RST, SYN | RST),
    (FIN | SYN, FIN | SYN),
)


def silent(level: str, chain: str, words: str, packet: Packet) -> None:
    """Log nothing."""


@dataclass(slots=True)
class Chain:
    """Rules of one direction, and what becomes of a packet that none is about.

    Attributes:
        name: as logs show it, such as ``tap169i0-IN``.
        rules: in order.
        policy: what the rest gets.
        log: the level at which the policy's drops are logged.
    """

    name: str
    rules: Sequence[Rule] = ()
    policy: Action = "ACCEPT"
    log: str = NOLOG

    def judge(self, packet: Packet, log: Log) -> Verdict:
        """Ask the rules, and then the policy."""
        for rule in self.rules:
            if rule.holds(packet):
                if rule.log and rule.log != NOLOG:
                    log(rule.log, self.name, rule.action, packet)
                return _do(rule.action, packet, rule.text)
        return self._policy(packet, log)

    def _policy(self, packet: Packet, log: Log) -> Verdict:
        if self.policy == "ACCEPT":
            return PASS
        words = f"policy {self.policy} of {self.name}"
        if _for_many(packet):
            return Verdict(False, words)
        if any(match.holds(packet) for match in _CRITICAL):
            return PASS
        if any(match.holds(packet) for match in _NOISE) or _not_first(packet):
            quiet: Action = "DROP" if _not_first(packet) or packet.sport == 53 or packet.dport == 1900 else self.policy
            return _do(quiet, packet, words)
        if self.log != NOLOG:
            log(self.log, self.name, f"policy {self.policy}", packet)
        return _do(self.policy, packet, words)


@dataclass(slots=True)
class InputFilter:
    """What is dropped on its way in before any rule is asked.

    Attributes:
        blacklist: senders that are dropped; None for none.
        smurfs: drop senders that cannot be one, such as a broadcast address.
        tcp_flags: drop flags that make no sense.
        log: the level at which these drops are logged.
    """

    blacklist: Addresses | None = None
    smurfs: bool = True
    tcp_flags: bool = False
    log: str = NOLOG

    def reason(self, packet: Packet, log: Log) -> str:
        """Return why a new packet is dropped; empty when it is not."""
        why = ""
        if self.blacklist is not None and self.blacklist.holds(packet.version, packet.src):
            why = "blacklist"
        elif self.smurfs and packet.version == 4 and _is_many(packet.src):
            why = "smurfs"
        if not why and self.tcp_flags and packet.protocol == TCP and _senseless(packet):
            why = "tcpflags"
        if why and self.log != NOLOG:
            log(self.log, f"PVEFW-{why}", "DROP", packet)
        return why


@dataclass(slots=True)
class GuestGuard:
    """The filter at one port of a guest.

    Attributes:
        mac: the card's address.
        rules_in, rules_out: the two chains.
        tracker: the connections of this port.
        dhcp, ndp, radv: whether these pass; `radv` is about advertisements that the guest sends.
        macfilter: the guest may use no other card's address.
        frames_too: that goes for frames that are no IP, too (the datacenter's option ``ebtables``).
        ipfilter: the only addresses that the guest may use, or None for any.
        arpfilter: the only addresses of version 4 that it may claim in ARP, or None for any.
        before: what is dropped before any rule is asked.
        allow_invalid: packets that belong to no connection and begin none go on to the rules.
        log: gets what is logged.
    """

    mac: str
    rules_in: Chain
    rules_out: Chain
    tracker: Tracker = field(default_factory=Tracker)
    dhcp: bool = True
    ndp: bool = True
    radv: bool = False
    macfilter: bool = True
    frames_too: bool = True
    ipfilter: Addresses | None = None
    arpfilter: Addresses | None = None
    before: InputFilter = field(default_factory=InputFilter)
    allow_invalid: bool = False
    log: Log = silent

    def leaving(self, packet: Packet, now: float) -> Verdict:
        """Judge a frame that the guest sends."""
        if not packet.version and self.frames_too:
            if self._foreign(packet):
                return Verdict(False, "macfilter")
            if packet.type == ARP and self._foreign_arp(packet):
                return Verdict(False, "ipfilter (ARP)")
        return self._connections(packet, now, self._new_out)

    def _foreign(self, packet: Packet) -> bool:
        """Say whether a frame bears another card's address."""
        return self.macfilter and packet.src_mac != mac_bytes(self.mac)

    def _foreign_arp(self, packet: Packet) -> bool:
        """Say whether a packet of ARP claims an address that is not the guest's."""
        claimed = int.from_bytes(packet.frame[28:32], "big")
        return self.arpfilter is not None and not self.arpfilter.holds(4, claimed)

    def arriving(self, packet: Packet, now: float) -> Verdict:
        """Judge a frame that the guest is about to get."""
        return self._connections(packet, now, self._new_in)

    def _connections(self, packet: Packet, now: float, judge: Callable[[Packet], Verdict]) -> Verdict:
        return by_connection(self.tracker, packet, now, judge, self.allow_invalid)

    def _new_out(self, packet: Packet) -> Verdict:
        if self.dhcp and _is_dhcp(packet, to_server=True):
            return PASS
        why = self._spoofed(packet)
        if why:
            return Verdict(False, why)
        if self.ndp and packet.is_ndp and packet.icmp is not None and packet.icmp[0] != 137:
            return PASS
        return self.rules_out.judge(packet, self.log)

    def _spoofed(self, packet: Packet) -> str:
        """Return what a guest pretends to be that it is not; empty when it does not."""
        if self._foreign(packet):
            return "macfilter"
        if packet.is_ndp and packet.icmp == (134, 0) and not self.radv:
            return "radv"
        foreign = self.ipfilter is not None and not self.ipfilter.holds(packet.version, packet.src)
        return "ipfilter" if foreign else ""

    def _new_in(self, packet: Packet) -> Verdict:
        why = self.before.reason(packet, self.log)
        if why:
            return Verdict(False, why)
        if self.dhcp and _is_dhcp(packet, to_server=False):
            return PASS
        if self.ndp and packet.is_ndp and packet.icmp is not None and packet.icmp[0] != 137:
            return PASS
        return self.rules_in.judge(packet, self.log)


def by_connection(
    tracker: Tracker, packet: Packet, now: float, judge: Callable[[Packet], Verdict], allow_invalid: bool = False
) -> Verdict:
    """Let pass what belongs to a connection that was allowed, drop what cannot belong to any, and judge the rest."""
    if not packet.version:
        return Verdict(False, "broken packet") if packet.broken else PASS
    if packet.fragment:
        return PASS if tracker.piece(packet) else Verdict(False, "fragment without its first")
    status = tracker.status(packet, now)
    if status is Status.INVALID and not (allow_invalid and not packet.broken):
        return Verdict(False, "invalid")
    verdict = PASS if status in (Status.ESTABLISHED, Status.RELATED) else judge(packet)
    if verdict.accept and status is Status.NEW:
        tracker.remember(packet, now)
    if packet.pieces:
        tracker.remember_piece(packet, verdict.accept)
    return verdict


def _do(action: Action, packet: Packet, words: str) -> Verdict:
    """Return the verdict of an action."""
    if action == "ACCEPT":
        return PASS
    return Verdict(False, words, reject.answer(packet) if action == "REJECT" else None)


def _for_many(packet: Packet) -> bool:
    """Say whether a packet is for more than one."""
    if packet.dst_mac == BROADCAST:
        return True
    if packet.version == 4:
        return _is_many(packet.dst)
    return _MULTICAST_6.holds(6, packet.dst)


def _is_many(address: int) -> bool:
    """Say whether an address of version 4 stands for more than one."""
    return address == 0xFFFFFFFF or _MULTICAST.holds(4, address)


def _not_first(packet: Packet) -> bool:
    """Say whether a segment of TCP could not begin a connection."""
    return packet.protocol == TCP and packet.flags & (FIN | SYN | RST | ACK) != SYN


def _senseless(packet: Packet) -> bool:
    """Say whether a segment's flags contradict each other."""
    first = packet.flags & (FIN | SYN | RST | ACK) == SYN
    return (first and not packet.sport) or any(packet.flags & mask == value for mask, value in _NONSENSE)


def _is_dhcp(packet: Packet, *, to_server: bool) -> bool:
    """Say whether a packet is of DHCP, on its way to a server or from one."""
    client, server = (68, 67) if packet.version == 4 else (546, 547)
    wanted = (client, server) if to_server else (server, client)
    return packet.protocol == UDP and (packet.sport, packet.dport) == wanted
