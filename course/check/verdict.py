"""What a check says of an answer: one of four states, with a message made from the observed values.

A state is shown by a sign *and* a word, never by colour alone. `CheckFailed` is what a notebook cell raises: IPython
shows its message through ``_render_traceback_`` and no traceback; nbgrader sees an error and gives no points.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import enum
import html
import textwrap
from collections.abc import Iterator
from typing import Any

_BOLD, _RESET = "\x1b[1m", "\x1b[0m"


class State(enum.Enum):
    """How far an answer has come; the value is the word that a student reads."""

    UNANSWERED = "not answered yet"
    WRONG = "wrong"
    NEARLY = "nearly"
    CORRECT = "correct"

    @property
    def sign(self) -> str:
        """A sign that can be told from the others without colour."""
        return {"UNANSWERED": "○", "WRONG": "✘", "NEARLY": "◐", "CORRECT": "✔"}[self.name]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of one check.

    Attributes:
        state: one of the four states.
        exercise: the exercise's name, which is the name of the student's function.
        step: the sentence that was being checked when it failed; empty when all held.
        message: what was observed, with the values.
        misconception: an id such as ``"one-recv-one-message"``; empty when none was recognised.
        next_step: what to look at next; never the solution.
        passed: number of steps that held.
        total: number of steps.
        hidden: True when the steps are those of grading.
        partial: True when steps that held count, though a later one did not.
    """

    state: State
    exercise: str
    step: str = ""
    message: str = ""
    misconception: str = ""
    next_step: str = ""
    passed: int = 0
    total: int = 0
    hidden: bool = False
    partial: bool = False

    @property
    def ok(self) -> bool:
        """True when every step held."""
        return self.state is State.CORRECT

    @property
    def credit(self) -> float:
        """Which part of the check is passed, 0..1: all or nothing, unless the check gives partial credit."""
        if self.ok:
            return 1.0
        return self.passed / self.total if self.partial and self.total else 0.0

    @property
    def headline(self) -> str:
        """One line: sign, state, exercise, and how many checks held."""
        kind = "hidden" if self.hidden else "visible"
        count = f"{kind} checks {self.passed} of {self.total}"
        if self.ok and not self.hidden:
            count += "; hidden checks run at grading"
        return f"{self.state.sign} {self.state.value} · {self.exercise} · {count}"

    def __str__(self) -> str:
        parts = [self.headline]
        if self.step:
            parts.append(f"While checking that {self.step}:")
        if self.message:
            parts.append(textwrap.indent(self.message, "  "))
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return "\n".join(parts)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Text for consoles and screen readers, the same words in HTML for notebooks."""
        colour = {State.CORRECT: "#1a7f37", State.NEARLY: "#8a5a00"}.get(self.state, "#a40e26")
        style = f"margin:0;padding:.4em .8em;border-left:4px solid {colour};white-space:pre-wrap"
        return {
            "text/plain": str(self),
            "text/html": f'<pre role="status" style="{style}">{html.escape(str(self))}</pre>',
        }


class CheckFailed(Exception):  # noqa: N818 - a verdict, not an accident
    """An answer is not right yet; `verdict` says how far it is."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a traceback."""
        headline, _, rest = str(self.verdict).partition("\n")
        return [f"{_BOLD}{headline}{_RESET}", *rest.splitlines()]


class NotJudged(Exception):  # noqa: N818 - a verdict that there is none
    """The check could not be made here: nothing is known of the answer. Grading keeps it for a person, not as wrong."""

    def _render_traceback_(self) -> list[str]:
        return [f"{_BOLD}This could not be judged.{_RESET}", *str(self).splitlines()]


_collected: contextvars.ContextVar[list[Verdict] | None] = contextvars.ContextVar("collected", default=None)


@contextlib.contextmanager
def collected() -> Iterator[list[Verdict]]:
    """Collect the verdicts of all checks that are called in this block, failed ones included."""
    verdicts: list[Verdict] = []
    token = _collected.set(verdicts)
    try:
        yield verdicts
    finally:
        _collected.reset(token)


def collect(verdict: Verdict) -> None:
    """Add a verdict to the list of the innermost `collected`, if there is one."""
    if (verdicts := _collected.get()) is not None:
        verdicts.append(verdict)
