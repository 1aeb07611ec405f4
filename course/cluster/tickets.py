"""Tickets and tokens: how a caller shows who they are.

A ticket is ``PVE:root@pam:65F0A1C2::signature``: who, when, and a signature over both with the cluster's key, so that
each node accepts what any node gave. It is good for two hours. The token against request forgery is the time with a
signature over time and user. Short-lived tickets for consoles are made the same way, bound to a path.

The signatures are HMAC-SHA-256 where Proxmox VE signs with RSA: they are verified by the cluster alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time

from ..error import ClusterError
from .config.users import ROOT
from .state import State

KEY = "priv/authkey.key"
FUTURE_S = 300
CONSOLE_S = 40
_TICKET = re.compile(r"(?P<kind>[A-Z]+):(?P<user>.+):(?P<time>[0-9A-Fa-f]{8})::(?P<signature>[A-Za-z0-9+/=]+)")
_CSRF = re.compile(r"(?P<time>[0-9A-Fa-f]{8}):(?P<signature>[A-Za-z0-9+/=]+)")


class Tickets:
    """Gives and verifies tickets.

    Args:
        state: the cluster's files, with its key.
        life_s: how long a ticket is good.
    """

    def __init__(self, state: State, life_s: float = 7200) -> None:
        self._state = state
        self.life_s = life_s

    def give(self, user: str, *, now: float | None = None) -> str:
        """Return a ticket for a user."""
        return self._signed("PVE", user, "", now)

    def verify(self, ticket: str, *, now: float | None = None) -> str:
        """Return whose ticket it is.

        Raises:
            ClusterError: it is none, or not valid any more (401).
        """
        return self._verified("PVE", ticket, "", self.life_s, now)

    def csrf(self, user: str, *, now: float | None = None) -> str:
        """Return the token that a caller with a ticket sends along with what changes something."""
        stamp = f"{int(time.time() if now is None else now):08X}"
        return f"{stamp}:{self._signature('CSRF', stamp, user)}"

    def verify_csrf(self, user: str, token: str | None, *, now: float | None = None) -> None:
        """Refuse a call that may have been forged.

        Raises:
            ClusterError: the token is missing or wrong (401).
        """
        found = _CSRF.fullmatch(token or "")
        wanted = self._signature("CSRF", found["time"], user) if found else ""
        if not found or not _same(found["signature"], wanted) or not self._fresh(found["time"], self.life_s, now):
            raise ClusterError("Permission denied - invalid csrf token", status=401)

    def console(self, user: str, path: str, *, kind: str = "PVEVNC", now: float | None = None) -> str:
        """Return a short-lived ticket for a console at a path of rights, such as ``/vms/169``."""
        return self._signed(kind, user, path, now)

    def verify_console(
        self, ticket: str, path: str, *, kind: str = "PVEVNC", user: str | None = None, now: float | None = None
    ) -> str:
        """Return who may use a console.

        Raises:
            ClusterError: the ticket is for something else, for another user, or too old (401).
        """
        found = self._verified(kind, ticket, path, CONSOLE_S, now)
        if user is not None and user != found:
            raise ClusterError("permission denied - invalid PVEVNC ticket", status=401)
        return found

    def internal(self) -> tuple[str, str]:
        """Return a ticket and a token of root@pam, for calls between nodes."""
        return self.give(ROOT), self.csrf(ROOT)

    def _signed(self, kind: str, user: str, bound: str, now: float | None) -> str:
        stamp = f"{int(time.time() if now is None else now):08X}"
        plain = f"{kind}:{user}:{stamp}"
        return f"{plain}::{self._signature(kind, stamp, user, bound)}"

    def _verified(self, kind: str, ticket: str, bound: str, life_s: float, now: float | None) -> str:
        found = _TICKET.fullmatch(ticket)
        words = "Authentication failed!" if kind == "PVE" else f"permission denied - invalid {kind} ticket"
        if found is None or found["kind"] != kind:
            raise ClusterError(words, status=401)
        wanted = self._signature(kind, found["time"], found["user"], bound)
        if not _same(found["signature"], wanted) or not self._fresh(found["time"], life_s, now):
            raise ClusterError(words, status=401)
        return found["user"]

    def _signature(self, *words: str) -> str:
        key = self._state.parsed(KEY, str.encode)
        if not key:
            raise ClusterError("no authentication key", status=401)
        return base64.b64encode(hmac.digest(key, "\0".join(words).encode(), hashlib.sha256)).decode()

    @staticmethod
    def _fresh(stamp: str, life_s: float, now: float | None) -> bool:
        age = (time.time() if now is None else now) - int(stamp, 16)
        return -FUTURE_S < age < life_s


def new_key() -> str:
    """Return a key for a new cluster."""
    return secrets.token_hex(32)


def hashed(password: str) -> str:
    """Return what is kept of a password: scrypt with its salt."""
    salt = secrets.token_bytes(16)
    return f"$scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def matches(password: str, kept: str) -> bool:
    """Say whether a password is the one that was kept."""
    parts = kept.split("$")
    if len(parts) != 4 or parts[1] != "scrypt":
        return False
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(parts[2])), bytes.fromhex(parts[3]))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << 12, r=8, p=1, maxmem=1 << 26)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
