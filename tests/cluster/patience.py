"""Waiting for the lab: for tasks and for states, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONG_S = 120


def until(what: str, look: Callable[[], Any], patience_s: float = LONG_S) -> Any:
    """Look again and again until there is something; return it."""
    end = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < end, f"waited {patience_s} s for {what}"
        time.sleep(0.05)
    return found


def ended(api: Any, upid: str) -> str:
    """Wait for a task's end; return its exit status."""
    status = api.nodes(upid.split(":")[1]).tasks(upid).status
    return str(until(upid, lambda: status.get().get("exitstatus")))


def log_of(api: Any, upid: str) -> list[str]:
    """Return the lines of a task's log."""
    return [line["t"] for line in api.nodes(upid.split(":")[1]).tasks(upid).log.get(limit=500)]
