"""Netlink: how programs ask the kernel about its network, in raw bytes.

::

    datagram    ┌─────────────┬─────────────┬───┐      one recv() gives one datagram,
                │ message     │ message     │ … │      a datagram holds one or more messages
                └─────────────┴─────────────┴───┘
    message     0        4     6      8     12    16       32
                ┌────────┬─────┬──────┬─────┬─────┬────────┬───────────┬───────────┬──
                │ length │type │flags │ seq │ pid │ifinfo- │ attribute │ attribute │ …
                │   u32  │ u16 │ u16  │ u32 │ u32 │msg, 16 │           │           │
                └────────┴─────┴──────┴─────┴─────┴────────┴───────────┴───────────┴──
    ifinfomsg   u8 family, u8 0, u16 device type, s32 index, u32 flags, u32 change
    attribute   u16 length (header included, padding not), u16 type, payload, zeros up to a multiple of 4

All numbers are in the byte order of the machine. A long answer (a *dump*) is spread over several messages and datagrams
and ends with a message of type DONE. A refusal is a message of type ERROR, whose first word is a negated errno (zero:
an acknowledgement).

Source: netlink(7), rtnetlink(7); Linux, include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from ..error import CourseError

NOOP, ERROR, DONE = 1, 2, 3
NEWLINK, DELLINK, GETLINK, NEWADDR = 16, 17, 18, 20
REQUEST, MULTI, DUMP = 0x1, 0x2, 0x300
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_QDISC = 1, 3, 4, 6
HEADER = struct.Struct("=IHHII")
IFINFO = struct.Struct("=BxHiII")
ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16


class MalformedError(CourseError):
    """Bytes that no kernel would send; the message names the offset and the rule."""


def align(size: int) -> int:
    """Round up to a multiple of 4."""
    return size + 3 & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """Build one attribute: header, payload, padding."""
    size = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(size, kind) + payload + bytes(align(size) - size)


def message(kind: int, body: bytes, *, flags: int = MULTI, seq: int = 1) -> bytes:
    """Build one message: header and body, padded."""
    size = HEADER.size + len(body)
    return HEADER.pack(size, kind, flags, seq, 0) + body + bytes(align(size) - size)


def link(index: int, name: bytes, before: Sequence[bytes] = (), after: Sequence[bytes] = ()) -> bytes:
    """Build the message that describes one interface.

    Args:
        index: the interface's number, from 1.
        name: up to 15 bytes, without the closing zero.
        before: attributes to put before the name.
        after: attributes to put after it.
    """
    fixed = IFINFO.pack(0, 1, index, 0x1043, 0)  # family, Ethernet, index, up and running, change
    return message(NEWLINK, fixed + b"".join([*before, attribute(IFLA_IFNAME, name + b"\0"), *after]))


def done() -> bytes:
    """Build the message that ends a dump."""
    return message(DONE, struct.pack("=i", 0))


def failure(errno: int) -> bytes:
    """Build a refusal, which quotes the whole request; `errno` 0 makes an acknowledgement, which quotes its header."""
    request = request_links()
    return message(ERROR, struct.pack("=i", -errno) + (request if errno else request[: HEADER.size]), flags=0)


def request_links() -> bytes:
    """Build the request "describe every interface"."""
    return message(GETLINK, IFINFO.pack(0, 0, 0, 0, 0), flags=REQUEST | DUMP)


def dump_links() -> list[bytes]:
    """Ask this machine's kernel for its interfaces.

    Returns:
        The datagrams of the answer, as received, up to the one that holds the DONE message.
    """
    datagrams = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        kernel.bind((0, 0))
        kernel.send(request_links())
        while True:
            datagram = kernel.recv(_RECEIVE_BYTES)
            datagrams.append(datagram)
            if any(kind in (DONE, ERROR) for kind in message_types(datagram)):
                return datagrams


def message_types(datagram: bytes) -> list[int]:
    """Return the types of the messages in a datagram."""
    kinds, offset = [], 0
    while offset + HEADER.size <= len(datagram):
        size, kind, *_ = HEADER.unpack_from(datagram, offset)
        kinds.append(kind)
        offset += max(align(size), HEADER.size)
    return kinds


def validate(datagrams: Sequence[bytes]) -> None:
    """Check that a kernel could have sent these datagrams as the answer to a dump of interfaces.

    Raises:
        MalformedError: at the first byte that breaks a rule of netlink.
    """
    ended = False
    for number, datagram in enumerate(datagrams):
        offset = 0
        while offset < len(datagram):
            if ended:
                raise MalformedError(f"datagram {number}, offset {offset}: a message after the end of the dump")
            size, kind = _header(datagram, offset, f"datagram {number}, offset {offset}")
            if kind == NEWLINK:
                _validate_link(datagram, offset, size, f"datagram {number}")
            ended = kind in (DONE, ERROR)
            offset += align(size)
    if not ended:
        raise MalformedError("the dump does not end with a DONE or an ERROR message")


def _header(datagram: bytes, offset: int, where: str) -> tuple[int, int]:
    if offset + HEADER.size > len(datagram):
        raise MalformedError(f"{where}: {len(datagram) - offset} bytes are left, a message header has {HEADER.size}")
    size, kind, *_ = HEADER.unpack_from(datagram, offset)
    least = HEADER.size + {ERROR: 4, DONE: 4, NEWLINK: IFINFO.size}.get(kind, 0)
    if not least <= size <= len(datagram) - offset:
        left = len(datagram) - offset
        raise MalformedError(f"{where}: message length {size}; expected {least} to {left}, which is what is left")
    if kind not in (NOOP, ERROR, DONE, NEWLINK, NEWADDR, DELLINK):
        raise MalformedError(f"{where}: message type {kind} is no answer to this request")
    return size, kind


def _validate_link(datagram: bytes, start: int, size: int, where: str) -> None:
    offset, end, names = start + HEADER.size + IFINFO.size, start + size, 0
    while offset < end:
        if offset + ATTRIBUTE.size > end:
            raise MalformedError(f"{where}, offset {offset}: {end - offset} bytes are left, an attribute header has 4")
        length, kind = ATTRIBUTE.unpack_from(datagram, offset)
        if not ATTRIBUTE.size <= length <= end - offset:
            raise MalformedError(f"{where}, offset {offset}: attribute length {length}; expected 4 to {end - offset}")
        if kind == IFLA_IFNAME:
            names += 1
            _validate_name(datagram[offset + 4 : offset + length], f"{where}, offset {offset}")
        offset += align(length)
    if names != 1:
        raise MalformedError(f"{where}, offset {start}: {names} names for one interface")


def _validate_name(payload: bytes, where: str) -> None:
    name = payload[:-1]
    bad = not 1 <= len(name) <= 15 or payload[-1:] != b"\0" or name in (b".", b"..")
    if bad or any(c in b"\0/:" or bytes([c]).isspace() for c in name):
        raise MalformedError(f"{where}: {payload!r} is no interface name (1 to 15 bytes, no / : or space; then a zero)")
