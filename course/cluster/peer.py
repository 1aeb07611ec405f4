"""Another node of the cluster, as this one calls it: the same API, over the other's Unix socket, as root."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ..error import ClusterError, ParameterError

if TYPE_CHECKING:
    from .node import Node

SOCKET = "api.sock"
UNREACHABLE = 595
NO_ROUTE = "No route to host"


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class Peer:
    """A node, called from another one.

    Args:
        node: who calls.
        name: who is called.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name

    @property
    def socket(self) -> Path:
        """The Unix socket on which it answers."""
        return self._node.state.run / self.name / SOCKET

    @property
    def online(self) -> bool:
        """Whether it can be reached."""
        return self._node.members.online(self.name)

    def call(self, method: str, path: str, *, timeout_s: float = 60, **values: Any) -> Any:
        """Call the other node's API as root@pam.

        Args:
            method: GET, POST, PUT or DELETE.
            path: such as ``/nodes/trevor/qemu/169/status/current``.
            timeout_s: how long to wait for its answer.
            values: parameters; ``_`` in a name that needs a dash cannot be told: put such ones in `path`'s query.

        Returns:
            The answer's data.

        Raises:
            ClusterError: the node cannot be reached (status 595), or it refuses, in its words.
            ParameterError: it refuses parameters.
        """
        if not self.online:
            raise ClusterError(NO_ROUTE, status=UNREACHABLE)
        query = urlencode({name: _wire(value) for name, value in values.items() if value is not None}, doseq=True)
        target = "/api2/json" + quote(path, safe="/:?&=%!@,+")
        in_body = method in ("POST", "PUT")
        if query and not in_body:
            target += ("&" if "?" in target else "?") + query
        connection = _Connection(self.socket, timeout_s)
        try:
            connection.request(method, target, query if in_body else None, self._headers(in_body))
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ClusterError(words, status=UNREACHABLE) from error
        finally:
            connection.close()
        return _data(answer.status, answer.reason, content)

    def _headers(self, form: bool) -> dict[str, str]:
        ticket, token = self._node.tickets.internal()
        headers = {"Cookie": f"PVEAuthCookie={quote(ticket, safe='')}", "CSRFPreventionToken": token}
        return {**headers, "Content-Type": "application/x-www-form-urlencoded"} if form else headers


def _wire(value: Any) -> Any:
    """Return a value as it is sent: booleans as 0 and 1."""
    return int(value) if isinstance(value, bool) else value


def _data(status: int, reason: str, content: bytes) -> Any:
    """Return an answer's data, or raise what it says."""
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        body = {}
    if status >= http.client.BAD_REQUEST:
        if body.get("errors"):
            raise ParameterError(body["errors"], reason)
        raise ClusterError(reason, status=status)
    return body.get("data")
