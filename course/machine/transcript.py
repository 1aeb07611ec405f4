"""A witness between a QMP client and its monitor: relays, writes down, and can make life harder.

::

    client ──▶ proxy.path ──▶ QEMU's monitor
           ◀── replies at once, events after a delay, foreign events in between

An answer is given the proxy's path instead of the monitor's; what it really did is in the transcript. A client that
sleeps instead of waiting for events fails when they are late; one that takes the next message for its reply fails
when an event comes in between. QMP allows both at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple

from ..error import MachineError, UsageError
from .directory import PrivateDirectory
from .loop import background

_LINE_LIMIT = 64 << 20  # query-qmp-schema answers in one line


class Entry(NamedTuple):
    """One message, as the client saw it.

    Attributes:
        direction: ``"client"`` sent it to QEMU; ``"qemu"`` sent it to the client; ``"proxy"`` made it up for the
            client; ``"held"`` was an event from QEMU for which the client did not wait long enough; ``"refused"`` was
            a second client at the same time.
        time_s: seconds since the proxy started.
        message: the JSON object (``{"invalid": text}`` for a line that is none).
    """

    direction: Literal["client", "qemu", "proxy", "held", "refused"]
    time_s: float
    message: dict[str, Any]


class QmpProxy:
    """A Unix socket that relays one QMP client at a time to a monitor.

    ::

        with QmpProxy(vm.qmp_path, delay_events_s=1.5) as proxy:
            answer(proxy.path)
            assert proxy.commands == ["qmp_capabilities", "cont"]

    Args:
        monitor: path of the monitor's Unix socket.
        delay_events_s: seconds for which each event is held back; replies are not. As a mapping, by the event's
            name: an event that it does not name passes at once.
        foreign_events: events to insert, one before each message that follows the negotiation, until all are sent.
        timeout_s: seconds until the monitor must greet.

    Attributes:
        transcript: all messages so far.
    """

    def __init__(
        self,
        monitor: str | os.PathLike[str],
        *,
        delay_events_s: float | Mapping[str, float] = 0.0,
        foreign_events: Iterable[dict[str, Any]] = (),
        timeout_s: float = 5.0,
    ) -> None:
        self.monitor = os.fspath(monitor)
        self.transcript: list[Entry] = []
        self._delay_s = delay_events_s
        self._foreign = [_stamped(event) for event in foreign_events]
        self._timeout_s = timeout_s
        self._start_s = time.monotonic()
        self._directory: PrivateDirectory | None = None
        self._server: asyncio.AbstractServer | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._upstream: _Upstream | None = None
        self._path = ""

    def __repr__(self) -> str:
        return f"<QmpProxy {self._path or 'closed'} to {self.monitor}: {len(self.transcript)} messages>"

    @property
    def path(self) -> str:
        """Path of the socket for clients.

        Raises:
            UsageError: outside the `with` block.
        """
        if not self._path:
            raise UsageError("the proxy has a path only inside its with block")
        return self._path

    @property
    def commands(self) -> list[str]:
        """Names of the commands that clients sent, in order."""
        sent = (entry.message for entry in self.transcript if entry.direction == "client")
        return [str(message.get("execute") or message.get("exec-oob")) for message in sent]

    @property
    def events(self) -> list[str]:
        """Names of QEMU's own events that clients received, in order."""
        return [e.message["event"] for e in self.transcript if e.direction == "qemu" and "event" in e.message]

    def __enter__(self) -> QmpProxy:
        self._directory = PrivateDirectory()
        try:
            path = self._directory.socket("qmp")
            background().run(self._start(path))
        except BaseException:
            self._directory.remove()
            raise
        self._path = path
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path = ""
        if self._directory is not None and self._directory.owned:
            background().run(self._stop(), 10)
            self._directory.remove()

    # ── on the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, path: str) -> None:
        self._upstream = await self._dial()
        self._server = await asyncio.start_unix_server(self._accept, path, limit=_LINE_LIMIT)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        if self._upstream is not None:
            await _close(self._upstream.writer)
        await self._server.wait_closed()

    async def _dial(self) -> _Upstream:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_unix_connection(self.monitor, limit=_LINE_LIMIT)
                greeting = await reader.readline()
        except TimeoutError as error:
            await _close(writer)
            raise MachineError(
                f"the monitor {self.monitor} did not greet within {self._timeout_s:g} s. A monitor serves one client: "
                "end the other one, or make the machine with one more (qmp_sockets=2) and use that."
            ) from error
        except OSError as error:
            raise MachineError(
                f"there is no monitor at {self.monitor} ({error.strerror or error}). "
                "Is the machine running, and was it made with qmp_sockets=1?"
            ) from error
        if not greeting:
            await _close(writer)
            raise MachineError(f"the monitor {self.monitor} hung up instead of greeting: its QEMU has ended.")
        return _Upstream(reader, writer, greeting)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._relays:
            await asyncio.wait(self._relays, timeout=1)  # one that has just hung up is about to go
        if self._relays:
            self._note("refused", {})
            await _close(writer)
            return
        self._relays.add(task)
        upstream = None
        try:
            upstream, self._upstream = self._upstream or await self._dial(), None
            await _Relay(self, _Client(reader, writer), upstream).run()
        except (OSError, MachineError, asyncio.CancelledError):
            pass  # the client sees the end of its connection, as it would without us
        finally:
            self._relays.discard(task)
            writers = [writer, *([upstream.writer] if upstream else [])]
            for side in writers:
                side.close()
            with contextlib.suppress(asyncio.CancelledError):  # a proxy that is being left cancels us, even here
                for side in writers:
                    await _close(side)

    def _note(self, direction: Literal["client", "qemu", "proxy", "held", "refused"], message: dict[str, Any]) -> None:
        self.transcript.append(Entry(direction, time.monotonic() - self._start_s, message))


class _Upstream(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes


class _Client(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class _Relay:
    """One client's conversation."""

    def __init__(self, proxy: QmpProxy, client: _Client, upstream: _Upstream) -> None:
        self._proxy = proxy
        self._client = client
        self._upstream = upstream
        self._negotiated = False
        self._held: dict[asyncio.TimerHandle, dict[str, Any]] = {}
        self._none_held = asyncio.Event()
        self._none_held.set()

    async def run(self) -> None:
        """Relay until one side hangs up; an event that QEMU sent before it ended is still delivered."""
        self._deliver(self._upstream.greeting, _parsed(self._upstream.greeting))
        sides = [asyncio.create_task(self._from_client()), asyncio.create_task(self._to_its_end())]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            for timer, event in self._held.items():
                timer.cancel()
                self._proxy._note("held", event)

    async def _from_client(self) -> None:
        messages = _Messages()
        while data := await self._client.reader.read(1 << 16):
            for message in messages.feed(data):
                self._proxy._note("client", message)
            self._upstream.writer.write(data)
            await self._upstream.writer.drain()

    async def _to_its_end(self) -> None:
        with contextlib.suppress(ConnectionError):  # QEMU ended with a line feed of ours unread
            await self._from_qemu()
        await self._none_held.wait()

    async def _from_qemu(self) -> None:
        while line := await self._upstream.reader.readline():
            message = _parsed(line)
            if self._negotiated and self._proxy._foreign:
                foreign = self._proxy._foreign.pop(0)
                self._proxy._note("proxy", foreign)
                self._client.writer.write(json.dumps(foreign).encode() + b"\r\n")
            if "event" in message and (delay_s := self._delay_of(message["event"])) > 0:
                self._hold(line, message, delay_s)
            else:
                self._deliver(line, message)
            self._negotiated |= "return" in message
            await self._client.writer.drain()

    def _delay_of(self, event: str) -> float:
        delay = self._proxy._delay_s
        return delay.get(event, 0.0) if isinstance(delay, Mapping) else delay

    def _hold(self, line: bytes, event: dict[str, Any], delay_s: float) -> None:
        def deliver() -> None:
            del self._held[timer]
            self._deliver(line, event)
            if not self._held:
                self._none_held.set()

        timer = asyncio.get_running_loop().call_later(delay_s, deliver)
        self._held[timer] = event
        self._none_held.clear()

    def _deliver(self, line: bytes, message: dict[str, Any]) -> None:
        self._proxy._note("qemu", message)
        self._client.writer.write(line)


class _Messages:
    """Finds the end of each JSON object in what a client sends: nothing has to separate one from the next."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._depth = 0
        self._quoted = self._escaped = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the messages that end within `data`."""
        for byte in data:
            self._text.append(byte)
            if self._quoted:
                self._escaped, self._quoted = byte == 0x5C and not self._escaped, byte != 0x22 or self._escaped
            elif byte == 0x22:
                self._quoted = True
            elif byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
            if self._depth <= 0 and not self._quoted and byte in b"}]\n" and self._text.strip():
                yield _parsed(bytes(self._text))
                self._text.clear()
                self._depth = 0


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    return message if isinstance(message, dict) else {"invalid": line.decode(errors="replace").rstrip("\r\n")}


def _stamped(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with a time stamp, as QEMU's have."""
    if "event" not in event:
        raise UsageError(f"a foreign event needs a name: {{'event': 'NAME', 'data': …}}, not {event!r}")
    now = time.time()
    return {"timestamp": {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}, **event}


async def _close(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.close()
        with contextlib.suppress(Exception):
            await writer.wait_closed()
