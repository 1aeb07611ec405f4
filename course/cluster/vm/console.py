"""Consoles: a guest's screen and its serial lines, for clients that come through a websocket.

::

    POST vncproxy / termproxy ──▶ a port (5900…5999) and a ticket, waiting for a client; a task "vncproxy"
    GET  vncwebsocket?port=…  ──▶ the ticket is verified, the client joined with QEMU's socket
    either side hangs up      ──▶ the task ends

The port is a number by which the node finds what waits: nothing listens on TCP, so no other program of this computer
can come first. What is awaited is forgotten after a few seconds.

The terminal's protocol: the client begins with ``user:ticket`` and a newline, gets ``OK``, and sends
``0:LENGTH:data`` for keys, ``1:COLUMNS:ROWS:`` for the window's size, ``2`` now and then. What the guest writes comes
as it is.

Source: pve-xtermjs, termproxy's protocol; QEMU, ui/vnc.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...error import ClusterError

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

FIRST_PORT, LAST_PORT = 5900, 5999
AWAIT_S = 10.0
_CHUNK = 1 << 16


@dataclass(slots=True)
class Console:
    """One console that waits for its client, or has it.

    Attributes:
        port: its number.
        vmid: whose console it is.
        path: QEMU's socket.
        terminal: whether it speaks the terminal's protocol; otherwise bytes go through as they are.
        user: who asked for it.
        ticket: that the terminal's client shows.
    """

    port: int
    vmid: int
    path: Path
    terminal: bool
    user: str
    ticket: str
    joined: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    hang_up: Callable[[], None] = lambda: None


class Consoles:
    """The consoles of one node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_port: dict[int, Console] = {}

    def wait(self, vmid: int, path: Path, user: str, ticket: str, *, terminal: bool) -> Console:
        """Let a console wait for its client.

        Raises:
            ClusterError: all ports are taken.
        """
        with self._lock:
            for port in range(FIRST_PORT, LAST_PORT + 1):
                if port not in self._by_port:
                    console = Console(port, vmid, path, terminal, user, ticket)
                    self._by_port[port] = console
                    return console
        raise ClusterError("unable to find free port (5900-6000)")

    def take(self, port: int, vmid: int) -> Console:
        """Return the console that waits at a port, which nobody else gets then.

        Raises:
            ClusterError: none waits there for this machine.
        """
        with self._lock:
            console = self._by_port.get(port)
            if console is None or console.vmid != vmid or console.joined.is_set():
                raise ClusterError("Connection refused", status=596)
            console.joined.set()
            return console

    def work(self, console: Console, task: Task) -> None:
        """Be the task of a console: wait for the client, then for the end.

        Raises:
            ClusterError: nobody came.
        """
        try:
            task.on_stop(console.joined.set)
            task.on_stop(lambda: self.end(console))
            if not console.joined.wait(AWAIT_S):
                raise ClusterError("connection timed out")
            console.ended.wait()
        finally:
            self.end(console)
            with self._lock:
                self._by_port.pop(console.port, None)

    @staticmethod
    def end(console: Console) -> None:
        """Hang up."""
        console.joined.set()
        console.ended.set()
        console.hang_up()


def serial_of(values: dict[str, str], wanted: str | None) -> str:
    """Return the serial line that a terminal shows.

    Raises:
        ClusterError: the machine has none.
    """
    shown = values.get("vga", "").split(",")[0].removeprefix("type=")
    candidates = [wanted] if wanted else [shown, *(f"serial{number}" for number in range(4))]
    for key in candidates:
        if key.startswith("serial") and values.get(key) == "socket":
            return key
    raise ClusterError("unable to find a serial interface")


def new_password() -> str:
    """Return a password for a screen: eight characters, of which VNC uses no more."""
    return secrets.token_urlsafe(6)


def set_password(node: Node, vmid: int, password: str) -> None:
    """Let a machine's screen ask for this password, for half a minute; one that does not run is left alone."""
    running = node.guests.get(vmid)
    if running is None or "-vnc" not in running.machine.command:
        return
    running.execute("set_password", protocol="vnc", password=password)
    running.execute("expire_password", protocol="vnc", time="+30")


def shows_screen(values: dict[str, str]) -> bool:
    """Say whether a machine has a screen; otherwise its console is a serial line."""
    kind = values.get("vga", "std").split(",")[0].removeprefix("type=")
    return kind != "none" and not kind.startswith("serial")


async def serve(request: Any, node: Node, console: Console) -> Any:
    """Join a client's websocket with a console, until either hangs up; returns the websocket."""
    from aiohttp import WSMsgType, web  # noqa: PLC0415 - a node has it loaded, other users of this layer need not

    offered = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    socket = web.WebSocketResponse(protocols=["binary"] if "binary" in offered else [], max_msg_size=1 << 20)
    await socket.prepare(request)
    loop = asyncio.get_running_loop()
    writer: asyncio.StreamWriter | None = None
    pump: asyncio.Task[None] | None = None
    try:
        if console.terminal and not await _admitted(socket, node, console):
            return socket
        try:
            reader, writer = await asyncio.open_unix_connection(str(console.path))
        except OSError:
            if console.terminal:
                await socket.send_bytes(f"VM {console.vmid} not running\r\n".encode())
            return socket
        if console.terminal:
            await socket.send_bytes(f"starting serial terminal on interface {console.path.suffix[1:]}\r\n".encode())
        pump = asyncio.create_task(_to_client(reader, socket))
        console.hang_up = functools.partial(_cancel_soon, loop, pump)
        keys = Keys() if console.terminal else None
        async for message in socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or console.ended.is_set():
                break
            data = message.data.encode() if isinstance(message.data, str) else message.data
            writer.write(keys.feed(data) if keys else data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
    finally:
        console.hang_up = lambda: None
        if pump is not None:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await pump
        if writer is not None:
            writer.close()
        console.ended.set()
        await socket.close()
    return socket


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """End a task of the loop, from any thread."""
    loop.call_soon_threadsafe(task.cancel)


async def _admitted(socket: Any, node: Node, console: Console) -> bool:
    """Read who the client is; say OK, or nothing."""
    with contextlib.suppress(asyncio.TimeoutError, ClusterError, UnicodeDecodeError, TypeError):
        message = await socket.receive(timeout=AWAIT_S)
        data = message.data.encode() if isinstance(message.data, str) else bytes(message.data or b"")
        user, _, ticket = data.decode().strip().partition(":")
        if user == console.user and ticket == console.ticket:
            node.tickets.verify_console(ticket, f"/vms/{console.vmid}", user=user)
            await socket.send_bytes(b"OK")
            return True
    return False


async def _to_client(reader: asyncio.StreamReader, socket: Any) -> None:
    """Hand on what QEMU says; at its end, hang up."""
    try:
        while data := await reader.read(_CHUNK):
            await socket.send_bytes(data)
    except (ConnectionError, RuntimeError):
        pass
    finally:
        await socket.close()


class Keys:
    """Reads what a terminal's client sends."""

    _MESSAGE = re.compile(rb"0:(\d{1,7}):|1:\d*:\d*:|2")
    _BEGUN = re.compile(rb"0(:\d{0,7})?|1(:\d*){0,2}|")

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """Take what came; return the keys in it. What cannot be meant is forgotten."""
        self._buffer += data
        keys = b""
        while found := self._MESSAGE.match(self._buffer):
            end = found.end() + int(found[1] or 0)
            if len(self._buffer) < end:
                return keys
            keys += self._buffer[found.end() : end]
            self._buffer = self._buffer[end:]
        if not self._BEGUN.fullmatch(self._buffer):
            self._buffer = b""
        return keys
