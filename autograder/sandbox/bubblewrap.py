"""Boxes made by bubblewrap, where it may make namespaces and we may not."""

from __future__ import annotations

import shutil


def refusal() -> str:
    """Return why bubblewrap cannot make a box here; empty when it can."""
    if shutil.which("bwrap") is None:
        return "bwrap is not on PATH"
    return "boxes by bubblewrap are not made yet"
