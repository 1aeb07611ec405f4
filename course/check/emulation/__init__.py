"""Visible checks of lesson 05: emulation."""

from __future__ import annotations

from .counting import expansion, tcg_counts
from .devices import uart
from .dispatching import run
from .hunting import expose
from .speed import slowdown
from .stepping import immediate, step
from .translating import translate

__all__ = ["expansion", "expose", "immediate", "run", "slowdown", "step", "tcg_counts", "translate", "uart"]
