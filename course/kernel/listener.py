"""A small service at an address: a Unix stream socket in a folder of its own, one client after the other.

An exercise gets the address, plain data, and the check keeps the witness: what was asked is logged on this side.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any


class Listener:
    """A Unix stream socket served by a thread; what a client gets is decided by `_meet`.

    Attributes:
        path: the address.
        patience_s: how long a client may be silent, in seconds.
    """

    patience_s = 1.0

    def __init__(self, name: str) -> None:
        self._folder = tempfile.mkdtemp(prefix=name + "-")
        self.path = str(Path(self._folder, name))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError, ValueError):
                client.settimeout(self.patience_s)
                self._meet(client)

    def _meet(self, client: socket.socket) -> None:
        """Serve one client."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening and remove the address."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        shutil.rmtree(self._folder, ignore_errors=True)


class JsonListener(Listener):
    """Answers one request per connection, each a JSON object on one line."""

    def _meet(self, client: socket.socket) -> None:
        with client.makefile() as lines:
            request = json.loads(lines.readline())
        reply = self._answer(request if isinstance(request, dict) else {})
        client.sendall(json.dumps(reply).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to one request."""
        raise NotImplementedError
