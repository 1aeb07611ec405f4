"""Kinds of ICMP messages by name: type and code; a code of None stands for all codes of the type.

Source: RFC 792, RFC 4443 and the registries of the IANA; the names are those of iptables.
"""

from __future__ import annotations

Kind = tuple[int, "int | None"]

V4: dict[str, Kind] = {
    "echo-reply": (0, None),
    "destination-unreachable": (3, None),
    "network-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "source-route-failed": (3, 5),
    "network-unknown": (3, 6),
    "host-unknown": (3, 7),
    "network-prohibited": (3, 9),
    "host-prohibited": (3, 10),
    "TOS-network-unreachable": (3, 11),
    "TOS-host-unreachable": (3, 12),
    "communication-prohibited": (3, 13),
    "host-precedence-violation": (3, 14),
    "precedence-cutoff": (3, 15),
    "source-quench": (4, None),
    "redirect": (5, None),
    "network-redirect": (5, 0),
    "host-redirect": (5, 1),
    "TOS-network-redirect": (5, 2),
    "TOS-host-redirect": (5, 3),
    "echo-request": (8, None),
    "router-advertisement": (9, None),
    "router-solicitation": (10, None),
    "time-exceeded": (11, None),
    "ttl-zero-during-transit": (11, 0),
    "ttl-zero-during-reassembly": (11, 1),
    "parameter-problem": (12, None),
    "ip-header-bad": (12, 0),
    "required-option-missing": (12, 1),
    "timestamp-request": (13, None),
    "timestamp-reply": (14, None),
    "address-mask-request": (17, None),
    "address-mask-reply": (18, None),
}

V6: dict[str, Kind] = {
    "destination-unreachable": (1, None),
    "no-route": (1, 0),
    "communication-prohibited": (1, 1),
    "beyond-scope": (1, 2),
    "address-unreachable": (1, 3),
    "port-unreachable": (1, 4),
    "failed-policy": (1, 5),
    "reject-route": (1, 6),
    "packet-too-big": (2, None),
    "time-exceeded": (3, None),
    "ttl-zero-during-transit": (3, 0),
    "ttl-zero-during-reassembly": (3, 1),
    "parameter-problem": (4, None),
    "bad-header": (4, 0),
    "unknown-header-type": (4, 1),
    "unknown-option": (4, 2),
    "echo-request": (128, None),
    "echo-reply": (129, None),
    "router-solicitation": (133, None),
    "router-advertisement": (134, None),
    "neighbor-solicitation": (135, None),
    "neighbour-solicitation": (135, None),
    "neighbor-advertisement": (136, None),
    "neighbour-advertisement": (136, None),
    "redirect": (137, None),
}

ANY = "any"


def kind(name: str, version: int) -> Kind | None:
    """Return a kind of message by its name or number, such as ``echo-request``, ``8`` or ``3/4``; None for any.

    Raises:
        ValueError: there is no such kind in this version.
    """
    if name == ANY:
        return None
    table = V4 if version == 4 else V6
    if name in table:
        return table[name]
    number, _, code = name.partition("/")
    if number.isdecimal() and int(number) < 256 and (not code or (code.isdecimal() and int(code) < 256)):
        return int(number), int(code) if code else None
    raise ValueError(f"unknown icmp-type '{name}'")
