"""Calls of a notebook's functions from outside: the other end of an answer that is `Elsewhere`.

A grader does not judge in the process that it judges. It starts this service in the notebook's kernel, where the
functions are, and asks it over a Unix socket to call one of them; the call is made in a forked child, as `call` does
in a notebook. Only plain data crosses, in both directions.

    asks       one connection for each: length (8 bytes, big endian) and plain data
               {"name": …, "arguments": [(args, kwargs), …], "deadline_s": …, "descriptors": …}
               or {"values": [name, …]}
    is told    length and ("ended", reply of the child, exit code), ("late",), ("missing", name)

Who asks believes nothing of what is said here: it is the student's process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any

from .answer import Ended, Request, in_child
from .reply import MAX_REPLY_BYTES, NotPlainError, decode, encode, plain

_LENGTH = struct.Struct(">Q")
MAX_FRAME_BYTES = MAX_REPLY_BYTES + (1 << 20)
_LOOK_S = 10.0


class FrameError(OSError):
    """The other side sent no frame, too large a frame, or not in time."""


def serve(path: str, namespace: Mapping[str, Any]) -> None:
    """Serve calls of what `namespace` names at the socket `path`, from a thread, as long as the process lives."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - of a kernel that is gone
    listener.bind(path)
    listener.listen(64)
    threading.Thread(target=_accept, args=(listener, namespace), name="calls of answers", daemon=True).start()


def send_frame(end: socket.socket, value: Any) -> None:
    """Send plain data."""
    data = encode(value)
    end.sendall(_LENGTH.pack(len(data)) + data)


def receive_frame(end: socket.socket, deadline: float, *, bounded: bool = True) -> Any:
    """Receive plain data until `deadline` (monotonic seconds); `bounded` as for `decode`.

    Raises:
        FrameError: it did not come, not in time, or is too large.
        NotPlainError: it is not plain data.
    """
    [length] = _LENGTH.unpack(_exactly(end, _LENGTH.size, deadline))
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are read")
    data = _exactly(end, length, deadline)
    try:
        return decode(data, bounded=bounded)
    except NotPlainError:
        raise
    except Exception as error:  # whatever unpickling made of it
        raise FrameError(f"not a frame: {type(error).__name__}") from None


def _exactly(end: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise FrameError(f"{len(data)} of {size} bytes came in time")
        end.settimeout(left)
        try:
            chunk = end.recv(min(size - len(data), 1 << 20))
        except TimeoutError:
            continue
        if not chunk:
            raise FrameError(f"the connection ended after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def _accept(listener: socket.socket, namespace: Mapping[str, Any]) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_meet, args=(client, namespace), daemon=True).start()


def _meet(client: socket.socket, namespace: Mapping[str, Any]) -> None:
    with client, contextlib.suppress(Exception):
        asked = receive_frame(client, time.monotonic() + _LOOK_S, bounded=False)
        send_frame(client, _told(asked, namespace))


def _told(asked: dict[str, Any], namespace: Mapping[str, Any]) -> tuple[Any, ...]:
    if "values" in asked:
        names = asked["values"]
        return _said(in_child(lambda: _looked_up(names, namespace), Request([((), {})], _LOOK_S)))
    name = asked["name"]
    if name not in namespace:
        return ("missing", name)
    request = Request(asked["arguments"], asked["deadline_s"], asked["descriptors"])
    return _said(in_child(namespace[name], request))


def _said(ended: Ended) -> tuple[Any, ...]:
    return ("late",) if ended.reply is None else ("ended", ended.reply, ended.exitcode)


def _looked_up(names: list[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data in a list of one, other things as their type's name; what is not there is left out."""
    found: dict[str, Any] = {}
    for name in names:
        if name in namespace:
            try:
                found[name] = [plain(namespace[name])]
            except NotPlainError:
                found[name] = type(namespace[name]).__name__
    return found
