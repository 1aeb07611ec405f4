"""Visible checks of lesson 00, Passport."""

from __future__ import annotations

from .. import guest
from .exercise import Exercise, Trial

uptime_s = Exercise("uptime_s")


def judge(trial: Trial, text: str, expected: float, idle: float) -> None:
    """Compare one answer with the first number of `text`, and name the usual mistakes.

    Args:
        trial: the running trial.
        text: what the answer gets.
        expected: the uptime in seconds.
        idle: the second number, in seconds.
    """
    got = trial.call(text)
    asked = f"For the text {text!r}"
    if isinstance(got, list | tuple):
        trial.wrong("whole-list", f"{asked} you returned {got!r}.", "Only one of the two numbers was asked for.")
    if isinstance(got, str):
        state = trial.nearly if got.strip() == text.split(maxsplit=1)[0] else trial.wrong
        state("text-not-number", f"{asked} you returned the string {got!r}.", "How do you make a number of it?")
    if got == idle != expected:
        trial.wrong("idle-time", f"{asked} you returned {got!r}, the idle time.", "Which number counts since boot?")
    if got == expected + idle != expected:
        trial.wrong("sum", f"{asked} you returned {got!r}, the sum of both numbers.", "Only the first is the uptime.")
    if got != expected and int(got) == int(expected):
        trial.nearly("lost-decimals", f"{asked} you returned {got!r} instead of {expected!r}.", "Keep the decimals.")
    trial.equal(expected, float(got), "another-number", f"{asked}:", "Print fields: which of them is the uptime?")


@uptime_s.step("the example of its docstring holds")
def _example(trial: Trial) -> None:
    judge(trial, "12.34 10.00", 12.34, 10.0)


@uptime_s.step("it reads the uptime of a virtual machine that this check starts")
def _live(trial: Trial) -> None:
    with guest.linux(name="check") as vm:
        text = vm.console.run("cat /proc/uptime")[1]
    up, idle = (float(field) for field in text.split())
    judge(trial, text, up, idle)
