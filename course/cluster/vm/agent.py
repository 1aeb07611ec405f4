"""The guest agent's protocol over the machine's socket: JSON lines, one command at a time.

What an earlier client left on the line is skipped: a delimiter byte and ``guest-sync-delimited`` with a number of our
own, whose echo tells where our conversation begins.

Source: QEMU, docs/interop/qemu-ga; qga/qapi-schema.json.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from typing import Any

from ...error import ClusterError
from . import hardware
from .running import RunningVm

NOT_CONFIGURED = "No QEMU guest agent configured"
NOT_RUNNING = "QEMU guest agent is not running"
_locks: dict[str, threading.Lock] = {}


def require(running: RunningVm | None, vmid: int, values: dict[str, str]) -> RunningVm:
    """Return a machine whose agent may be asked.

    Raises:
        ClusterError: it has no agent's line, or does not run.
    """
    if not hardware.has_agent(values):
        raise ClusterError(NOT_CONFIGURED)
    if running is None:
        raise ClusterError(f"VM {vmid} is not running")
    return running


def answers(running: RunningVm, timeout_s: float = 3) -> bool:
    """Say whether the agent is there."""
    with contextlib.suppress(ClusterError):
        execute(running, "guest-ping", timeout_s=timeout_s)
        return True
    return False


def tell(running: RunningVm, command: str, arguments: dict[str, Any] | None = None) -> None:
    """Send a command that is not answered, such as ``guest-shutdown``."""
    with _lock(running):
        line = _Line(running, running.agent_s)
        try:
            line.synchronize()
            line.send(command, arguments)
        finally:
            line.close()


def execute(
    running: RunningVm, command: str, arguments: dict[str, Any] | None = None, *, timeout_s: float | None = None
) -> Any:
    """Execute a command in the guest's agent and return its value.

    Raises:
        ClusterError: the agent is not there, or refuses; the words are Proxmox VE's.
    """
    with _lock(running):
        line = _Line(running, running.agent_s if timeout_s is None else timeout_s)
        try:
            line.synchronize()
            line.send(command, arguments)
            answer = line.receive()
        finally:
            line.close()
    if "error" in answer:
        raise ClusterError(f"Agent error: {answer['error'].get('desc', 'unknown')}")
    return answer.get("return")


def _lock(running: RunningVm) -> threading.Lock:
    return _locks.setdefault(f"{running.pid}", threading.Lock())


class _Line:
    """The connection to an agent."""

    def __init__(self, running: RunningVm, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        try:
            self._socket = running.connect("qga", timeout_s)
        except ClusterError:
            raise ClusterError(NOT_RUNNING) from None
        self._buffer = b""

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def synchronize(self) -> None:
        """Skip what is left of earlier conversations."""
        number = secrets.randbelow(1 << 31)
        self._write(b"\xff")
        self.send("guest-sync-delimited", {"id": number})
        while True:
            with contextlib.suppress(ValueError):
                if json.loads(self._read_line().rpartition(b"\xff")[2]).get("return") == number:
                    return

    def send(self, command: str, arguments: dict[str, Any] | None) -> None:
        """Send a command."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self._write(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """Return an answer."""
        while True:
            with contextlib.suppress(ValueError):
                answer: dict[str, Any] = json.loads(self._read_line())
                return answer

    def _write(self, data: bytes) -> None:
        self._in_time()
        try:
            self._socket.sendall(data)
        except OSError:
            raise ClusterError(NOT_RUNNING) from None

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._in_time()
            try:
                data = self._socket.recv(1 << 16)
            except (TimeoutError, OSError):
                raise ClusterError(NOT_RUNNING) from None
            if not data:
                raise ClusterError(NOT_RUNNING)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _in_time(self) -> None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise ClusterError(NOT_RUNNING)
        self._socket.settimeout(left)
