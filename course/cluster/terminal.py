r"""A guest's serial line through a cluster's API: what the xterm.js console of Proxmox VE does, without a browser.

::

    client                       node
    POST …/termproxy ──────────▶ a ticket and a port, valid for a few seconds
    GET  …/vncwebsocket?… ─────▶ 101 Switching Protocols
    "user:ticket\n" ──────────▶ "OK"
    0:LENGTH:what is typed ────▶            ◀──── whatever the guest writes, as it is
    1:COLUMNS:ROWS:   2 (still there)

Works with any connection of proxmoxer over HTTPS, by password or by token.

Source: Proxmox VE API, /nodes/{node}/qemu/{vmid}/termproxy and vncwebsocket; pve-xtermjs, the terminal's protocol.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ..error import ClusterError
from ..machine.loop import background

if TYPE_CHECKING:
    import types

    import aiohttp
    from proxmoxer import ProxmoxAPI

_KEPT = 1 << 20
_CONNECT_S = 20.0


class Terminal:
    """The serial line of a running guest.

    Args:
        api: a connection of proxmoxer.
        node: the node that runs the guest.
        vmid: the guest.
        kind: ``"qemu"`` or ``"lxc"``.

    Attributes:
        closed: True when the line was hung up, by whomever.
    """

    def __init__(self, api: ProxmoxAPI, node: str, vmid: int, kind: str = "qemu") -> None:
        self._api, self._path = api, f"nodes/{node}/{kind}/{vmid}"
        self._name = f"{kind}/{vmid} on {node}"
        self._changed = threading.Condition()
        self._text, self._consumed = "", 0
        self._session: aiohttp.ClientSession | None = None
        self._line: aiohttp.ClientWebSocketResponse | None = None
        self.closed = False

    def __repr__(self) -> str:
        return f"<Terminal of {self._name}: {'closed' if self.closed else 'open'}>"

    def __enter__(self) -> Terminal:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Ask for a ticket and connect.

        Raises:
            ResourceException: the cluster refuses, in its own words.
            ClusterError: the websocket refuses.
        """
        offered = self._api(f"{self._path}/termproxy").post()
        background().run(self._connect(offered), _CONNECT_S)

    @property
    def text(self) -> str:
        """All that the guest has written since the terminal was opened (at most the last mebibyte)."""
        with self._changed:
            return self._text

    def expect(self, pattern: str, timeout_s: float = 10) -> re.Match[str]:
        """Wait until the guest has written what `pattern` matches, and consume the text up to its end.

        Raises:
            ClusterError: it did not come in time, or the line was hung up first; says what came instead.
        """
        end = time.monotonic() + timeout_s
        with self._changed:
            while not (match := re.compile(pattern).search(self._text, self._consumed)):
                left = end - time.monotonic()
                if self.closed or left <= 0:
                    why = "hung up" if self.closed else f"{timeout_s:g} s are over"
                    raise ClusterError(f"{self._name}: {pattern!r} did not come, {why}; it said {self._text[-200:]!r}")
                self._changed.wait(left)
            self._consumed = match.end()
        return match

    def write(self, text: str) -> None:
        """Type `text`.

        Raises:
            ClusterError: the line was hung up.
        """
        data = text.encode()
        if self._line is None or self.closed:
            raise ClusterError(f"{self._name}: the terminal is closed; open it again")
        background().run(self._line.send_bytes(b"0:%d:%s" % (len(data), data)), _CONNECT_S)

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            with contextlib.suppress(TimeoutError):
                background().run(self._hang_up(), _CONNECT_S)

    async def _connect(self, offered: dict[str, Any]) -> None:
        import aiohttp  # noqa: PLC0415 - only consoles need it

        url, headers, trusted = _way(self._api, self._path, offered)
        self._session = aiohttp.ClientSession(headers=headers)
        try:
            self._line = await self._session.ws_connect(url, ssl=trusted, protocols=("binary",), max_msg_size=0)
            await self._line.send_bytes(f"{offered['user']}:{offered['ticket']}\n".encode())
            greeting = await self._line.receive(_CONNECT_S)
        except (aiohttp.ClientError, OSError) as error:
            await self._session.close()
            raise ClusterError(f"{self._name}: no terminal: {error}") from error
        said = greeting.data if isinstance(greeting.data, bytes) else str(greeting.data or "").encode()
        if not said.startswith(b"OK"):
            await self._session.close()
            raise ClusterError(f"{self._name}: the terminal refuses: {said.decode(errors='replace')!r}")
        self._add(said[2:])
        background().held.add(background().loop.create_task(self._read()))

    async def _read(self) -> None:
        assert self._line is not None
        async for message in self._line:
            self._add(message.data if isinstance(message.data, bytes) else str(message.data).encode())
        self._ended()

    async def _hang_up(self) -> None:
        if self._line is not None:
            await self._line.close()
        if self._session is not None:
            await self._session.close()
        self._ended()

    def _add(self, data: bytes) -> None:
        with self._changed:
            fresh = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "")
            cut = max(0, len(self._text) + len(fresh) - _KEPT)
            self._text, self._consumed = (self._text + fresh)[cut:], max(0, self._consumed - cut)
            self._changed.notify_all()

    def _ended(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def _way(api: ProxmoxAPI, path: str, offered: dict[str, Any]) -> tuple[str, dict[str, str], ssl.SSLContext | bool]:
    """Address, headers and trust of the websocket, as the connection of proxmoxer has them.

    proxmoxer has no public way to its credentials but tickets; a prepared request carries both kinds.
    """
    import requests  # noqa: PLC0415 - comes with proxmoxer

    session, base = api._store["session"], api._store["base_url"]
    query = urlencode({"port": offered["port"], "vncticket": offered["ticket"]})
    url = f"{base}/{path}/vncwebsocket?{query}"
    prepared = requests.Request("GET", url, auth=session.auth).prepare()
    headers = {name: value for name, value in prepared.headers.items() if name == "Authorization"}
    for name, value in session.auth.get_cookies().items():
        headers["Cookie"] = f"{name}={value}"
    verify = session.auth.verify_ssl
    trusted = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else bool(verify)
    return "wss" + url.removeprefix("https"), headers, trusted
