"""Who calls: a ticket in a cookie or in a header, or an API token.

::

    Cookie: PVEAuthCookie=PVE:root@pam:…            as it is or percent-encoded; what changes something needs
    CSRFPreventionToken: 65F0A1C2:…                 this too
    Authorization: PVEAuthCookie=PVE:root@pam:…
    Authorization: PVEAPIToken=alice@pve!ci=uuid    nothing else
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..error import ClusterError

if TYPE_CHECKING:
    from .node import Node

COOKIE = "PVEAuthCookie"
TOKENS = "priv/token.cfg"
OPEN = {("GET", "/access/domains"), ("GET", "/access/ticket"), ("POST", "/access/ticket")}
"""What may be called without saying who one is."""

_API_TOKEN = re.compile(r"PVEAPIToken[= ](?P<token>[^=\s]+)=(?P<secret>\S+)")


def caller(node: Node, method: str, path: str, headers: Mapping[str, str], *, upload: bool = False) -> str | None:
    """Return who calls: ``user@realm``, ``user@realm!token``, or None for a call that needs nobody.

    Args:
        node: that is asked.
        method: of the request.
        path: below ``/api2/json``.
        headers: of the request.
        upload: a form of a browser, which cannot send a token against forgery.

    Raises:
        ClusterError: nobody, or not who they say (401).
    """
    if (method, path) in OPEN:
        return None
    authorization = headers.get("Authorization", "")
    found = _API_TOKEN.match(authorization)
    if found:
        return _token(node, unquote(found["token"]), found["secret"])
    ticket = _cookie(headers.get("Cookie", "")) or _cookie(authorization)
    if not ticket:
        raise ClusterError("No ticket", status=401)
    user = node.tickets.verify(ticket)
    _assert_active(node, user)
    if method != "GET" and not upload:
        node.tickets.verify_csrf(user, headers.get("CSRFPreventionToken"))
    return user


def _cookie(text: str) -> str | None:
    """Return the ticket in a header."""
    for part in text.split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and name == COOKIE:
            return unquote(value)
    return None


def _token(node: Node, token: str, secret: str) -> str:
    """Return the token that a caller has, when the secret is its."""
    known = node.state.parsed(TOKENS, parse_tokens).get(token, "")
    if not known or not hmac.compare_digest(known.encode(), secret.encode()):
        raise ClusterError("Authentication failed!", status=401)
    _assert_active(node, token)
    return token


def _assert_active(node: Node, who: str) -> None:
    if not node.access().active(who):
        raise ClusterError("Authentication failed!", status=401)


def parse_tokens(text: str) -> dict[str, str]:
    """Read the secrets of tokens: lines of a token and its secret."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def render_tokens(tokens: Mapping[str, str]) -> str:
    """Write the secrets of tokens."""
    return "".join(f"{name} {secret}\n" for name, secret in sorted(tokens.items()))
