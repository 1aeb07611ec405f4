"""Declarations that the areas share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..declaration import Declarations, Parameter
from ..options import DIGEST, NODE, SKIPLOCK, STORAGE, VMID, choice, flag, number, text
from ..route import Call, endpoint, routes

__all__ = [
    "ALL",
    "DIGEST",
    "LIMIT",
    "NODE",
    "SKIPLOCK",
    "START",
    "STORAGE",
    "STORAGE_REQUIRED",
    "UPID",
    "VMID",
    "WORLD",
    "Call",
    "Parameter",
    "choice",
    "endpoint",
    "flag",
    "index",
    "number",
    "perm",
    "text",
]

STORAGE_REQUIRED = Parameter(format="pve-storage-id")
UPID = Parameter()
START, LIMIT = number(0), number(0)
ALL: Mapping[str, Any] = {"user": "all"}
WORLD: Mapping[str, Any] = {"user": "world"}


def perm(path: str, *privileges: str, any_of: bool = False) -> dict[str, Any]:
    """Return the commonest rule: all of some privileges, or any of them, at a path."""
    rule: list[Any] = ["perm", path, list(privileges)]
    return {"check": [*rule, "any", 1] if any_of else rule}


def index(
    path: str,
    parameters: Declarations | None = None,
    *,
    key: str = "subdir",
    permissions: Mapping[str, Any] | None = ALL,
    without: Sequence[str] = (),
) -> None:
    """Declare ``GET path`` as the list of what is below it.

    Args:
        path: of the index.
        parameters: of the path.
        key: under which each entry has its name, ``subdir`` or ``name``.
        permissions: who may read it.
        without: words that are not shown.
    """

    def answer(call: Call) -> Any:
        return [{key: word} for word in routes().below(path) if word not in without]

    endpoint("GET", path, parameters=parameters, permissions=permissions, inline=True)(answer)
