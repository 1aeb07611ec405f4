"""An exercise's check: named steps, each a sentence about what must hold, run in order on a student's function.

::

    demux = Exercise("demux")

    @demux.step("a reply is found under the id of its command")
    def _(trial):
        got = trial.call(chunks)                       # in a child, with a deadline, plain data only
        trial.equal(want, got, misconception="...", message="...", next_step="...")

``demux(answer)`` in a notebook shows the verdict, or raises `CheckFailed` at the first step that does not hold.
``demux.examine(answer, seed=3)`` returns the verdict: tests and reports use it. Visible checks live in
``course/check/<lesson>.py``, hidden ones under the same names in ``autograder/checks/<lesson>.py``.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .answer import Answer, Call, Outcome, call
from .compare import difference, shorten
from .verdict import CheckFailed, State, Verdict, collect

Step = Callable[["Trial"], None]

_variant: contextvars.ContextVar[int | None] = contextvars.ContextVar("variant", default=None)


@contextlib.contextmanager
def variant(seed: int | None) -> Iterator[None]:
    """Let the exercises that are called in this block, and that vary, make their inputs from this seed.

    Args:
        seed: a student's own; None for the one that all have.
    """
    token = _variant.set(seed)
    try:
        yield
    finally:
        _variant.reset(token)


class _Stop(Exception):  # noqa: N818 - ends a trial, not an accident
    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


@dataclasses.dataclass
class Trial:
    """One run of a check on one answer; steps use it to call the answer and to judge.

    Attributes:
        exercise: the exercise's name.
        answer: the student's function.
        seed: what makes this trial's inputs; the same seed makes the same inputs.
        rng: random numbers from `seed`, fresh for each step.
        deadline_s: time limit of a call, in seconds.
        notes: a place where a step leaves something for a later one.
    """

    exercise: str
    answer: Answer
    seed: int
    rng: random.Random
    deadline_s: float
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def attempt(self, *args: Any, deadline_s: float | None = None, **kwargs: Any) -> Call:
        """Call the answer and return what became of it; stops the check only when it is not answered yet."""
        done = call(self.answer, *args, deadline_s=deadline_s or self.deadline_s, **kwargs)
        if done.outcome is Outcome.UNANSWERED:
            message = f"{self.exercise} still raises NotImplementedError."
            self._stop(
                State.UNANSWERED,
                "unanswered",
                message,
                "Replace that line by your answer, then run this cell again.",
            )
        return done

    def call(self, *args: Any, deadline_s: float | None = None, none_is_an_answer: bool = False, **kwargs: Any) -> Any:
        """Call the answer and return its plain value; every other outcome ends the check with its own message."""
        done = self.attempt(*args, deadline_s=deadline_s, **kwargs)
        shown = ", ".join([*(shorten(a) for a in args), *(f"{k}={shorten(v)}" for k, v in kwargs.items())])
        return self.value_of(done, f"{self.exercise}({shown})", none_is_an_answer=none_is_an_answer)

    def value_of(self, done: Call, asked: str, *, none_is_an_answer: bool = False) -> Any:
        """Return the plain value of a finished call; every other outcome ends the check with its own message.

        Args:
            done: what `attempt` returned, for steps that look at the witness first.
            asked: the call as the student shall read it, such as ``"grow(qmp_path, 128)"``.
            none_is_an_answer: whether the answer may return None.
        """
        if done.outcome is Outcome.RAISED:
            self.wrong(
                "raised",
                f"{asked} raised {done.error}: {done.detail}",
                "Read the line named above with these values in mind.",
            )
        if done.outcome is Outcome.TIMED_OUT:
            self.wrong(
                "endless",
                f"{asked} had not returned after {done.error}; it was stopped.",
                "Which condition ends your loop or your waiting, and does it become true here?",
            )
        if done.outcome is Outcome.DIED:
            self.wrong(
                "died",
                f"{asked} ended the Python process itself ({done.error}).",
                "An answer returns a value; it must not exit, abort or crash the interpreter.",
            )
        if done.outcome is Outcome.NOT_PLAIN:
            self.wrong(
                "not-plain",
                f"{asked} returned what cannot be compared: {done.error}.",
                "Return plain data: numbers, strings, bytes, lists, tuples, dicts or sets.",
            )
        if done.value is None and not none_is_an_answer:
            if done.printed.strip():
                self.wrong(
                    "printed",
                    f"{asked} printed {shorten(done.printed.strip())} and returned None.",
                    "print shows a value to a person; return hands it to the caller.",
                )
            self.wrong("forgot-return", f"{asked} returned None.", "Did you forget return?")
        return done.value

    def wrong(self, misconception: str, message: str, next_step: str = "") -> NoReturn:
        """End the check: the answer is wrong, because of `message`."""
        self._stop(State.WRONG, misconception, message, next_step)

    def nearly(self, misconception: str, message: str, next_step: str = "") -> NoReturn:
        """End the check: the answer is right but for one thing."""
        self._stop(State.NEARLY, misconception, message, next_step)

    def expect(self, held: bool, misconception: str, message: str, next_step: str = "") -> None:
        """End the check as wrong unless `held`."""
        if not held:
            self.wrong(misconception, message, next_step)

    def equal(self, expected: Any, obtained: Any, misconception: str, message: str = "", next_step: str = "") -> None:
        """End the check as wrong unless the values are equal; the message shows both and where they differ."""
        if where := difference(expected, obtained):
            lines = [
                message,
                f"expected: {shorten(expected)}",
                f"obtained: {shorten(obtained)}",
                f"they differ {where}",
            ]
            self.wrong(misconception, "\n".join(filter(None, lines)), next_step)

    def _stop(self, state: State, misconception: str, message: str, next_step: str) -> NoReturn:
        raise _Stop(Verdict(state, self.exercise, message=message, misconception=misconception, next_step=next_step))


class Exercise:
    """The check of one exercise.

    Args:
        name: the student's function.
        deadline_s: default time limit of one call of the answer, in seconds.
        hidden: True for the steps that only grading runs.
        seed: seed used when none is given.
        partial: True when steps that held are worth their part of the points, though a later one did not hold.
        varies: True when any seed makes fair inputs, so that each student may get their own (see `variant`).
    """

    def __init__(
        self,
        name: str,
        *,
        deadline_s: float = 10.0,
        hidden: bool = False,
        seed: int = 0,
        partial: bool = False,
        varies: bool = False,
    ) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self.hidden = hidden
        self.seed = seed
        self.partial = partial
        self.varies = varies
        self.steps: list[tuple[str, Step]] = []

    def __repr__(self) -> str:
        return f"<Exercise {self.name}: {len(self.steps)} {'hidden' if self.hidden else 'visible'} steps>"

    def step(self, sentence: str) -> Callable[[Step], Step]:
        """Add a step; `sentence` completes "checking that …"."""

        def add(function: Step) -> Step:
            self.steps.append((sentence, function))
            return function

        return add

    def examine(self, answer: Answer, *, seed: int | None = None) -> Verdict:
        """Run the steps in order until one does not hold.

        Args:
            answer: the student's function.
            seed: makes the inputs; None takes the exercise's own.

        Returns:
            The verdict. Errors of the check itself (not of the answer) are raised.
        """
        seed = self.seed if seed is None else seed
        trial = Trial(self.name, answer, seed, random.Random(seed), self.deadline_s)
        total = len(self.steps)
        for passed, (sentence, step) in enumerate(self.steps):
            trial.rng = random.Random(f"{seed}/{self.name}/{sentence}")
            try:
                step(trial)
            except _Stop as stop:
                return dataclasses.replace(
                    stop.verdict,
                    step=sentence,
                    passed=passed,
                    total=total,
                    hidden=self.hidden,
                    partial=self.partial,
                )
        return Verdict(State.CORRECT, self.name, passed=total, total=total, hidden=self.hidden)

    def __call__(self, answer: Answer) -> None:
        """Check `answer` in a notebook: show the verdict, or raise `CheckFailed`."""
        verdict = self.examine(answer, seed=_variant.get() if self.varies else None)
        collect(verdict)
        if not verdict.ok:
            raise CheckFailed(verdict)
        if not self.hidden:
            from IPython.display import display  # noqa: PLC0415 - only notebooks need it

            display(verdict)  # type: ignore[no-untyped-call]
