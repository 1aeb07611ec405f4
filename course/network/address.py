"""Addresses of network cards as people write them and as they travel."""

from __future__ import annotations

import ipaddress

from ..error import UsageError

BROADCAST = b"\xff" * 6


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of ``BC:24:11:00:00:01``.

    Raises:
        UsageError: it is no such address.
    """
    try:
        raw = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != 6:
        raise UsageError(f"{mac!r} is no MAC address; expected six bytes such as bc:24:11:00:00:01")
    return raw


def mac_text(raw: bytes) -> str:
    """Return six bytes as ``bc:24:11:00:00:01``."""
    return raw.hex(":")


def ip_bytes(address: str) -> bytes:
    """Return the 4 or 16 bytes of an address of either version.

    Raises:
        UsageError: it is no address.
    """
    try:
        return ipaddress.ip_address(address).packed
    except ValueError:
        raise UsageError(f"{address!r} is no IP address; expected one such as 10.0.0.1 or fd00::1") from None


def ip_text(raw: bytes) -> str:
    """Return 4 or 16 bytes as an address."""
    return str(ipaddress.ip_address(raw))


def link_local(mac: bytes) -> bytes:
    """Return the IPv6 address that a card makes of its own address (EUI-64).

    Source: RFC 4291, appendix A.
    """
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]
