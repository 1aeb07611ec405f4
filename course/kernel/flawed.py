"""A parser of netlink dumps that looks right, answers right on most machines, and is wrong: for a bug hunt."""

from __future__ import annotations

import struct


def parse_links(datagrams: list[bytes]) -> list[tuple[int, str]]:
    """Return (index, name) of every interface in a netlink dump. It passed code review. It should not have."""
    links: list[tuple[int, str]] = []
    for datagram in datagrams:
        offset = 0
        while offset < len(datagram):
            length, kind, _, _, _ = struct.unpack_from("=IHHII", datagram, offset)
            if kind == 3:  # DONE
                return links
            if kind == 16:  # NEWLINK
                (index,) = struct.unpack_from("=i", datagram, offset + 20)
                at = offset + 32
                while at < offset + length:
                    size, attribute = struct.unpack_from("=HH", datagram, at)
                    if attribute == 3:  # IFNAME
                        links.append((index, datagram[at + 4 : at + size - 1].decode()))
                        break
                    at += size
            offset += (length + 3) // 4 * 4
    return links
