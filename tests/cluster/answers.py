"""Each answer that a test gets from the lab, compared with what the official schema promises.

Leniently, as recordings of a real Proxmox VE demand: digits in text are an integer, booleans are 0, 1 or empty text,
and an answer may hold more than the schema says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import requests

from course.cluster.route import routes

PREFIX = "/api2/json"


@dataclass
class Watcher:
    """What was answered, and what of it the schema does not allow.

    Attributes:
        schema: by path and method.
        answered: the calls, such as ``GET /version``.
        wrong: what the schema does not allow.
    """

    schema: dict[str, Any]
    answered: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def see(self, answer: requests.Response) -> None:
        """Look at one answer."""
        path = requests.utils.unquote(requests.utils.urlparse(answer.url).path)
        method = answer.request.method or ""
        found = routes().find(method, path.removeprefix(PREFIX)) if path.startswith(PREFIX) else None
        if found is None or answer.status_code != requests.codes.ok:
            return
        known = self.schema.get(found[0].path, {}).get(method)
        if known is None:
            return
        name = f"{method} {found[0].path}"
        try:
            body = answer.json()
        except ValueError:
            return
        self.answered.add(name)
        self.wrong += [f"{name}: {words}" for words in faults(body.get("data"), known.get("returns") or {}, "data")]


def faults(value: Any, wanted: dict[str, Any], where: str) -> list[str]:
    """Return what of a value the schema does not allow."""
    kind = wanted.get("type")
    if kind == "null":
        return [] if value is None else [f"{where} is {value!r}, not null"]
    if kind == "array":
        if not isinstance(value, list):
            return [f"{where} is {value!r}, not a list"]
        return [
            words
            for number, entry in enumerate(value)
            for words in faults(entry, wanted.get("items") or {}, f"{where}[{number}]")
        ]
    if kind == "object":
        return _object(value, wanted, where)
    return _scalar(value, wanted, where)


def _object(value: Any, wanted: dict[str, Any], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where} is {value!r}, not an object"]
    known = wanted.get("properties") or {}
    found = []
    for name, each in known.items():
        if "[n]" in name:
            continue
        if name in value:
            found += faults(value[name], each, f"{where}.{name}")
        elif not int(each.get("optional", 0)):
            found.append(f"{where}.{name} is missing")
    if wanted.get("additionalProperties") == 0:
        numbered = {name.removesuffix("[n]") for name in known if "[n]" in name}
        more = [name for name in value if name not in known and name.rstrip("0123456789") not in numbered]
        found += [f"{where}.{name} is not in the schema" for name in more]
    return found


def _scalar(value: Any, wanted: dict[str, Any], where: str) -> list[str]:
    kind, text = wanted.get("type"), str(value)
    fits = {
        "integer": isinstance(value, int) or re.fullmatch(r"-?\d+", text),
        "number": isinstance(value, int | float) or re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text),
        "boolean": text in ("0", "1", "", "True", "False"),
        "string": isinstance(value, str | int | float),
    }
    if kind in fits and not fits[kind]:
        return [f"{where} is {value!r}, not of type {kind}"]
    if wanted.get("enum") and text not in map(str, wanted["enum"]):
        return [f"{where} is {value!r}, not one of {wanted['enum']}"]
    if kind in ("integer", "number") and wanted.get("minimum") is not None and float(text) < float(wanted["minimum"]):
        return [f"{where} is {value!r}, less than {wanted['minimum']}"]
    return []
