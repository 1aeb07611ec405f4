"""Ethernet frames that a check sends to a guest: a ping, and the beginning of a TCP connection.

Source: RFC 791, 792, 9293; IEEE 802.3.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

_IPV4, _ARP, _ICMP, _TCP = 0x0800, 0x0806, 1, 6
_BROADCAST = "FF:FF:FF:FF:FF:FF"
_BALLAST = b"c" * 1000
"""Makes our frames heavy: what a guest receives is counted in bytes, and others may speak on the bridge too."""


def send_frames(path: Path, frames: Sequence[bytes]) -> None:
    """Send frames to a switch's Unix datagram socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        for frame in frames:
            wire.sendto(frame, str(path))


def ping(source_mac: str, target_mac: str, sequence: int) -> bytes:
    """An ICMP echo request in an Ethernet frame."""
    body = struct.pack("!BBHHH", 8, 0, 0, 0x169, sequence) + _BALLAST
    body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    return _ethernet(source_mac, target_mac, _ip(_ICMP, body))


def syn(source_mac: str, target_mac: str, port: int, source_port: int) -> bytes:
    """The first segment of a TCP connection, in an Ethernet frame."""
    header = struct.pack("!HHIIBBHHH", source_port, port, 1000, 0, 5 << 4, 0x02, 64240, 0, 0)
    pseudo = _SOURCE + _TARGET + struct.pack("!BBH", 0, _TCP, len(header) + len(_BALLAST))
    header = header[:16] + struct.pack("!H", _checksum(pseudo + header + _BALLAST)) + header[18:]
    return _ethernet(source_mac, target_mac, _ip(_TCP, header + _BALLAST))


def arp(source_mac: str) -> bytes:
    """A question that goes to all and that no firewall of packets looks at."""
    hardware = bytes.fromhex(source_mac.replace(":", ""))
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + hardware + _SOURCE + bytes(6) + _TARGET
    return _ethernet(source_mac, _BROADCAST, body, _ARP)


_SOURCE, _TARGET = bytes([10, 0, 0, 7]), bytes([10, 0, 0, 169])


def _ip(protocol: int, body: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, _SOURCE, _TARGET)
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + body


def _ethernet(source_mac: str, target_mac: str, packet: bytes, kind: int = _IPV4) -> bytes:
    addresses = bytes.fromhex(target_mac.replace(":", "")) + bytes.fromhex(source_mac.replace(":", ""))
    return (addresses + struct.pack("!H", kind) + packet).ljust(60, b"\0")


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
