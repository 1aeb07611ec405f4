"""Handing a request on to the node that it names, and that node's answer back to the client, as they are."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from . import wire
from .peer import NO_ROUTE, UNREACHABLE

if TYPE_CHECKING:
    from .node import Node

HANDED_ON = ("Authorization", "Cookie", "CSRFPreventionToken", "Content-Type", "Accept", "User-Agent")
ONCE = "PVEDisableProxy"
"""Marks what was handed on already."""

BROKEN = 596
READ_TIMEOUT_S = 600.0


class Forwarder:
    """Hands requests on to the other nodes.

    Args:
        node: that was asked.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def _session(self, name: str) -> aiohttp.ClientSession:
        if name not in self._sessions:
            self._sessions[name] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=str(self._node.peer(name).socket), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=READ_TIMEOUT_S),
            )
        return self._sessions[name]

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def send(self, request: web.BaseRequest, name: str, body: bytes | None) -> web.StreamResponse:
        """Hand a request on.

        Args:
            request: as it came.
            name: of the node, which exists.
            body: of the request; None to hand it on while it is read.
        """
        if not self._node.peer(name).online:
            return wire.refused(UNREACHABLE, NO_ROUTE).response()
        headers = {key: request.headers[key] for key in HANDED_ON if key in request.headers} | {ONCE: "true"}
        target = f"http://localhost{request.raw_path}"
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._websocket(request, name, target, headers)
            return await self._plain(request, name, target, headers, body)
        except aiohttp.ClientConnectorError as error:
            return wire.refused(UNREACHABLE, error.os_error.strerror or NO_ROUTE).response()
        except (aiohttp.ClientError, OSError) as error:
            return wire.refused(BROKEN, str(error) or "Connection reset by peer").response()

    async def _plain(
        self, request: web.BaseRequest, name: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> web.StreamResponse:
        content: Any = body
        if body is None and request.can_read_body:
            content = request.content
            if length := request.headers.get("Content-Length"):
                headers["Content-Length"] = length
        session = self._session(name)
        url = _raw(target)
        async with session.request(
            request.method, url, headers=headers, data=content or None, allow_redirects=False
        ) as answer:
            return _passed_on(answer, await answer.read())

    async def _websocket(
        self, request: web.BaseRequest, name: str, target: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Join the client's websocket and one to the node until either ends."""
        offered = [
            word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if word.strip()
        ]
        session = self._session(name)
        try:
            there = await session.ws_connect(_raw(target), headers=headers, protocols=offered, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            return wire.refused(error.status, error.message or "permission denied").response()
        async with there:
            here = web.WebSocketResponse(protocols=[there.protocol] if there.protocol else [], max_msg_size=0)
            await here.prepare(request)
            pumps = {asyncio.ensure_future(_pump(here, there)), asyncio.ensure_future(_pump(there, here))}
            _, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pending:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await here.close()
            return here


def _raw(target: str) -> Any:
    """Return a URL that is not encoded again."""
    from yarl import URL  # noqa: PLC0415 - a part of aiohttp

    return URL(target, encoded=True)


def _passed_on(answer: aiohttp.ClientResponse, content: bytes) -> web.Response:
    """Return another node's answer."""
    kept = ("Content-Type", "Cache-Control", "Pragma", "Expires", "Server", "Content-Disposition")
    response = web.Response(
        status=answer.status,
        reason=answer.reason,
        body=content,
        headers={key: answer.headers[key] for key in kept if key in answer.headers},
    )
    if answer.status >= wire.BAD:
        response.force_close()
    return response


async def _pump(source: Any, target: Any) -> None:
    """Hand on what comes from one websocket."""
    async for message in source:
        if message.type == aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        else:
            break
    with contextlib.suppress(Exception):
        await target.close()
