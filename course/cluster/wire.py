"""What answers look like on the wire: status lines, headers and bodies as Proxmox VE's API server writes them.

Clients show the reason of the status line to people, so it carries the error's words. Errors of the API have a body
with ``data`` null and, for parameters, ``errors``; what is refused before the API is asked has none. A connection ends
with an error.

Source: facts of this project about pve-http-server's AnyEvent.pm, recorded headers.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from aiohttp import web

SERVER = "pve-api-daemon/3.0"
JSON_TYPE = "application/json;charset=UTF-8"
OK, BAD = 200, 400


@dataclass(slots=True, kw_only=True)
class Answer:
    """An answer before it is written.

    Attributes:
        status: the HTTP status.
        message: the error's words.
        data: of a success.
        errors: what is wrong with which parameter.
        more: further fields beside ``data``, such as ``total``.
        empty: whether it has no body at all.
    """

    status: int = OK
    message: str = "OK"
    data: Any = None
    errors: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    empty: bool = False

    def response(self, form: str = "json") -> web.Response:
        """Write it.

        Args:
            form: ``json``, or ``extjs``, which says in its body what it has to say and always succeeds.
        """
        if self.empty:
            return _response(self.status, self.message, b"")
        body: dict[str, Any] = {"data": self.data, **self.more}
        if self.errors:
            body["errors"] = dict(self.errors)
        if form == "extjs":
            body["success"] = int(self.status < BAD)
            if self.status >= BAD:
                body |= {"status": self.status, "message": self.message}
            return _response(OK, "OK", _json(body))
        return _response(self.status, self.message, _json(body))


def refused(status: int, message: str) -> Answer:
    """Return an answer of the server itself, before the API is asked: without a body."""
    return Answer(status=status, message=message, empty=True)


def reason(message: str) -> str:
    """Return what of an error's words fits in a status line: its first line."""
    lines = message.strip().splitlines()
    return re.sub(r"[\x00-\x1f\x7f]+", " ", lines[0]) if lines else "unknown error"


def _response(status: int, message: str, body: bytes) -> web.Response:
    response = web.Response(
        status=status, reason="OK" if status == OK else reason(message), body=body, headers=_headers(int(time.time()))
    )
    if status >= BAD:
        response.force_close()
    return response


@functools.lru_cache(maxsize=2)
def _headers(second: int) -> dict[str, str]:
    """Return the headers of all answers in one second."""
    date = formatdate(second, usegmt=True)
    return {
        "Server": SERVER,
        "Content-Type": JSON_TYPE,
        "Cache-Control": "max-age=0",
        "Pragma": "no-cache",
        "Expires": date,
        "Date": date,
    }


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json(body: Mapping[str, Any]) -> bytes:
    return _encode(body).encode("utf-8", "replace")
