"""What a rule of a firewall matches, in a form that is quickly asked about each packet.

A rule's text (``-p tcp -source +admins -dport 80,443:445``) becomes a `Match`: numbers and ranges of numbers. Who reads
the text knows where names of sets and aliases come from, and hands over `Addresses`.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from . import icmp, macros
from .packet import PORTS, Packet

Action = Literal["ACCEPT", "DROP", "REJECT"]
Range = tuple[int, int]
_MOST_PORTS = 15
_ICMP_NAMES = {"icmp": 4, "icmpv6": 6, "ipv6-icmp": 6, "1": 4, "58": 6}
_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 94, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
    "icmpv6": 58, "ipv6-icmp": 58, "ospf": 89, "vrrp": 112, "sctp": 132, "udplite": 136,
}  # fmt: skip
_SERVICES = {
    "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "http": 80,
    "www": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111, "ntp": 123, "imap2": 143, "imap": 143, "snmp": 161,
    "bgp": 179, "ldap": 389, "https": 443, "submission": 587, "syslog": 514, "ldaps": 636, "domain-s": 853,
    "imaps": 993, "pop3s": 995, "openvpn": 1194, "mysql": 3306, "postgresql": 5432, "http-alt": 8080,
}  # fmt: skip


class Addresses:
    """A set of addresses: networks, and networks within them that are left out.

    The narrowest network that holds an address decides, as in the kernel's sets.

    Args:
        networks: as ``10.0.0.0/8``, ``10.0.0.1`` or, for a span, ``10.0.0.1-10.0.0.9``.
        without: networks that are left out.

    Raises:
        ValueError: one of them is no network.
    """

    __slots__ = ("_spans", "versions")

    def __init__(self, networks: Iterable[str] = (), without: Iterable[str] = ()) -> None:
        spans = [(*span(text), True) for text in networks] + [(*span(text), False) for text in without]
        self._spans = sorted(spans, key=lambda found: (found[2] - found[1], found[3]))
        self.versions = frozenset(found[0] for found in spans)

    def holds(self, version: int, address: int) -> bool:
        """Say whether an address, as a number, is in the set."""
        for of, first, last, inside in self._spans:
            if of == version and first <= address <= last:
                return inside
        return False


def span(text: str) -> tuple[int, int, int]:
    """Return the version of a network and its first and last address as numbers.

    Raises:
        ValueError: it is none.
    """
    first, dash, last = text.partition("-")
    if dash:
        ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
        if ends[0].version != ends[1].version or int(ends[0]) > int(ends[1]):
            raise ValueError(f"'{text}' does not appear to be a span of addresses")
        return ends[0].version, int(ends[0]), int(ends[1])
    network = ipaddress.ip_interface(text).network
    return network.version, int(network.network_address), int(network.broadcast_address)


@functools.lru_cache(maxsize=512)
def protocol_number(name: str) -> int:
    """Return the number of a protocol.

    Raises:
        ValueError: nobody knows it.
    """
    if name.isdecimal() and int(name) < 256:
        return int(name)
    if name.lower() in _PROTOCOLS:
        return _PROTOCOLS[name.lower()]
    try:
        return socket.getprotobyname(name)
    except OSError:
        raise ValueError(f"invalid protocol '{name}'") from None


@functools.lru_cache(maxsize=512)
def ports(text: str) -> tuple[Range, ...]:
    """Return the ranges of ports that a rule means: ``80``, ``22,80``, ``5900:5999``, ``ssh``.

    Raises:
        ValueError: it means none; the words are Proxmox VE's.
    """
    found, numbers = list[Range](), 0
    for word in text.split(","):
        if not word:
            raise ValueError("extraneous commas in list")
        first, colon, last = word.partition(":")
        if first.isdecimal() and (last.isdecimal() if colon else not last):
            ends = int(first), int(last or first)
            for port in ends:
                if port > 65535:
                    raise ValueError(f"invalid port '{port}'")
            if ends[0] > ends[1]:
                raise ValueError(f"backwards range '{first}:{last}' not allowed, did you mean '{last}:{first}'?")
            numbers += 2 if colon else 1
            found.append(ends)
        else:
            found.append((_service(word),) * 2)
    if numbers > _MOST_PORTS:
        raise ValueError("too many entries in port list (> 15 numbers)")
    return tuple(found)


def _service(name: str) -> int:
    """Return a service's port."""
    if name in _SERVICES:
        return _SERVICES[name]
    try:
        return socket.getservbyname(name)
    except OSError:
        raise ValueError(f"invalid port '{name}'") from None


@dataclass(frozen=True, slots=True)
class Match:
    """What a packet has to be.

    Attributes:
        version: of the Internet Protocol; 0 for both.
        protocol: its number, or None for any.
        source, dest: its addresses, or None for any.
        sports, dports: its ports, or empty for any.
        icmp: its kind of ICMP, or None for any.
    """

    version: int = 0
    protocol: int | None = None
    source: Addresses | None = None
    dest: Addresses | None = None
    sports: tuple[Range, ...] = ()
    dports: tuple[Range, ...] = ()
    icmp: icmp.Kind | None = None

    def holds(self, packet: Packet) -> bool:
        """Say whether a packet is so."""
        if self.protocol is not None and packet.protocol != self.protocol:
            return False
        if self.version and packet.version != self.version:
            return False
        if self.source is not None and not self.source.holds(packet.version, packet.src):
            return False
        if self.dest is not None and not self.dest.holds(packet.version, packet.dst):
            return False
        if self.icmp is not None and not _same_kind(self.icmp, packet.icmp):
            return False
        return _within(self.sports, packet.sport) and _within(self.dports, packet.dport)


def _same_kind(wanted: icmp.Kind, found: tuple[int, int] | None) -> bool:
    return found is not None and wanted[0] == found[0] and wanted[1] in (None, found[1])


def _within(ranges: tuple[Range, ...], port: int) -> bool:
    return not ranges or any(first <= port <= last for first, last in ranges)


def matches(
    *,
    proto: str = "",
    source: Addresses | None = None,
    dest: Addresses | None = None,
    sport: str = "",
    dport: str = "",
    icmp_type: str = "",
    macro: str = "",
) -> tuple[Match, ...]:
    """Return what a rule matches: one of several alternatives, where it uses a macro.

    Raises:
        ValueError: the fields cannot be meant; the words are Proxmox VE's.
    """
    if macro:
        return _macro(macro, proto, source, dest, sport, dport, icmp_type)
    if not proto:
        if dport or sport or icmp_type:
            which = "dport" if dport else "sport" if sport else "icmp-type"
            raise ValueError(f"missing property - '{which}' requires this property")
        return (Match(source=source, dest=dest),)
    number, of = protocol_number(proto), _ICMP_NAMES.get(proto, 0)
    base = Match(of, number, source, dest)
    if of:
        if sport:
            raise ValueError(f"protocol '{proto}' does not support ports")
        wanted = icmp_type or dport
        return (replace(base, icmp=icmp.kind(wanted, of) if wanted else None),)
    if (dport or sport) and number not in PORTS:
        raise ValueError(f"protocol '{proto}' does not support ports")
    return (replace(base, sports=ports(sport) if sport else (), dports=ports(dport) if dport else ()),)


def _macro(  # noqa: PLR0917 - the fields of a rule
    name: str, proto: str, source: Addresses | None, dest: Addresses | None, sport: str, dport: str, icmp_type: str
) -> tuple[Match, ...]:
    """Return what a macro stands for, in both versions."""
    known = macros.NAMES.get(name.lower())
    if known is None:
        raise ValueError(f"unknown macro '{name}'")
    found: dict[Match, None] = {}
    for version in (4, 6):
        for part in macros.alternatives(known, version):
            for what, own, given in (("proto", part.proto, proto), ("dport", part.dport, dport)):
                if own and given and own != given:
                    raise ValueError(f"parameter '{what}' already define in macro (value = '{own}')")
            made = matches(
                proto=part.proto,
                source=source,
                dest=dest,
                sport=part.sport or sport,
                dport=part.dport or dport,
                icmp_type=icmp_type,
            )
            found.update(dict.fromkeys(replace(one, version=one.version or version) for one in made))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        action: what becomes of a packet.
        matches: alternatives; one of them has to hold.
        text: the rule as it is written, for logs and counters.
        log: level of the log, or empty.
    """

    action: Action
    matches: tuple[Match, ...]
    text: str = ""
    log: str = ""

    def holds(self, packet: Packet) -> bool:
        """Say whether the rule is about a packet."""
        return any(match.holds(packet) for match in self.matches)
