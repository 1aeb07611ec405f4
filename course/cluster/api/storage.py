"""The cluster's storages: their list, making, changing and forgetting one."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..config import files
from ..storage import definitions, rights, seen
from .common import ALL, STORAGE_REQUIRED, Call, choice, endpoint, perm, text

NAME = {"storage": STORAGE_REQUIRED}
KIND = choice(definitions.TYPES)
ALLOCATE = perm("/storage", "Datastore.Allocate")


@endpoint("GET", "/storage", parameters={"type": KIND}, permissions=ALL, inline=True)
def storages(call: Call) -> Any:
    """Return the storages that the caller may see."""
    digest = files.digest(call.node.state.read("storage.cfg"))
    return [
        definitions.record(section, digest)
        for section in call.node.state.storages().values()
        if call.values.get("type") in (None, section.kind) and rights.may_see(call, section.name)
    ]


@endpoint("GET", "/storage/{storage}", parameters=NAME, permissions=perm("/storage/{storage}", "Datastore.Allocate"))
def storage(call: Call) -> Any:
    """Return what is said about one."""
    section = seen.configured(call.node.state.storages(), call.values["storage"])
    return definitions.record(section, files.digest(call.node.state.read("storage.cfg")))


@endpoint(
    "POST",
    "/storage",
    parameters={
        **definitions.CHANGEABLE,
        **definitions.FIXED,
        **NAME,
        "type": choice(definitions.TYPES, optional=False),
    },
    permissions=ALLOCATE,
)
def create(call: Call) -> Any:
    """Make a storage: its directory appears when it is first used."""
    name, kind = call.values["storage"], call.values["type"]
    values = {key: value for key, value in call.values.items() if key not in ("storage", "type")}
    with definitions.changing(call.node.state, "create") as sections:
        if name in sections:
            raise ClusterError(f"storage ID '{name}' already defined")
        section = definitions.new_section(kind, name, values)
        root = seen.place(section, call.node.state.root, call.node.name)
        if kind in ("nfs", "cifs") and not root.is_dir():
            raise ClusterError(f"storage '{name}' is not online")
        if seen.is_on(section, call.node.name):
            root.mkdir(parents=True, exist_ok=True)
        sections[name] = section
    call.node.statistics.changed()
    return {"storage": name, "type": kind}


@endpoint(
    "PUT",
    "/storage/{storage}",
    parameters={
        **definitions.CHANGEABLE,
        **NAME,
        "delete": text("pve-configid-list", longest=4096),
        "digest": text(longest=64),
    },
    permissions=ALLOCATE,
)
def change(call: Call) -> Any:
    """Change what is said about a storage."""
    values = dict(call.values)
    name, deleted, digest = values.pop("storage"), values.pop("delete", ""), values.pop("digest", None)
    with definitions.changing(call.node.state, "update", digest) as sections:
        section = seen.configured(sections, name)
        definitions.change_section(section, values, deleted)
    call.node.statistics.changed()
    return {"storage": name, "type": section.kind}


@endpoint("DELETE", "/storage/{storage}", parameters=NAME, permissions=ALLOCATE)
def forget(call: Call) -> Any:
    """Forget a storage; what is on it stays."""
    with definitions.changing(call.node.state, "delete") as sections:
        seen.configured(sections, call.values["storage"])
        del sections[call.values["storage"]]
    call.node.statistics.changed()
