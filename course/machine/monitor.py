"""QMP from synchronous code: `qemu.qmp` on the background loop, and a short way to it.

`qemu.qmp` speaks the protocol: greeting, negotiation, framing, parsing, disconnection. Its `execute()` serves code that
lives on the loop. A caller in another thread would pay for a task, two queues, a future and a wake-up of the loop per
command, so there is a direct route for such callers, at the hooks that `qemu.qmp` has for its subclasses::

    caller's thread                      loop's thread
    ───────────────                      ─────────────
    register a call under its id
    write the line to the socket
    wait on a lock                       read, parse
                ◀─────────────────────── _on_message: look the id up, release the lock
    read the reply

After negotiation nothing else writes to the socket, so lines cannot mix; a lock keeps callers apart. Replies to
unknown ids go their usual way.

QEMU reads its monitor byte by byte (``monitor_can_read`` asks for one at a time), 2 µs each: a line is as short as
can be, and the id is the smallest integer that no other call is using, nearly always 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, Runstate
from qemu.qmp.message import Message
from qemu.qmp.models import ErrorResponse

from ..error import UsageError
from .loop import Background, background

_ENCODER = json.JSONEncoder(separators=(",", ":"))


class MonitorClosed(Exception):  # noqa: N818 - a state
    """The monitor's connection ended before the reply came."""


class _Call:
    """One command under way."""

    __slots__ = ("_done", "reply")

    def __init__(self) -> None:
        self.reply: Message | None = None
        self._done = threading.Lock()  # the cheapest thing that one thread can wait for and another release
        self._done.acquire()

    def finish(self, reply: Message | None) -> None:
        self.reply = reply
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        return self._done.acquire(timeout=timeout_s)


class _Client(QMPClient):
    """`QMPClient` with a direct route for other threads, and events handed to a function."""

    def __init__(self, name: str, on_event: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(name)
        self.remove_all_listeners()
        self.calls: dict[int, _Call] = {}
        self._on_event = on_event

    def remove_all_listeners(self) -> None:
        """Drop the default listener, which would keep every event forever."""
        self._listeners.clear()

    async def _event_dispatch(self, msg: Message) -> None:
        self._on_event(dict(msg))
        await super()._event_dispatch(msg)

    async def _on_message(self, msg: Message) -> None:
        ident = msg.get("id")
        call = self.calls.pop(ident, None) if isinstance(ident, int) else None
        if call is None:
            await super()._on_message(msg)
        else:
            call.finish(msg)

    def _cb_inbound(self, msg: Message) -> Message:
        # The base class formats each message for its debug log, read or not.
        return super()._cb_inbound(msg) if self.logger.isEnabledFor(logging.DEBUG) else msg


class Monitor:
    """A QMP connection used from any thread.

    Args:
        name: for logs.
        on_event: called on the loop's thread with each event.
        on_end: called on the loop's thread, once, when the connection has ended.
    """

    def __init__(self, name: str, on_event: Callable[[dict[str, Any]], None], on_end: Callable[[], None]) -> None:
        # Without a handler of its own, Python would print this logger's warnings on stderr, that is in the notebook.
        logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
        self._background: Background = background()
        self._client = _Client(name, on_event)
        self._on_end = on_end
        self._ended = False
        self._watch: asyncio.Task[None] | None = None
        self._out: socket.socket | None = None
        self._sending = threading.Lock()

    def connect(self, sock: socket.socket, timeout_s: float) -> None:
        """Read the greeting, negotiate.

        Args:
            sock: our end of a socket pair; the monitor's from here on.
            timeout_s: seconds until the greeting must have come.

        Raises:
            TimeoutError: when no greeting came.
            qemu.qmp.ConnectError: when the connection failed or ended.
        """
        self._out = sock.dup()
        self._out.settimeout(timeout_s)
        self._background.run(self._connect(sock), timeout_s)

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        await self._client.connect(sock)
        self._background.held.add(self)
        self._watch = asyncio.create_task(self._watch_for_end())

    async def _watch_for_end(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        with contextlib.suppress(Exception):  # how the connection ended is told by the process, not by the socket
            await self._client.disconnect()
        self._ended = True
        calls, self._client.calls = self._client.calls, {}
        for call in calls.values():
            call.finish(None)
        self._close_out()
        self._on_end()
        self._background.held.discard(self)

    @property
    def ended(self) -> bool:
        """True when the connection has ended."""
        return self._ended

    @property
    def greeting(self) -> dict[str, Any]:
        """QEMU's greeting: version and capabilities."""
        greeting = self._client.greeting
        return dict(greeting._asdict()) if greeting else {}

    def execute(self, command: str, arguments: Mapping[str, Any] | None, timeout_s: float) -> Any:
        """Execute a command and return its value.

        Raises:
            qemu.qmp.ExecuteError: when QEMU refuses it.
            MonitorClosed: when the connection ended, before or during the command.
            TimeoutError: when the reply did not come in time.
            UsageError: when the arguments are not JSON, or on the loop's own thread.
        """
        if self._background.inside():
            raise UsageError("a machine's commands wait for the background loop and cannot be called on it")
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        reply = self._ask(message, timeout_s)
        if "return" in reply:
            return reply["return"]
        raise ExecuteError(ErrorResponse(reply), Message(message), reply)

    def _ask(self, message: dict[str, Any], timeout_s: float) -> Message:
        call = _Call()
        with self._sending:
            # An id stays taken until its reply comes, even when nobody waits for it any more.
            ident = next(number for number in itertools.count() if number not in self._client.calls)
            line = _encode({**message, "id": ident})
            self._client.calls[ident] = call
            try:
                self._send(line, timeout_s)
            except BaseException:
                self._client.calls.pop(ident, None)
                raise
        if not call.wait(timeout_s):
            raise TimeoutError
        if call.reply is None:
            raise MonitorClosed
        return call.reply

    def _send(self, line: bytes, timeout_s: float) -> None:
        """Write to the socket, which the caller has locked."""
        if self._ended or self._out is None:
            raise MonitorClosed
        self._out.settimeout(timeout_s)
        try:
            self._out.sendall(line)
        except TimeoutError:
            raise
        except OSError as error:
            raise MonitorClosed from error

    def send_fd(self, fd: int) -> None:
        """Send a file descriptor to QEMU; the next command must be ``getfd`` or ``add-fd``, which takes it.

        Raises:
            MonitorClosed: when the connection has ended.
        """
        with self._sending:
            if self._ended or self._out is None:
                raise MonitorClosed
            try:
                socket.send_fds(self._out, [b" "], [fd])
            except OSError as error:
                raise MonitorClosed from error

    def close(self) -> None:
        """Disconnect; never raises."""
        with contextlib.suppress(Exception):
            self._background.run(self._close(), 5)
        self._close_out()

    def _close_out(self) -> None:
        with self._sending:
            if self._out is not None:
                self._out.close()
                self._out = None

    async def _close(self) -> None:
        if self._watch is None:
            await self._client.disconnect()
            return
        if self._client.runstate is Runstate.RUNNING:
            with contextlib.suppress(Exception):
                await self._client.disconnect()
        await self._watch


def _encode(message: dict[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(message).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UsageError(f"the arguments of {message['execute']} are not JSON: {error}") from error
