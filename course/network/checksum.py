"""The checksum of the Internet: the same sum in IPv4's header, ICMP, TCP and UDP.

Source: RFC 1071, with its examples in the tests; the pseudo headers of RFC 9293 (3.1), RFC 768 and RFC 8200 (8.1).
"""

from __future__ import annotations

import sys


def checksum(data: bytes) -> int:
    """Return the 16-bit complement of the one's complement sum of all 16-bit words; 0 when a sum is included and right.

    Args:
        data: any bytes; an odd last one counts as if a zero followed.
    """
    if len(data) & 1:
        data += b"\0"
    total = sum(memoryview(data).cast("H"))  # the sum does not care about the order of bytes, until the end
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    total = ~total & 0xFFFF
    return total if sys.byteorder == "big" else (total & 0xFF) << 8 | total >> 8


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """Return what TCP, UDP and ICMPv6 sum up besides themselves, so that a packet at a wrong address is noticed.

    Args:
        source: 4 or 16 bytes.
        destination: as many.
        protocol: such as 6 for TCP.
        length: of the segment, header included, in bytes.
    """
    if len(source) == 4:
        return source + destination + bytes((0, protocol)) + length.to_bytes(2, "big")
    return source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
