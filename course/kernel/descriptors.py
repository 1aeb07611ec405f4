"""File descriptors: small numbers that stand for something that the kernel holds open for one process.

The number means nothing to another process: descriptor 3 of one is not descriptor 3 of the other. A Unix socket can
carry a descriptor across (`SCM_RIGHTS`): the kernel then opens a *new* number in the receiver for the *same* open file,
its read position included.

Source: unix(7), memfd_create(2).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType

from .listener import Listener

_MAX_FDS = 8
_LIMIT_BYTES = 16 << 20


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """List the open descriptors of a process of yours: number → what it is, as the kernel names it."""
    folder = Path("/proc", str(pid), "fd")
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda e: int(e.name)):
        with contextlib.suppress(OSError):  # the one that reads this folder is closed by now
            found[int(entry.name)] = str(entry.readlink())
    return found


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What arrived on one connection.

    Attributes:
        data: the ordinary bytes.
        contents: the whole content of each descriptor that came along.
        kinds: what the kernel calls each of them, such as ``"/memfd:x (deleted)"``.
    """

    data: bytes
    contents: tuple[bytes, ...]
    kinds: tuple[str, ...]


def kinds(pid: int | str = "self") -> collections.Counter[str]:
    """Count the open descriptors of a process of yours by kind: names without what tells two of a kind apart."""
    return collections.Counter(
        re.sub(r"[\d\[\]:]+|\(deleted\)", "", name).strip("/ ") for name in open_descriptors(pid).values()
    )


def _kinds_of_peer(client: socket.socket) -> collections.Counter[str]:
    """Count the descriptors of whoever is at the other end; nothing where the kernel does not tell or let us look."""
    with contextlib.suppress(OSError, AttributeError):
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return kinds(pid)
    return collections.Counter()


class Mailbox(Listener):
    """Receives what others send to its address, descriptors included.

    Attributes:
        path: the address, a Unix stream socket.
        deliveries: what arrived, one entry per connection.
        seen: what each client had open when it was met, counted by kind; some may be closed a moment later.
    """

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.seen: list[collections.Counter[str]] = []
        self._arrived = threading.Condition()
        super().__init__("mailbox")

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def wait(self, count: int, timeout_s: float = 2.0) -> list[Delivery]:
        """Return the deliveries once there are `count` of them, or after `timeout_s`."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.deliveries) >= count, timeout_s)
            return list(self.deliveries)

    def _meet(self, client: socket.socket) -> None:
        self.seen.append(_kinds_of_peer(client))
        data, fds = b"", []
        with contextlib.suppress(OSError):
            while len(data) < _LIMIT_BYTES:
                chunk, passed, _, _ = socket.recv_fds(client, 1 << 16, _MAX_FDS)
                fds += passed
                if not chunk:
                    break
                data += chunk
        kinds = tuple(str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in fds)
        contents = tuple(_content(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
        with self._arrived:
            self.deliveries.append(Delivery(data, contents, kinds))
            self._arrived.notify_all()


class Dispenser(Listener):
    """Hands one descriptor to whoever connects: a memfd with `content`, its position at `position`.

    Attributes:
        path: the address, a Unix stream socket.
        seen: what each client had open when it was met, counted by kind.
    """

    def __init__(self, content: bytes, *, position: int = 0) -> None:
        self.seen: list[collections.Counter[str]] = []
        self._fd = os.memfd_create("parcel")
        os.write(self._fd, content)
        os.lseek(self._fd, position, os.SEEK_SET)
        super().__init__("dispenser")

    def __enter__(self) -> Dispenser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _meet(self, client: socket.socket) -> None:
        self.seen.append(_kinds_of_peer(client))
        socket.send_fds(client, [b"parcel"], [self._fd])

    def close(self) -> None:
        """Stop listening and close the descriptor."""
        super().close()
        os.close(self._fd)


def _content(fd: int) -> bytes:
    """Everything in an open file, whatever its position; empty when it is not a file."""
    try:
        return os.pread(fd, _LIMIT_BYTES, 0)
    except OSError:
        return b""
