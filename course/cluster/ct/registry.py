"""The running containers of a node: ``node.containers``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ...error import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

    from ..node import Node


class Running(Protocol):
    """A running container, of whatever kind."""

    vmid: int
    kind: str
    root: Path
    started: float
    taps: dict[str, int]
    ended: threading.Event
    status: int | None

    @property
    def pid(self) -> int:
        """The process that stands for it on the node."""

    def exec(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> tuple[int, bytes]:
        """Run a program in it; return its exit status and output."""

    def ask_to_end(self) -> None:
        """Ask it to shut down."""

    def kill(self) -> None:
        """End it at once."""

    def processes(self) -> list[int]:
        """Return its processes' numbers on the node."""

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes, or let them go on."""


class Containers:
    """The running containers of a node.

    Args:
        node: whose.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._running: dict[int, Running] = {}
        self._lock = threading.Lock()
        self._closing = False
        self.programs: socket.socket | None = None

    def get(self, vmid: int) -> Running | None:
        """Return a running container, or None."""
        found = self._running.get(vmid)
        return None if found is None or found.ended.is_set() else found

    def is_running(self, vmid: int) -> bool:
        """Say whether a container runs here."""
        return self.get(vmid) is not None

    def require(self, vmid: int) -> Running:
        """Return a running container.

        Raises:
            ClusterError: it does not run here.
        """
        found = self.get(vmid)
        if found is None:
            raise ClusterError(f"CT {vmid} not running")
        return found

    def exec(self, vmid: int, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> tuple[int, bytes]:
        """Run a program in a container; what ``pct exec`` does, for the lab. Proxmox VE's API has no such call.

        Args:
            vmid: the container.
            argv: the program and its arguments.
            stdin: what it reads.
            timeout_s: how long to wait.

        Returns:
            Its exit status, and what it wrote.

        Raises:
            ClusterError: it does not run here, or takes too long.
        """
        return self.require(vmid).exec(argv, stdin=stdin, timeout_s=timeout_s)

    def keep(self, vmid: int, make: Callable[[], Running]) -> Running:
        """Start a container, once.

        Raises:
            ClusterError: it runs already, or the node is going down.
        """
        with self._lock:
            if self._closing:
                raise ClusterError("node is shutting down")
            if self.is_running(vmid):
                raise ClusterError(f"CT {vmid} already running")
            self._running[vmid] = running = make()
            return running

    def close(self) -> None:
        """End all."""
        with self._lock:
            self._closing = True
            left = list(self._running.values())
        if self.programs is not None:
            self.programs.close()
        for running in left:
            running.kill()
