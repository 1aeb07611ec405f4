"""Show where an obtained value leaves the expected one: the shortest text that lets a student see it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxlist = _short.maxtuple = _short.maxdict = 8
_short.maxlevel = 4


def shorten(value: Any) -> str:
    """`repr` of at most a few hundred characters."""
    return _short.repr(value)


def difference(expected: Any, obtained: Any, path: str = "") -> str:  # noqa: PLR0911 - one per kind of value
    """Describe the first difference between two plain values.

    Args:
        expected: what should have come.
        obtained: what came.
        path: where we are, such as ``"[2]['id']"``.

    Returns:
        One or a few lines; empty when the values are equal in value and type.
    """
    here = f"at {path}: " if path else ""
    if type(expected) is not type(obtained):
        return (
            f"{here}expected {type(expected).__name__} {shorten(expected)}, "
            f"obtained {type(obtained).__name__} {shorten(obtained)}"
        )
    if isinstance(expected, bytes):
        return _bytes_difference(expected, obtained, here)
    if isinstance(expected, Mapping):
        return _mapping_difference(expected, obtained, path)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        for i, (want, got) in enumerate(zip(expected, obtained, strict=False)):
            if text := difference(want, got, f"{path}[{i}]"):
                return text
        if len(expected) != len(obtained):
            return f"{here}expected {len(expected)} items, obtained {len(obtained)}"
        return ""
    return "" if expected == obtained else f"{here}expected {shorten(expected)}, obtained {shorten(obtained)}"


def _mapping_difference(expected: Mapping[Any, Any], obtained: Mapping[Any, Any], path: str) -> str:
    here = f"at {path}: " if path else ""
    for key in expected:
        if key not in obtained:
            return f"{here}key {key!r} is missing; expected {shorten(expected[key])}"
        if text := difference(expected[key], obtained[key], f"{path}[{key!r}]"):
            return text
    extra = [key for key in obtained if key not in expected]
    return f"{here}unexpected key {extra[0]!r} with value {shorten(obtained[extra[0]])}" if extra else ""


def _bytes_difference(expected: bytes, obtained: bytes, here: str) -> str:
    if expected == obtained:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(expected, obtained, strict=False)) if a != b), None)
    if at is None:
        at = min(len(expected), len(obtained))
    start = max(0, at - at % 16)
    return "\n".join(
        [
            f"{here}{len(expected)} bytes expected, {len(obtained)} obtained; first difference at offset {at}",
            f"  expected {start:04x}: {expected[start : start + 16].hex(' ')}",
            f"  obtained {start:04x}: {obtained[start : start + 16].hex(' ')}",
        ]
    )
