"""Checks of answers: verdicts in four states, and the visible checks, one module per lesson."""

from __future__ import annotations

from .answer import Call, Outcome, call
from .exercise import Exercise, Trial
from .verdict import CheckFailed, State, Verdict

__all__ = ["Call", "CheckFailed", "Exercise", "Outcome", "State", "Trial", "Verdict", "call"]
