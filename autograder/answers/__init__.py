"""Answers to every exercise that a student might give: wrong ones (mutants) and different right ones.

One module or package per lesson, named as its checks. An answer is a function marked with its exercise::

    @mutant("demux", "one-recv-one-message")
    def one_json_per_chunk(chunks): ...

    @alternative("demux")
    def with_raw_decode(chunks): ...

The test suite runs every one on several seeds: a mutant has to be rejected with its misconception's id, an alternative
has to be accepted, by the visible and the hidden checks together.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer: `misconception` is the id that its verdict must carry, or None when it is right."""

    lesson: str
    exercise: str
    function: Function
    misconception: str | None

    @property
    def name(self) -> str:
        """A name for reports: ``demux/one_json_per_chunk``."""
        return f"{self.exercise}/{self.function.__name__}"


_registry: list[Answer] = []


def _register(exercise: str, misconception: str | None) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        lesson = function.__module__.removeprefix(__name__ + ".").split(".")[0]
        _registry.append(Answer(lesson, exercise, function, misconception))
        return function

    return add


def mutant(exercise: str, misconception: str) -> Callable[[Function], Function]:
    """Mark a wrong answer with the id of the misconception that its verdict must name."""
    return _register(exercise, misconception)


def alternative(exercise: str) -> Callable[[Function], Function]:
    """Mark a right answer that is written differently from the lesson's own."""
    return _register(exercise, None)


def load() -> list[Answer]:
    """Import every lesson's answers and return them all."""
    for module in pkgutil.walk_packages(__path__, __name__ + "."):
        importlib.import_module(module.name)
    return list(_registry)
