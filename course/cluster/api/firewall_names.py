"""The firewall's names: aliases and sets of addresses at the levels that have them, and security groups."""

from __future__ import annotations

import ipaddress
from typing import Any

from ...error import ParameterError
from ..config.firewall import Firewall, Named
from ..declaration import Declarations, Parameter
from ..net import editing
from ..net.editing import Place
from ..net.levels import Scope
from .common import ALL, Call, endpoint, flag, text
from .firewall import CLUSTER, CT, DIGEST_64, GROUP, VM, Level, cluster_file, name_of


def _declare_aliases(level: Level) -> None:
    """Declare the calls about aliases."""
    path, common = f"{level.path}/aliases", level.parameters
    named = {**common, "name": name_of(64)}

    @endpoint("GET", path, parameters=common, permissions=level.audit, proxy=None)
    def aliases(call: Call) -> Any:
        return editing.with_digest(editing.aliases(editing.load(call.node.state, level.place(call))))

    @endpoint(
        "POST",
        path,
        parameters={**named, "cidr": Parameter(format="IPorCIDR"), "comment": text()},
        permissions=level.modify,
        proxy=None,
    )
    def add(call: Call) -> Any:
        name = call.values["name"]
        with editing.change(call.node.state, level.place(call)) as firewall:
            if name.lower() in firewall.aliases:
                raise ParameterError({"name": f"alias '{name}' already exists"})
            firewall.aliases[name.lower()] = Named(call.values["cidr"], call.values.get("comment"))

    @endpoint("GET", f"{path}/{{name}}", parameters=named, permissions=level.audit, proxy=None)
    def alias(call: Call) -> Any:
        firewall = editing.load(call.node.state, level.place(call))
        _known_alias(firewall, call.values["name"])
        return next(one for one in editing.aliases(firewall) if one["name"] == call.values["name"].lower())

    @endpoint(
        "PUT",
        f"{path}/{{name}}",
        parameters={
            **named,
            "cidr": Parameter(format="IPorCIDR"),
            "comment": text(),
            "rename": name_of(64, optional=True),
            "digest": DIGEST_64,
        },
        permissions=level.modify,
        proxy=None,
    )
    def change(call: Call) -> Any:
        values = call.values
        name, rename = values["name"].lower(), values.get("rename", values["name"]).lower()
        with editing.change(call.node.state, level.place(call)) as firewall:
            editing.assert_unchanged(editing.aliases(firewall), values.get("digest"))
            _known_alias(firewall, name)
            if rename != name and rename in firewall.aliases:
                raise ParameterError({"name": f"alias '{values['rename']}' already exists"})
            del firewall.aliases[name]
            firewall.aliases[rename] = Named(values["cidr"], values.get("comment"))

    @endpoint(
        "DELETE", f"{path}/{{name}}", parameters={**named, "digest": DIGEST_64}, permissions=level.modify, proxy=None
    )
    def remove(call: Call) -> Any:
        with editing.change(call.node.state, level.place(call)) as firewall:
            editing.assert_unchanged(editing.aliases(firewall), call.values.get("digest"))
            firewall.aliases.pop(call.values["name"].lower(), None)


def _known_alias(firewall: Firewall, name: str) -> None:
    if name.lower() not in firewall.aliases:
        raise ParameterError({"name": "no such alias"})


def _declare_sets(level: Level) -> None:
    """Declare the calls about sets of addresses as wholes."""
    path, common = f"{level.path}/ipset", level.parameters
    named = {**common, "name": name_of(64)}

    def listed(firewall: Firewall) -> list[dict[str, Any]]:
        comments = {name: firewall.comments.get(f"ipset {name}") for name in sorted(firewall.ipsets)}
        return [{"name": name, **({"comment": words} if words else {})} for name, words in comments.items()]

    @endpoint("GET", path, parameters=common, permissions=level.audit, proxy=None)
    def sets(call: Call) -> Any:
        return editing.with_digest(listed(editing.load(call.node.state, level.place(call))))

    @endpoint(
        "POST",
        path,
        parameters={**named, "comment": text(), "rename": name_of(64, optional=True), "digest": DIGEST_64},
        permissions=level.modify,
        proxy=None,
    )
    def add(call: Call) -> Any:
        values = call.values
        name, before = values["name"].lower(), values.get("rename", "").lower()
        with editing.change(call.node.state, level.place(call)) as firewall:
            if before:
                editing.assert_unchanged(listed(firewall), values.get("digest"))
                if before not in firewall.ipsets:
                    raise ParameterError({"name": f"IPSet '{values['rename']}' does not exist"})
            if name in firewall.ipsets and name != before:
                raise ParameterError({"name": f"IPSet '{values['name']}' already exists"})
            firewall.ipsets[name] = firewall.ipsets.pop(before, [])
            _comment(firewall, "ipset", before, name, values.get("comment"))

    @endpoint("DELETE", f"{path}/{{name}}", parameters={**named, "force": flag()}, permissions=level.modify, proxy=None)
    def remove(call: Call) -> Any:
        name = call.values["name"]
        with editing.change(call.node.state, level.place(call)) as firewall:
            if editing.set_of(firewall, name) and not call.values.get("force"):
                raise editing.Refused(f"IPSet '{name}' is not empty")
            del firewall.ipsets[name.lower()]
            firewall.comments.pop(f"ipset {name.lower()}", None)

    _declare_entries(level, f"{path}/{{name}}", named)


def _comment(firewall: Firewall, kind: str, before: str, name: str, words: str | None) -> None:
    """Give a set or group its remark, or the one that it had under another name."""
    kept = firewall.comments.pop(f"{kind} {before}", None)
    chosen = kept if words is None else words
    if chosen:
        firewall.comments[f"{kind} {name}"] = chosen


def _declare_entries(level: Level, path: str, named: Declarations) -> None:
    """Declare the calls about the entries of a set."""
    one = {**named, "cidr": Parameter(format="IPorCIDRorAlias")}
    fields = {"comment": text(), "nomatch": flag()}

    @endpoint("GET", path, parameters=named, permissions=level.audit, proxy=None)
    def members(call: Call) -> Any:
        found = editing.set_of(editing.load(call.node.state, level.place(call)), call.values["name"])
        return editing.with_digest(editing.entries(found))

    @endpoint("POST", path, parameters={**one, **fields}, permissions=level.modify, proxy=None)
    def add(call: Call) -> Any:
        values = call.values
        with editing.change(call.node.state, level.place(call)) as firewall:
            found = editing.set_of(firewall, values["name"])
            cidr = editing.clean(values["cidr"], Scope(firewall, cluster_file(call)))
            if any(member.address == cidr for member in found):
                raise ParameterError({"cidr": f"address '{cidr}' already exists"})
            found.insert(0, Named(cidr, values.get("comment"), bool(values.get("nomatch"))))

    @endpoint("GET", f"{path}/{{cidr}}", parameters=one, permissions=level.audit, proxy=None)
    def member(call: Call) -> Any:
        found = editing.set_of(editing.load(call.node.state, level.place(call)), call.values["name"])
        return editing.with_digest(editing.entries(found))[_entry(found, call.values["cidr"])]

    @endpoint(
        "PUT",
        f"{path}/{{cidr}}",
        parameters={**one, **fields, "digest": DIGEST_64},
        permissions=level.modify,
        proxy=None,
    )
    def change(call: Call) -> Any:
        values = call.values
        with editing.change(call.node.state, level.place(call)) as firewall:
            found = editing.set_of(firewall, values["name"])
            editing.assert_unchanged(editing.entries(found), values.get("digest"))
            entry = found[_entry(found, values["cidr"])]
            entry.comment, entry.nomatch = values.get("comment"), bool(values.get("nomatch"))

    @endpoint(
        "DELETE", f"{path}/{{cidr}}", parameters={**one, "digest": DIGEST_64}, permissions=level.modify, proxy=None
    )
    def remove(call: Call) -> Any:
        with editing.change(call.node.state, level.place(call)) as firewall:
            found = editing.set_of(firewall, call.values["name"])
            editing.assert_unchanged(editing.entries(found), call.values.get("digest"))
            found[:] = [member for member in found if not _same(member.address, call.values["cidr"])]


def _entry(members: list[Named], cidr: str) -> int:
    """Return which entry of a set an address is."""
    for number_, one in enumerate(members):
        if _same(one.address, cidr):
            return number_
    raise ParameterError({"cidr": "no such IP/Network"})


def _same(one: str, other: str) -> bool:
    """Say whether two entries are the same address, however it is written."""
    try:
        return ipaddress.ip_interface(one) == ipaddress.ip_interface(other)
    except ValueError:
        return one.lower() == other.lower()


def _declare_groups() -> None:
    """Declare the calls about security groups as wholes."""
    path = "/cluster/firewall/groups"

    def listed(firewall: Firewall) -> list[dict[str, Any]]:
        comments = {name: firewall.comments.get(f"group {name}") for name in sorted(firewall.groups)}
        return [{"group": name, **({"comment": words} if words else {})} for name, words in comments.items()]

    @endpoint("GET", path, permissions=ALL)
    def groups(call: Call) -> Any:
        return editing.with_digest(listed(cluster_file(call)))

    @endpoint(
        "POST",
        path,
        parameters={
            "group": name_of(18),
            "comment": text(),
            "rename": name_of(18, optional=True),
            "digest": DIGEST_64,
        },
        permissions=CLUSTER.modify,
    )
    def add(call: Call) -> Any:
        values = call.values
        name, before = values["group"].lower(), values.get("rename", "").lower()
        with editing.change(call.node.state, Place.cluster()) as firewall:
            if before:
                editing.assert_unchanged(listed(firewall), values.get("digest"))
                if before not in firewall.groups:
                    raise ParameterError({"group": f"Security group '{values['rename']}' does not exist"})
            if name in firewall.groups and name != before:
                does = "does already exist" if before else "already exists"
                raise ParameterError({"group": f"Security group '{values['group']}' {does}"})
            firewall.groups[name] = firewall.groups.pop(before, [])
            _comment(firewall, "group", before, name, values.get("comment"))
            _rename_uses(firewall, before, name)
        if before and before != name:
            _rename_everywhere(call, before, name)

    @endpoint("DELETE", f"{path}/{{group}}", parameters=GROUP.parameters, permissions=CLUSTER.modify)
    def remove(call: Call) -> Any:
        place = GROUP.place(call)
        with editing.change(call.node.state, place) as firewall:
            if place.rules(firewall):
                raise editing.Refused(f"Security group '{call.values['group']}' is not empty")
            del firewall.groups[place.group]
            firewall.comments.pop(f"group {place.group}", None)


def _rename_uses(firewall: Firewall, before: str, name: str) -> bool:
    """Let rules that use a group use its new name; say whether there were any."""
    used = [rule for rule in firewall.rules if rule.type == "group" and rule.action.lower() == before]
    for rule in used:
        rule.action = name
    return bool(used)


def _rename_everywhere(call: Call, before: str, name: str) -> None:
    """Let the rules of all nodes and guests use a group's new name."""
    state = call.node.state
    places = [Place.host(node) for node in state.nodes]
    numbers = (path.stem for path in sorted(state.path("firewall").glob("*.fw")))
    places += [Place.guest("vm", int(number)) for number in numbers if number.isdecimal()]
    for place in places:
        if _rename_uses(editing.load(state, place), before, name):
            with editing.change(state, place) as firewall:
                _rename_uses(firewall, before, name)


def _declare() -> None:
    """Declare the calls of all levels that have names."""
    for level in (CLUSTER, VM, CT):
        _declare_aliases(level)
        _declare_sets(level)
    _declare_groups()


_declare()
