"""Checking the parameters of a call: the values as their types, or the errors of all fields in Proxmox VE's words.

A client sees ``400 Parameter verification failed.`` and, by field, what is wrong. Integers, numbers and booleans are
digits and words in text on the wire; what comes out of `check` has the right type.

Source: the API schema of Proxmox VE 8.1; recorded answers of a real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..error import ClusterError, ParameterError
from . import formats, properties
from .declaration import Declarations, Parameter

MISSING = "property is missing and it is not optional"
UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
BOOLEANS = {"1": 1, "on": 1, "yes": 1, "true": 1, "0": 0, "off": 0, "no": 0, "false": 0}

_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with one value."""


def check(declarations: Declarations, values: Mapping[str, Any], *, additional: bool = False) -> dict[str, Any]:
    """Compare the parameters of a call with their declarations.

    Args:
        declarations: what may be given.
        values: what was given: text, or lists of text for keys that came several times.
        additional: whether other parameters are let through as they are.

    Returns:
        The values as integers, floats, 0 or 1 for booleans, lists or text. Defaults are not filled in.

    Raises:
        ParameterError: with an entry for each field that is wrong.
    """
    errors, checked = _check(declarations, values, additional)
    if errors:
        raise ParameterError(errors)
    return checked


def parse_properties(text: str, declarations: Declarations) -> dict[str, Any]:
    """Take a value of properties apart and check each of them.

    Raises:
        ParameterError: with an entry for each property that is wrong.
        ClusterError: the text cannot be taken apart.
    """
    return check(_own(declarations), properties.parse(text, declarations))


def combine(uri: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Put the parameters of a call's path and those sent with it together.

    Raises:
        ParameterError: one was sent that contradicts the path.
    """
    words = "duplicate parameter (already defined in URI) with conflicting values!"
    errors = {name: words for name in sent if name in uri and str(sent[name]) != str(uri[name])}
    if errors:
        raise ParameterError(errors)
    return {**sent, **uri}


def _check(
    declarations: Declarations, values: Mapping[str, Any], additional: bool
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the errors and the checked values."""
    errors: dict[str, str] = {}
    checked: dict[str, Any] = {}
    for name, declared in declarations.items():
        if name not in values or values[name] is None:
            if not declared.optional:
                errors[name] = MISSING
            continue
        if declared.requires and values.get(declared.requires) is None:
            errors[name] = f"missing property - '{declared.requires}' requires this property"
            errors[declared.requires] = f"missing property - '{name}' requires this property"
        try:
            checked[name] = _value(name, declared, values[name])
        except _Wrong as wrong:
            errors[name] = str(wrong)
    for name in values.keys() - declarations.keys():
        if additional:
            checked[name] = values[name]
        else:
            errors[name] = UNKNOWN
    return errors, checked


def _value(name: str, declared: Parameter, value: Any) -> Any:
    """Return one value as its type.

    Raises:
        _Wrong: it is not what was declared.
    """
    if declared.type == "array":
        entries = value if isinstance(value, list) else [value]
        return [_value(name, declared.items, entry) if declared.items else entry for entry in entries]
    text = "\0".join(map(str, value)) if isinstance(value, list) else _text(value)
    converted = _convert(declared.type, text)
    if declared.format:  # first: a real cluster answers to VMID 99 that it is none, not that 100 is the least
        _format(name, declared.format, text)
    for rule in (_length, _pattern, _bounds, _enum):
        rule(declared, text, converted)
    return converted


def _text(value: Any) -> str:
    """Return a value as the text that it is on the wire."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _convert(kind: str, text: str) -> Any:
    """Return text as its type."""
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "number" and _NUMBER.fullmatch(text):
        return float(text)
    if kind == "boolean" and text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    if kind == "string":
        return text
    raise _Wrong(f"type check ('{kind}') failed - got '{text}'")


def _enum(declared: Parameter, text: str, _: Any) -> None:
    if declared.enum and text not in declared.enum:
        raise _Wrong(f"value '{text}' does not have a value in the enumeration '{', '.join(declared.enum)}'")


def _pattern(declared: Parameter, text: str, _: Any) -> None:
    if declared.pattern is not None and not re.fullmatch(declared.pattern, text):
        raise _Wrong("value does not match the regex pattern")


def _bounds(declared: Parameter, _: str, converted: Any) -> None:
    if isinstance(converted, str):
        return
    if declared.minimum is not None and converted < declared.minimum:
        raise _Wrong(f"value must have a minimum value of {_digits(declared.minimum)}")
    if declared.maximum is not None and converted > declared.maximum:
        raise _Wrong(f"value must have a maximum value of {_digits(declared.maximum)}")


def _digits(number: float) -> str:
    """Write a bound as the schema does: without a fraction where it has none."""
    return str(int(number)) if number == int(number) else str(number)


def _length(declared: Parameter, text: str, _: Any) -> None:
    if declared.max_length is not None and len(text) > declared.max_length:
        raise _Wrong(f"value may only be {declared.max_length} characters long")
    if declared.min_length is not None and len(text) < declared.min_length:
        raise _Wrong(f"value must be at least {declared.min_length} characters long")


def _format(name: str, declared: str | Declarations, text: str) -> None:
    """Compare text with a named format or with the declarations of its properties."""
    if isinstance(declared, str):
        words = formats.wrong(declared, text)
        if words:
            raise _Wrong(f"invalid format - {words}\n")
        return
    try:
        parse_properties(text, declared)
    except ParameterError as error:
        lines = "".join(f"{name}.{key}: {words.rstrip()}\n" for key, words in sorted(error.errors.items()))
        raise _Wrong(f"invalid format - format error\n{lines}") from None
    except ClusterError as error:
        raise _Wrong(f"invalid format - {error.message}\n") from None


def _own(declarations: Declarations) -> dict[str, Parameter]:
    """Return the properties that a value can really have: other names for them are not among these."""
    return {name: declared for name, declared in declarations.items() if declared.alias is None}


def config_check(declarations: Declarations) -> Callable[[str, str], str | None]:
    """Return what `GuestConfig.parse` asks about each key: what is wrong with its value; unknown keys pass."""

    def wrong(key: str, value: str) -> str | None:
        if key not in declarations:
            return None
        try:
            _value(key, declarations[key], value)
        except _Wrong as words:
            return str(words)
        return None

    return wrong


def merge(*parts: Declarations, without: Iterable[str] = ()) -> dict[str, Parameter]:
    """Return declarations put together, some left out."""
    left_out = set(without)
    return {name: declared for part in parts for name, declared in part.items() if name not in left_out}
