"""Two Unix datagram sockets, for frames in and frames out.

::

    switch  in  ◀── bound to <path> ───────────── QEMU sends here           -netdev dgram, remote
            out ─── connected to <path>.vm ─────▶ QEMU bound this           -netdev dgram, local

A datagram is a frame: there is nothing to take apart and no connection to lose. `out` is connected so that epoll can
say when the other side takes frames again: its queue holds ten or so (net.unix.max_dgram_qlen). What does not fit waits
here, and what does not fit here is dropped, as a card does. Who is not there gets nothing; when a new process binds the
path, the next frame finds it.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .loop import BATCH, Loop

LARGEST = 65536 + 64
WAITING = 256
_GONE = (ConnectionRefusedError, FileNotFoundError, ConnectionResetError, BrokenPipeError, PermissionError)


class Outgoing:
    """Frames to one path.

    Args:
        loop: that says when the other side has room.
        path: of the other side's socket, which may not exist yet.
        waiting: how many frames may wait.
    """

    def __init__(self, loop: Loop, path: Path, waiting: int = WAITING) -> None:
        self._loop = loop
        self._path = str(path)
        self._limit = waiting
        self._waiting: deque[bytes] = deque()
        self._socket: socket.socket | None = None

    def send(self, frame: bytes) -> bool:
        """Send a frame, or keep it until there is room; say whether it was taken."""
        if self._waiting:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.append(frame)
            return True
        return self._try(frame)

    def _try(self, frame: bytes) -> bool:
        for _ in range(2):  # a second time, when a new process has taken the place of one that ended
            try:
                self._connected().send(frame)
                return True
            except BlockingIOError:
                self._wait(frame)
                return True
            except _GONE:
                self.close()
            except OSError:  # too long for a datagram, or no memory: this frame is lost, the next may not be
                return False
        return False

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.setblocking(False)
                made.connect(self._path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _wait(self, frame: bytes) -> None:
        """Keep a frame and be told when there is room."""
        assert self._socket is not None
        self._waiting.append(frame)
        self._loop.add(self._socket.fileno(), select.EPOLLOUT, self._flush)

    def _flush(self, events: int, now: float) -> None:
        """Send what waited."""
        if self._socket is None:
            return
        try:
            while self._waiting:
                self._socket.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._loop.remove(self._socket.fileno())

    def close(self) -> None:
        """Let go of the socket and of what waited."""
        self._waiting.clear()
        if self._socket is not None:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None


class Incoming:
    """Frames that others send to one path.

    Args:
        loop: that says when some came.
        path: that this binds; a file that is there is replaced.
        take: gets each frame and the time.
    """

    def __init__(self, loop: Loop, path: Path, take: Callable[[bytes, float], None]) -> None:
        self._loop = loop
        self._path = path
        self._take = take
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        loop.add(self._socket.fileno(), select.EPOLLIN, self._ready)

    def _ready(self, events: int, now: float) -> None:
        for _ in range(BATCH):
            try:
                frame = self._socket.recv(LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            self._take(frame, now)

    def close(self) -> None:
        """Take no more frames, and remove the path."""
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
