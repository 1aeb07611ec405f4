"""Realms: who is asked whether a password is right.

``pam`` and ``pve`` both keep theirs in ``priv/shadow.cfg`` here: the lab must not ask the host's own users.
"""

from __future__ import annotations

from . import tickets
from .config import sections
from .config.sections import TypedSection
from .foundation import SHADOW
from .state import State

DOMAINS = "domains.cfg"


def realms(state: State) -> dict[str, TypedSection]:
    """Return the realms; `pam` and `pve` are always there."""
    found = dict(state.parsed(DOMAINS, sections.parse))
    for name in ("pam", "pve"):
        found.setdefault(name, TypedSection(name, name))
    return found


def verify(state: State, user: str, password: str) -> bool:
    """Say whether a password is a user's."""
    kept = state.parsed(SHADOW, _shadow).get(user)
    return bool(kept) and tickets.matches(password, kept or "")


def set_password(state: State, user: str, password: str | None) -> None:
    """Keep another password for a user; None forgets the user's."""
    with state.lock("file-shadow_cfg"):
        known = _shadow(state.read(SHADOW))
        if password is None:
            known.pop(user, None)
        else:
            known[user] = tickets.hashed(password)
        state.write(SHADOW, "".join(f"{name} {kept}\n" for name, kept in sorted(known.items())))


def _shadow(text: str) -> dict[str, str]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
