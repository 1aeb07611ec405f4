"""The official schema read as our declarations, for comparisons. The product itself never reads it."""

from __future__ import annotations

import re
from typing import Any

from course.cluster.declaration import Parameter

NUMBERED = {"net": 32, "ide": 4, "scsi": 31, "sata": 6, "virtio": 16, "unused": 256, "mp": 256}
OTHERS = 16


def parameter(document: dict[str, Any]) -> Parameter:
    """Return the declaration that a piece of the schema stands for."""
    form = document.get("format")
    pattern = document.get("pattern")
    return Parameter(
        type=document.get("type", "string"),
        optional=bool(document.get("optional")),
        default=document.get("default"),
        minimum=_number(document.get("minimum")),
        maximum=_number(document.get("maximum")),
        min_length=document.get("minLength"),
        max_length=document.get("maxLength"),
        enum=tuple(document.get("enum") or ()),
        pattern=None if pattern is None else python_pattern(pattern),
        format=properties(form) if isinstance(form, dict) else form,
        requires=document.get("requires"),
        items=parameter(document["items"]) if document.get("items") else None,
        default_key=bool(document.get("default_key")),
        alias=document.get("alias"),
        key_alias=document.get("keyAlias"),
    )


def properties(documents: dict[str, Any]) -> dict[str, Parameter]:
    """Return all declarations of a call, ``net[n]`` as net0 and so on."""
    found = {}
    for name, document in documents.items():
        bare = name.removesuffix("[n]")
        names = [name] if bare == name else [f"{bare}{n}" for n in range(NUMBERED.get(bare, OTHERS))]
        found.update(dict.fromkeys(names, parameter(document)))
    return found


def python_pattern(pattern: str) -> str:
    """Write a regular expression of Perl's as one of Python's."""
    return re.sub(r"\(\?\^(\w*):", lambda found: f"(?{found[1]}:", pattern)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
