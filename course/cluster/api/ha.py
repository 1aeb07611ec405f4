"""High availability: which guests are looked after, where they may run, and how that goes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ...error import ClusterError, ParameterError
from ..config import files
from ..config.sections import TypedSection
from ..formats import split_list
from ..ha import describe
from ..ha.states import Wish
from ..ha.store import GROUPS, KINDS, MANAGER, RESOURCES, Store, sid_of, vmid_of
from .common import ALL, NODE, Call, Parameter, choice, endpoint, flag, index, number, perm, text

AUDIT, CONSOLE = perm("/", "Sys.Audit"), perm("/", "Sys.Console")
SID = {"sid": Parameter(format="pve-ha-resource-or-vm-id")}
GROUP = {"group": Parameter(format="pve-configid")}
KIND = choice("ct vm")
_SID = re.compile(r"(?:(vm|ct):)?([1-9][0-9]{2,8})")
_RESOURCE = {
    **SID,
    "comment": text(longest=4096),
    "group": text("pve-configid"),
    "max_relocate": number(0, default=1),
    "max_restart": number(0, default=1),
    "state": choice("started stopped enabled disabled ignored", "started"),
}
_CHANGE = {"delete": text("pve-configid-list", longest=4096), "digest": text(longest=64)}
_GROUP = {**GROUP, "comment": text(longest=4096), "nofailback": flag(0), "restricted": flag(0)}
_NODES = "pve-ha-group-node-list"

index("/cluster/ha", key="id", permissions=AUDIT)
index("/cluster/ha/status", key="name", permissions=ALL)


def _store(call: Call) -> Store:
    return Store(call.node.state)


def _sid(call: Call) -> str:
    """Return the service that is meant: ``vm:169``, also when only the number is given.

    Raises:
        ParameterError: it cannot be one.
        ClusterError: there is no such guest.
    """
    given = str(call.values["sid"])
    if not _SID.fullmatch(given):
        raise ParameterError({"sid": f"invalid format - value does not look like a valid HA resource ID '{given}'\n"})
    return sid_of(given, call.node.state)


def _digest(call: Call, relative: str) -> str:
    return files.digest(call.node.state.read(relative).encode())


@contextlib.contextmanager
def _changing(call: Call, relative: str, what: str) -> Iterator[dict[str, TypedSection]]:
    """Change a file of sections; errors say what failed.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    try:
        with _store(call).changing(relative) as entries:
            if call.values.get("digest") not in (None, _digest(call, relative)):
                raise ClusterError("detected modified configuration - file changed by other user? Try again.")
            yield entries
    except ParameterError:
        raise
    except ClusterError as error:
        raise ClusterError(f"{what}: {error.message}", status=error.status) from error


def _apply(section: TypedSection, values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Take over what was given, and take away what was to be deleted."""
    for key in keys:
        if key in values:
            section.values[key] = str(values[key])
    for key in split_list(values.get("delete", "")):
        if key not in keys or key == "nodes":
            raise ClusterError(f"unable to delete required or unknown option '{key}'")
        section.values.pop(key, None)


RESOURCE_KEYS = ("state", "group", "max_restart", "max_relocate", "comment")
GROUP_KEYS = ("nodes", "restricted", "nofailback", "comment")


# Resources


def _resource(call: Call, sid: str, section: TypedSection) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        key: int(section.values[key]) for key in ("max_restart", "max_relocate") if key in section.values
    }
    words: dict[str, Any] = {key: section.values[key] for key in ("state", "group", "comment") if key in section.values}
    return {"sid": sid, "type": section.kind, **words, **numbers, "digest": _digest(call, RESOURCES)}


@endpoint("GET", "/cluster/ha/resources", parameters={"type": KIND}, permissions=AUDIT)
def resources(call: Call) -> Any:
    """Return the services."""
    kind = call.values.get("type")
    found = _store(call).sections(RESOURCES).items()
    return [_resource(call, sid, section) for sid, section in found if kind in (None, section.kind)]


@endpoint("POST", "/cluster/ha/resources", parameters={**_RESOURCE, "type": KIND}, permissions=CONSOLE)
def create_resource(call: Call) -> Any:
    """Look after a guest."""
    sid = _sid(call)
    kind, name = sid.split(":")
    if call.values.get("type", kind) != kind:
        raise ClusterError("types does not match")
    place = call.node.state.guests().get(vmid_of(sid))
    if place is None or KINDS[place.kind] != kind:
        raise ClusterError(f"{'CT' if kind == 'ct' else 'VM'} {name} does not exist")
    with _changing(call, RESOURCES, "create resource failed") as entries:
        if sid in entries:
            raise ClusterError(f"resource ID '{sid}' already defined")
        _assert_group(call)
        section = TypedSection(kind, name)
        _apply(section, call.values, RESOURCE_KEYS)
        section.values.setdefault("state", "started")
        entries[sid] = section


def _assert_group(call: Call) -> None:
    group = call.values.get("group")
    if group is not None and group not in _store(call).sections(GROUPS):
        raise ClusterError(f"HA group '{group}' does not exist")


@endpoint("GET", "/cluster/ha/resources/{sid}", parameters=SID, permissions=AUDIT)
def resource(call: Call) -> Any:
    """Return a service."""
    sid = _sid(call)
    section = _store(call).sections(RESOURCES).get(sid)
    if section is None:
        raise ClusterError(f"no such resource '{sid}'")
    return _resource(call, sid, section)


@endpoint("PUT", "/cluster/ha/resources/{sid}", parameters={**_RESOURCE, **_CHANGE}, permissions=CONSOLE)
def change_resource(call: Call) -> Any:
    """Change what is wanted of a service."""
    sid = _sid(call)
    with _changing(call, RESOURCES, "update resource failed") as entries:
        if sid not in entries:
            raise ClusterError(f"no such resource '{sid}'")
        _assert_group(call)
        _apply(entries[sid], call.values, RESOURCE_KEYS)


@endpoint("DELETE", "/cluster/ha/resources/{sid}", parameters=SID, permissions=CONSOLE)
def delete_resource(call: Call) -> Any:
    """Look after a guest no more; it goes on as it is."""
    sid = _sid(call)
    with _changing(call, RESOURCES, "delete resource failed") as entries:
        if entries.pop(sid, None) is None:
            raise ClusterError(f"cannot delete service '{sid}', not HA managed!")


def _move(call: Call, verb: str) -> None:
    sid, target = _sid(call), str(call.values["node"])
    section = _store(call).sections(RESOURCES).get(sid)
    if section is None or section.values.get("state") == Wish.IGNORED:
        raise ClusterError(f"service '{sid}' not managed by HA")
    if target not in call.node.state.nodes:
        raise ClusterError(f"no such cluster node '{target}'")
    _store(call).command(f"{verb} {sid} {target}")


_MOVE = {**SID, "node": NODE}


@endpoint("POST", "/cluster/ha/resources/{sid}/migrate", parameters=_MOVE, permissions=CONSOLE, proxy=None)
def migrate(call: Call) -> Any:
    """Ask for a service to be moved while it runs."""
    _move(call, "migrate")


@endpoint("POST", "/cluster/ha/resources/{sid}/relocate", parameters=_MOVE, permissions=CONSOLE, proxy=None)
def relocate(call: Call) -> Any:
    """Ask for a service to be stopped, moved and started."""
    _move(call, "relocate")


# Groups


def _group(call: Call, section: TypedSection) -> dict[str, Any]:
    flags: dict[str, Any] = {
        key: int(section.flag(key)) for key in ("restricted", "nofailback") if key in section.values
    }
    words: dict[str, Any] = {key: section.values[key] for key in ("nodes", "comment") if key in section.values}
    return {"group": section.name, "type": "group", **words, **flags, "digest": _digest(call, GROUPS)}


@endpoint("GET", "/cluster/ha/groups", permissions=AUDIT)
def groups(call: Call) -> Any:
    """Return the groups."""
    return [_group(call, section) for section in _store(call).sections(GROUPS).values()]


@endpoint(
    "POST",
    "/cluster/ha/groups",
    parameters={**_GROUP, "nodes": Parameter(format=_NODES), "type": choice("group")},
    permissions=CONSOLE,
)
def create_group(call: Call) -> Any:
    """Make a group of nodes."""
    name = str(call.values["group"])
    _assert_nodes(call)
    with _changing(call, GROUPS, "create ha group failed") as entries:
        if name in entries:
            raise ClusterError(f"ha group ID '{name}' already defined")
        section = TypedSection("group", name)
        _apply(section, call.values, GROUP_KEYS)
        entries[name] = section


def _assert_nodes(call: Call) -> None:
    for entry in split_list(call.values.get("nodes", "")):
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9-]*(:\d+)?", entry):
            words = "invalid format - value does not look like a valid ha group node"
            raise ParameterError({"nodes": f"{words}\n"})


@endpoint("GET", "/cluster/ha/groups/{group}", parameters=GROUP, permissions=AUDIT)
def group(call: Call) -> Any:
    """Return a group."""
    section = _store(call).sections(GROUPS).get(call.values["group"])
    if section is None:
        raise ClusterError(f"no such ha group '{call.values['group']}'")
    return _group(call, section)


@endpoint(
    "PUT",
    "/cluster/ha/groups/{group}",
    parameters={**_GROUP, **_CHANGE, "nodes": text(_NODES)},
    permissions=CONSOLE,
)
def change_group(call: Call) -> Any:
    """Change a group."""
    name = str(call.values["group"])
    _assert_nodes(call)
    with _changing(call, GROUPS, "update ha group failed") as entries:
        if name not in entries:
            raise ClusterError(f"no such ha group '{name}'")
        _apply(entries[name], call.values, GROUP_KEYS)


@endpoint("DELETE", "/cluster/ha/groups/{group}", parameters=GROUP, permissions=CONSOLE)
def delete_group(call: Call) -> Any:
    """Remove a group that no service is in."""
    name = str(call.values["group"])
    with _changing(call, GROUPS, "delete ha group failed") as entries:
        if any(section.values.get("group") == name for section in _store(call).sections(RESOURCES).values()):
            raise ClusterError(f"ha group '{name}' is in use")
        if entries.pop(name, None) is None:
            raise ClusterError(f"no such ha group '{name}'")


# Status


@endpoint("GET", "/cluster/ha/status/current", permissions=AUDIT)
def current(call: Call) -> Any:
    """Say how the services are."""
    return describe.current(call.node.state, call.node.name, int(time.time()))


@endpoint("GET", "/cluster/ha/status/manager_status", permissions=AUDIT)
def manager_status(call: Call) -> Any:
    """Return the manager's own files."""
    state = call.node.state
    return {
        "manager_status": _store(call).status(MANAGER),
        "quorum": {"node": call.node.name, "quorate": str(int(state.quorate()))},
        "lrm_status": {node: describe.local(state, node).document() for node in state.nodes},
    }
