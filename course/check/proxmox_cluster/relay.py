"""A relay before a node's API: the answer speaks to it as to the node, and every request is written down.

::

    answer ──TLS──▶ relay ──TLS──▶ node
                      └─ transcript: method, path, parameters; status, words, data

It has the node's own certificate, so that a client that verifies is content. Nothing is changed on the way.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

_TIMEOUT_S = 120.0
_KEPT = 5000
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
_PREFIX = "/api2/json/"


class Relay:
    """A running relay.

    Attributes:
        address: where the answer reaches it.
        upstream: the node's address; may be changed at any moment.
    """

    def __init__(self, certificate: Path, key: Path, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self._heard: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = _Server(self, context)
        self.address: tuple[str, int] = ("127.0.0.1", self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def listen(self) -> None:
        """Forget what was heard so far."""
        with self._lock:
            self._heard.clear()

    def heard(self) -> list[dict[str, Any]]:
        """Return what was heard since `listen`, in the order of the answers."""
        with self._lock:
            return list(self._heard)

    def note(self, entry: dict[str, Any]) -> None:
        """Write a request and its answer down."""
        with self._lock:
            if len(self._heard) < _KEPT:
                self._heard.append(entry)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, relay: Relay, context: ssl.SSLContext) -> None:
        self.relay, self.context = relay, context
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up in the middle is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    trusted: ClassVar[ssl.SSLContext] = ssl._create_unverified_context()  # noqa: S323 - the lab's own node, on loopback

    def setup(self) -> None:
        """Shake hands here, in the connection's own thread."""
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.request.settimeout(_TIMEOUT_S)
        super().setup()

    def finish(self) -> None:
        """Close the wrapped connection too: the server knows only the bare one."""
        with contextlib.suppress(OSError, ValueError):
            super().finish()
        self.request.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, words, headers, data = self._forward(body)
        except OSError as error:
            status, words, headers, data = 595, str(error.strerror or error), [], b'{"data":null}'
        self.server.relay.note(_entry(self, body, (status, words, data)))
        self.send_response_only(status, words)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        if status >= http.client.BAD_REQUEST:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _forward(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        host, port = self.server.relay.upstream
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        kept["Content-Length"] = str(len(body))
        if not body:
            del kept["Content-Length"]
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self.trusted)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body or None, kept)
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            return answer.status, answer.reason, headers, answer.read()

    do_GET = do_POST = do_PUT = do_DELETE = _relay  # noqa: N815 - the library's names


def _entry(asked: _Handler, body: bytes, answer: tuple[int, str, bytes]) -> dict[str, Any]:
    status, words, data = answer
    split = urlsplit(asked.path)
    values = dict(parse_qsl(split.query))
    if "urlencoded" in (asked.headers.get("Content-Type") or ""):
        values |= dict(parse_qsl(body.decode(errors="replace")))
    try:
        told = json.loads(data)["data"]
    except (ValueError, KeyError, TypeError):
        told = None
    return {
        "method": asked.command,
        "path": split.path.removeprefix(_PREFIX),
        "values": values,
        "status": status,
        "words": words,
        "data": told,
    }


@contextlib.contextmanager
def relay(certificate: Path, key: Path, upstream: tuple[str, int]) -> Iterator[Relay]:
    """Run a relay for the time of a ``with`` block."""
    running = Relay(certificate, key, upstream)
    try:
        yield running
    finally:
        running.close()


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on: for a cluster that is not there."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port
