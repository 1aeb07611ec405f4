"""Who is there: which nodes live and are connected, and whether they are enough to decide.

Each node holds a lock on a file, ``<run>/<node>/alive``, which the kernel takes from it the moment it dies, and touches
that file now and then, in case it hangs. A file ``<run>/<node>/unplugged`` says that its network cable is out. Locks
are asked about without being taken (F_GETLK), so that asking disturbs nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from pathlib import Path

from ..error import ClusterError

ALIVE, UNPLUGGED = "alive", "unplugged"
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Members:
    """The cluster's nodes as one of them sees them.

    Args:
        run: the folder of sockets.
        nodes: all names.
        own: whose view this is; empty for one who watches from outside.
        seen_within_s: how long a node that hangs counts as alive.
    """

    def __init__(self, run: Path, nodes: tuple[str, ...], own: str = "", seen_within_s: float = 30) -> None:
        self.run = run
        self.nodes = nodes
        self.own = own
        self.seen_within_s = seen_within_s
        self._cables = {node: str(run / node / UNPLUGGED) for node in nodes}
        self._handle: int | None = None
        self._watched: dict[str, int] = {}

    def join(self) -> None:
        """Live: take the lock, which ends with this process.

        Raises:
            ClusterError: another process is this node.
        """
        folder = self.run / self.own
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise ClusterError(f"node '{self.own}' is running already") from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle

    def beat(self) -> None:
        """Show that this node does not hang."""
        if self._handle is not None:
            os.utime(self._handle)

    def leave(self) -> None:
        """Let go of the lock."""
        handle, self._handle = self._handle, None
        for watched in self._watched.values():
            os.close(watched)
        self._watched.clear()
        if handle is not None:
            os.close(handle)

    def running(self, node: str) -> bool:
        """Say whether a node's process lives and has not hung for long; its cable does not matter."""
        if node == self.own and self._handle is not None:
            return True
        return self._holder(node) is not None

    def pid(self, node: str) -> int | None:
        """Return the process that a node is, or None."""
        return os.getpid() if node == self.own and self._handle is not None else self._holder(node)

    def _holder(self, node: str) -> int | None:
        """Return who holds a node's lock; None for nobody, or for one that was not seen lately."""
        handle = self._watched.get(node)
        if handle is None:
            try:
                handle = os.open(self.run / node / ALIVE, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return None
            self._watched[node] = handle
        with contextlib.suppress(OSError):
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(handle, fcntl.F_GETLK, asked))
            late = time.time() - os.fstat(handle).st_mtime > self.seen_within_s
            return None if kind == fcntl.F_UNLCK or late else int(pid)
        return None

    def plugged(self, node: str) -> bool:
        """Say whether a node's network cable is in."""
        return not os.path.exists(self._cables[node])  # noqa: PTH110 - on the way of each answer

    def online(self, node: str) -> bool:
        """Say whether a node lives and can be reached from here; it always reaches itself."""
        if node == self.own:
            return True
        return self.plugged(node) and (not self.own or self.plugged(self.own)) and self.running(node)

    def alive(self) -> list[str]:
        """Return the nodes that are there, as seen from here."""
        return [node for node in self.nodes if self.online(node)]

    @property
    def votes_needed(self) -> int:
        """How many nodes decide: more than half."""
        return len(self.nodes) // 2 + 1

    def quorate(self) -> bool:
        """Say whether enough nodes are there to decide."""
        return len(self.alive()) >= self.votes_needed
