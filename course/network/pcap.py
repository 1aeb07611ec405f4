"""Recordings of frames that Wireshark and tcpdump open: the classic pcap format, with microseconds or nanoseconds.

Source: the file format as documented by tcpdump.org (pcap-savefile).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from ..error import UsageError

_MICRO, _NANO, _ETHERNET = 0xA1B2C3D4, 0xA1B23C4D, 1
_LIMIT = 262144


class Captured(NamedTuple):
    """One frame of a recording.

    Attributes:
        time: seconds since 1970.
        data: the frame, or its beginning.
        length: of the whole frame in bytes.
    """

    time: float
    data: bytes
    length: int


def header(snap_length: int = _LIMIT) -> bytes:
    """Return what a recording begins with."""
    return struct.pack("<IHHiIII", _MICRO, 2, 4, 0, 0, snap_length, _ETHERNET)


def record(time: float, frame: bytes, length: int | None = None) -> bytes:
    """Return one frame as it is appended to a recording.

    Args:
        time: seconds since 1970.
        frame: the frame, or its beginning.
        length: of the whole frame; None when `frame` is all of it.
    """
    seconds, micro = divmod(round(time * 1_000_000), 1_000_000)
    return struct.pack("<IIII", seconds, micro, len(frame), len(frame) if length is None else length) + frame


def dump(captured: Iterable[Captured]) -> bytes:
    """Return a whole recording."""
    return header() + b"".join(record(*one) for one in captured)


def read(source: bytes | BinaryIO) -> Iterator[Captured]:
    """Yield the frames of a recording, of either order of bytes.

    Raises:
        UsageError: it is no such recording, not of Ethernet, or it ends within a frame.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    order, unit = _begin(file.read(24))
    while begin := file.read(16):
        if len(begin) < 16:
            raise UsageError(f"the recording ends within a frame's header, after {len(begin)} of 16 bytes")
        seconds, parts, kept, length = struct.unpack(order + "IIII", begin)
        data = file.read(kept) if kept <= _LIMIT else b""
        if len(data) < kept:
            raise UsageError(f"the recording ends within a frame: {len(data)} of {kept} bytes are there")
        yield Captured(seconds + parts / unit, data, length)


def _begin(begin: bytes) -> tuple[str, float]:
    """Return the order of bytes of a recording and the fractions of a second that it counts in."""
    for order in "<>":
        if len(begin) == 24:
            magic, *_, link = struct.unpack(order + "IHHiIII", begin)
            if magic in (_MICRO, _NANO) and link & 0xFFFF == _ETHERNET:
                return order, 1e6 if magic == _MICRO else 1e9
    raise UsageError(f"no recording of Ethernet frames: it begins with {begin[:24].hex() or 'nothing'}")
