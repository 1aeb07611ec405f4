"""Answers to `has_command`."""

from __future__ import annotations

from .. import alternative, mutant


def _command(schema, name):
    return next((e for e in schema if e["meta-type"] == "command" and e["name"] == name), None)


def _members(schema, type_name):
    entry = next((e for e in schema if e["name"] == type_name), {})
    return [m["name"] for m in entry.get("members", [])]


@mutant("has_command", "substring")
def letters_anywhere(schema, name, argument=""):
    return name in str(schema) and argument in str(schema)


@mutant("has_command", "any-entity")
def any_name(schema, name, argument=""):
    entry = next((e for e in schema if e["name"] == name), None)
    if entry is None:
        return False
    return not argument or argument in _members(schema, entry.get("arg-type"))


@mutant("has_command", "any-entity")
def commands_and_events(schema, name, argument=""):
    entry = next((e for e in schema if e["name"] == name and e["meta-type"] in ("command", "event")), None)
    return entry is not None and (not argument or argument in _members(schema, entry["arg-type"]))


@mutant("has_command", "case")
def without_case(schema, name, argument=""):
    entry = next((e for e in schema if e["meta-type"] == "command" and e["name"].lower() == name.lower()), None)
    return entry is not None and (not argument or argument in _members(schema, entry["arg-type"]))


@mutant("has_command", "argument-ignored")
def only_the_name(schema, name, argument=""):
    return _command(schema, name) is not None


@mutant("has_command", "any-type")
def argument_of_any_type(schema, name, argument=""):
    if _command(schema, name) is None:
        return False
    return not argument or any(m["name"] == argument for e in schema for m in e.get("members", []))


@mutant("has_command", "type-as-index")
def type_number_as_index(schema, name, argument=""):
    command = _command(schema, name)
    if command is None:
        return False
    return not argument or argument in [m["name"] for m in schema[int(command["arg-type"])]["members"]]


@mutant("has_command", "command-not-found")
def a_list_of_my_own(schema, name, argument=""):
    known = {"stop", "cont", "quit", "query-status", "device_add", "migrate"}
    return name in known and (not argument or argument in _members(schema, _command(schema, name)["arg-type"]))


@mutant("has_command", "deprecated-is-absent")
def without_deprecated(schema, name, argument=""):
    command = _command(schema, name)
    if command is None or "deprecated" in command.get("features", []):
        return False
    return not argument or argument in _members(schema, command["arg-type"])


@mutant("has_command", "argument-not-found")
def members_of_the_command(schema, name, argument=""):
    command = _command(schema, name)
    return command is not None and (not argument or argument in command.get("members", []))


@mutant("has_command", "argument-not-found")
def only_mandatory_arguments(schema, name, argument=""):
    command = _command(schema, name)
    if command is None:
        return False
    entry = next(e for e in schema if e["name"] == command["arg-type"])
    return not argument or argument in [m["name"] for m in entry["members"] if "default" not in m]


@mutant("has_command", "forgot-return")
def true_or_nothing(schema, name, argument=""):
    for entry in schema:
        if entry["meta-type"] == "command" and entry["name"] == name:
            if not argument or argument in _members(schema, entry["arg-type"]):
                return True


@mutant("has_command", "not-bool")
def the_entry_itself(schema, name, argument=""):
    command = _command(schema, name) or {}
    return command if not argument else argument in _members(schema, command.get("arg-type"))


@mutant("has_command", "substring")
def beginning_of_a_name(schema, name, argument=""):
    command = next((e for e in schema if e["meta-type"] == "command" and e["name"].startswith(name)), None)
    return command is not None and (not argument or argument in _members(schema, command["arg-type"]))


@alternative("has_command")
def in_two_steps(schema, name, argument=""):
    command = _command(schema, name)
    if command is None:
        return False
    return not argument or argument in _members(schema, command["arg-type"])


@alternative("has_command")
def with_a_dict(schema, name, argument=""):
    by_name = {(e["meta-type"], e["name"]): e for e in schema}
    command = by_name.get(("command", name))
    if not argument or not command:
        return bool(command)
    return any(m["name"] == argument for m in by_name[("object", command["arg-type"])]["members"])


@alternative("has_command")
def with_any(schema, name, argument=""):
    types = {e["name"]: e for e in schema}
    return any(
        e["meta-type"] == "command"
        and e["name"] == name
        and (argument == "" or argument in {m["name"] for m in types[e["arg-type"]].get("members", ())})
        for e in schema
    )
