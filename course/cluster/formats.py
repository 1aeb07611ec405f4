"""Named formats of values: what a VMID, a node's name or an address looks like, and the words when it does not.

Each format is a function that returns what is wrong, or None. ``x-list`` is a list of ``x``, separated by commas,
semicolons or blanks; ``x-opt`` may be empty too. A format that is not here is not checked.

The words for VMIDs are recorded; the others are as administrators quote them, and no recording here shows them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from ..error import ClusterError
from ..network import icmp
from ..network.rules import ports, protocol_number, span
from .calendar import CalendarEvent
from .config.users import NAME, POOL, TOKEN, USER
from .roles import PRIVILEGES_8_4
from .volume import STORAGE, parse_volume_id

Format = Callable[[str], "str | None"]

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DISK_SIZE = re.compile(r"\d+(?:\.\d+)?[KMGT]?")


def _pattern(pattern: str, words: str) -> Format:
    """Return a format that is a pattern; ``{}`` in the words is the value."""
    compiled = re.compile(pattern)
    return lambda value: None if compiled.fullmatch(value) else words.format(value)


def _address(version: int | None, words: str) -> Format:
    """Return a format for addresses of a version of the Internet Protocol, or of both."""

    def wrong(value: str) -> str | None:
        try:
            parsed = ipaddress.ip_address(value)
        except ValueError:
            return words
        return None if version in (None, parsed.version) else words

    return wrong


def _network(version: int | None, words: str) -> Format:
    """Return a format for ``address/prefix``."""

    def wrong(value: str) -> str | None:
        try:
            parsed = ipaddress.ip_interface(value)
        except ValueError:
            return words
        return None if re.search(r"/\d+$", value) and version in (None, parsed.version) else words

    return wrong


def _calendar(value: str) -> str | None:
    try:
        CalendarEvent.parse(value)
    except ClusterError as error:
        return f"invalid calendar event '{value}' - {error.message}"
    return None


def _volume(value: str) -> str | None:
    try:
        parse_volume_id(value)
    except ClusterError as error:
        return error.message
    return None


def _mac(value: str) -> str | None:
    plain = re.fullmatch(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}", value)
    if plain and not int(value[:2], 16) & 1:
        return None
    return "value does not look like a valid unicast MAC address"


def _firewall_address(value: str) -> str | None:
    """The source or destination of a rule: a set, an alias, a span, or a list of one version."""
    if re.fullmatch(r"\+\S+|(?:dc/|guest/)?[A-Za-z][A-Za-z0-9\-_]+", value):
        return None
    parts = value.split(",")
    if "" in parts:
        return "extraneous commas in list"
    try:
        versions = {span(part)[0] for part in parts}
    except ValueError as error:
        return f"invalid IP address: {error}"
    if len(versions) > 1:
        return f"detected mixed ipv4/ipv6 addresses in address list '{value}'"
    return "you can't use a range in a list" if len(parts) > 1 and "-" in value else None


def _firewall_ports(value: str) -> str | None:
    try:
        ports(value)
    except ValueError as error:
        return str(error)
    return None


def _firewall_target(value: str) -> str | None:
    """The destination ports of a rule, or a kind of ICMP, which stands in the same place."""
    return None if value in icmp.V4 or value in icmp.V6 or value == icmp.ANY else _firewall_ports(value)


def _protocol(value: str) -> str | None:
    try:
        protocol_number(value)
    except ValueError:
        return f"unknown protocol '{value}'"
    return None


def _address_or_network(value: str, *, alias: bool = False) -> str | None:
    if alias and re.fullmatch(r"(?:dc/|guest/)?[A-Za-z][A-Za-z0-9\-_]+", value):
        return None
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return "value does not look like a valid IP address or CIDR network"
    return None


def _mask(value: str) -> str | None:
    try:
        ipaddress.IPv4Network(f"0.0.0.0/{value}")
    except ValueError:
        return f"value '{value}' does not look like a valid IPv4 netmask"
    return None


def _drive_volume(value: str) -> str | None:
    """A volume, a path of the node, an empty drive, or ``storage:GiB`` for a new one."""
    if value in ("none", "cdrom") or value.startswith("/"):
        return None
    return _volume(value)


FORMATS: dict[str, Format] = {
    "pve-vmid": _pattern(r"[1-9][0-9]{2,8}", "value does not look like a valid VM ID"),
    "pve-node": _pattern(_LABEL, "value does not look like a valid node name"),
    "pve-storage-id": _pattern(f"(?i:{STORAGE.pattern})", "storage ID '{}' contains illegal characters"),
    "pve-configid": _pattern(r"(?i:[a-z][a-z0-9_-]+)", "invalid configuration ID '{}'"),
    "pve-userid": _pattern(USER.pattern, "value '{}' does not look like a valid user name"),
    "pve-tokenid": _pattern(TOKEN.pattern, "value '{}' does not look like a valid token ID"),
    "pve-groupid": _pattern(NAME.pattern, "group name '{}' contains invalid characters"),
    "pve-roleid": _pattern(NAME.pattern, "role name '{}' contains invalid characters"),
    "pve-poolid": _pattern(POOL.pattern, "pool name '{}' contains invalid characters"),
    "pve-realm": _pattern(r"[A-Za-z][A-Za-z0-9.\-_]+", "value does not look like a valid realm"),
    "pve-priv": lambda value: None if value in PRIVILEGES_8_4 else f"invalid privilege '{value}'",
    "pve-iface": _pattern(r"(?i:[a-z][a-z0-9_]{1,20}(?:[:.]\d+)?)", "invalid network interface name '{}'"),
    "pve-bridge-id": _pattern(r"[-_.\w\d]+", "invalid bridge ID '{}'"),
    "pve-tag": _pattern(r"(?i:[a-z0-9_][a-z0-9_\-+.]*)", "invalid characters in tag"),
    "pve-volume-id": _volume,
    "pve-volume-id-or-qm-path": _drive_volume,
    "pve-volume-id-or-absolute-path": _drive_volume,
    "pve-calendar-event": _calendar,
    "pve-startup-order": _pattern(
        r"(?:(?:order=)?\d+|up=\d+|down=\d+)(?:,(?:(?:order=)?\d+|up=\d+|down=\d+))*",
        "unable to parse startup options",
    ),
    "pve-hotplug-features": _pattern(
        r"[01]|(?:network|disk|cpu|memory|usb|cloudinit)(?:[,; ](?:network|disk|cpu|memory|usb|cloudinit))*",
        "unable to parse hotplug option",
    ),
    "disk-size": lambda value: (
        None if _DISK_SIZE.fullmatch(value) else f"value does not look like a valid disk size: {value}"
    ),
    "mac-addr": _mac,
    "dns-name": _pattern(rf"{_LABEL}(?:\.{_LABEL})*", "value does not look like a valid DNS name"),
    "email": _pattern(
        r"[\w+\-~]+(?:\.[\w+\-~]+)*@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*", "value does not look like a valid email address"
    ),
    "urlencoded": _pattern(r"[-%a-zA-Z0-9_.!~*'()]*", "value is not urlencoded"),
    "ip": _address(None, "value does not look like a valid IP address"),
    "ipv4": _address(4, "value does not look like a valid IPv4 address"),
    "ipv6": _address(6, "value does not look like a valid IPv6 address"),
    "ipv4mask": _mask,
    "IPorCIDR": _address_or_network,
    "IPorCIDRorAlias": lambda value: _address_or_network(value, alias=True),
    "pve-fw-addr-spec": _firewall_address,
    "pve-fw-sport-spec": _firewall_ports,
    "pve-fw-dport-spec": _firewall_target,
    "pve-fw-protocol-spec": _protocol,
    "pve-fw-icmp-type-spec": lambda value: (
        None
        if value in icmp.V4 or value in icmp.V6 or value in ("", icmp.ANY)
        else f"invalid icmp-type value '{value}'"
    ),
    "pve-fw-conntrack-helper": _pattern(
        r"(?:(?:amanda|ftp|irc|netbios-ns|pptp|sane|sip|snmp|tftp)(?:,|$))*", "unknown helper {}"
    ),
    "CIDR": _network(None, "value does not look like a valid CIDR network"),
    "CIDRv4": _network(4, "value does not look like a valid IPv4 network"),
    "CIDRv6": _network(6, "value does not look like a valid IPv6 network"),
}


def wrong(name: str, value: str) -> str | None:
    """Return what is wrong with a value by the name of its format, or None."""
    if name in FORMATS:
        return FORMATS[name](value)
    if name.endswith("-opt"):
        return wrong(name.removesuffix("-opt"), value) if value else None
    if name.endswith("-list"):
        each = name.removesuffix("-list")
        words = (wrong(each, word) for word in split_list(value))
        return next((word for word in words if word), None)
    return None


def split_list(value: str) -> list[str]:
    """Split a list as Proxmox VE does: at commas, semicolons, blanks and zero bytes."""
    return [word for word in re.split(r"[,;\s\0]+", value) if word]
