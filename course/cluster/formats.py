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
