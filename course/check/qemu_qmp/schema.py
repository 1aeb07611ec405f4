"""`has_command(schema, name, argument="") -> bool`: ask a QEMU what it can do instead of which version it is."""

from __future__ import annotations

from typing import Any

from ...machine import Machine
from ..compare import shorten
from ..exercise import Exercise, Trial

Schema = list[dict[str, Any]]

has_command = Exercise("has_command")

# A schema as short as it can be: two commands, an event, and the types that they name. QEMU numbers its types.
TINY: Schema = [
    {"name": "stop", "ret-type": "17", "meta-type": "command", "arg-type": "0"},
    {"name": "STOP", "meta-type": "event", "arg-type": "0"},
    {"name": "SHUTDOWN", "meta-type": "event", "arg-type": "40"},
    {"name": "screendump", "ret-type": "17", "meta-type": "command", "arg-type": "62"},
    {"name": "40", "meta-type": "object", "members": [{"name": "guest", "type": "bool"}]},
    {
        "name": "62",
        "meta-type": "object",
        "members": [{"name": "filename", "type": "str"}, {"name": "format", "type": "63", "default": None}],
    },
    {"name": "63", "meta-type": "enum", "members": [{"name": "ppm"}, {"name": "png"}], "values": ["ppm", "png"]},
    {"name": "0", "meta-type": "object", "members": []},
    {"name": "17", "meta-type": "object", "members": []},
    {"name": "str", "meta-type": "builtin", "json-type": "string"},
    {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
]


def judge(trial: Trial, schema: Schema, name: str, argument: str, expected: bool) -> None:
    """Ask for one command (and one of its arguments) and explain a wrong answer by what the schema says of it."""
    done = trial.attempt(schema, name, argument)
    asked = f"has_command(schema, {name!r}{f', {argument!r}' if argument else ''})"
    if done.error in ("IndexError", "KeyError", "TypeError", "StopIteration") and argument:
        trial.wrong(
            "type-as-index",
            f"{asked} raised {done.error}: {done.detail}",
            "A type's number is a name, not a place in the list, and a command may have no such type.",
        )
    got = trial.value_of(done, asked)
    if got is expected:
        return
    if not isinstance(got, bool):
        state = trial.nearly if bool(got) is expected else trial.wrong
        state("not-bool", f"{asked} returned {shorten(got)}: say True or False.")
    if expected:
        _explain_missed(trial, schema, name, argument, asked)
    _explain_invented(trial, schema, name, argument, asked)


def _explain_missed(trial: Trial, schema: Schema, name: str, argument: str, asked: str) -> None:
    entry = next(e for e in schema if e["meta-type"] == "command" and e["name"] == name)
    if argument:
        its_type = next(e for e in schema if e["name"] == entry["arg-type"])
        trial.wrong(
            "argument-not-found",
            f"{asked} returned False, but the command's arg-type is {entry['arg-type']!r}, and that is"
            f"\n{shorten(its_type)}",
            "A type's number is the name of another entry; that entry lists mandatory and optional members.",
        )
    deprecated = "deprecated" in entry.get("features", [])
    trial.wrong(
        "deprecated-is-absent" if deprecated else "command-not-found",
        f"{asked} returned False, but the schema has {shorten(entry)}.",
        "Deprecated means that it will go one day; today it works." if deprecated else "What does an entry's name say?",
    )


def _explain_invented(trial: Trial, schema: Schema, name: str, argument: str, asked: str) -> None:
    command = next((e for e in schema if e["meta-type"] == "command" and e["name"] == name), None)
    said = f"{asked} returned True"
    if command and argument:
        other = [e for e in schema if any(m["name"] == argument for m in e.get("members", []))]
        trial.wrong(
            "any-type" if other else "argument-ignored",
            f"{said}: its arg-type {command['arg-type']!r} has no member {argument!r}"
            + (f" (type {other[0]['name']!r} has one)." if other else "."),
            "Whose members did you look at?",
        )
    namesake = next((e for e in schema if e["name"] == name), None)
    if namesake:
        trial.wrong(
            "any-entity",
            f"{said}, but {name} is of meta-type {namesake['meta-type']!r}.",
            "Commands are not the only things that a schema describes.",
        )
    if any(e["name"].lower() == name.lower() and e["meta-type"] == "command" for e in schema):
        trial.wrong("case", f"{said}; the command's name is written otherwise.", "QMP's names are case-sensitive.")
    if name in str(schema):
        trial.wrong("substring", f"{said}: these letters do stand somewhere in the schema.", "Where must they stand?")
    trial.wrong("invented", f"{said}, but the schema has no such entry.", "Which entries did you look at?")


@has_command.step("a command is found in a small schema, and nothing else is taken for one")
def _tiny(trial: Trial) -> None:
    for name, expected in [("stop", True), ("screendump", True), ("guest", False), ("str", False), ("SHUTDOWN", False)]:
        judge(trial, TINY, name, "", expected)


@has_command.step("an argument is found through the command's arg-type")
def _arguments(trial: Trial) -> None:
    for name, argument, expected in [
        ("screendump", "filename", True),
        ("screendump", "format", True),
        ("stop", "colour", False),
        ("stop", "guest", False),
    ]:
        judge(trial, TINY, name, argument, expected)


@has_command.step("it agrees with query-commands of a real QEMU")
def _real(trial: Trial) -> None:
    with Machine("-machine", "none", name="check") as vm:
        schema = vm.execute("query-qmp-schema")
        commands = {c["name"] for c in vm.execute("query-commands")}
    for name in sorted(trial.rng.sample(sorted(commands), 3)):
        judge(trial, schema, name, "", expected=True)
    for name in ("teleport", "SHUTDOWN", "str"):
        judge(trial, schema, name, "", expected=False)
