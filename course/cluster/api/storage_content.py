"""A node's storages: their room, what is on them, making and removing volumes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from ...error import ClusterError, ParameterError
from .. import formats
from ..storage import Storage, attributes, rights, seen, storage_of
from ..storage.seen import make
from ..tasks import Task
from .common import (
    ALL,
    NODE,
    STORAGE,
    STORAGE_REQUIRED,
    VMID,
    Call,
    Parameter,
    endpoint,
    flag,
    index,
    number,
    perm,
    text,
)

PLACE = {"node": NODE, "storage": STORAGE_REQUIRED}
OF_GUEST = replace(VMID, optional=True)
VOLUME = {"node": NODE, "storage": STORAGE, "volume": text(optional=False)}
MAY_SEE = perm("/storage/{storage}", *rights.AUDIT, any_of=True)
CONTENT_PATH = "/nodes/{node}/storage/{storage}/content"
VOLUME_PATH = f"{CONTENT_PATH}/{{volume}}"
_SIZE = re.compile(r"(\d+)([MG]?)")
_UNITS = {"": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DISK_ENDING = re.compile(r"\.(raw|qcow2|vmdk|subvol)$")


@endpoint(
    "GET",
    "/nodes/{node}/storage",
    parameters={
        "node": NODE,
        "storage": STORAGE,
        "content": text("pve-storage-content-list"),
        "enabled": flag(0),
        "target": text("pve-node"),
        "format": flag(0),
    },
    permissions=ALL,
)
def storages(call: Call) -> Any:
    """Return the storages of this node with their room."""
    values, state = call.values, call.node.state
    target = values.get("target")
    if target is not None and target not in state.nodes:
        raise ClusterError(f"no such cluster node '{target}'")
    wanted = set(formats.split_list(values.get("content", "")))
    found = []
    for section in state.storages().values():
        storage = make(section, state.root, call.node.name)
        if values.get("storage") not in (None, storage.name) or not rights.may_see(call, storage.name):
            continue
        if not seen.is_on(section, call.node.name) or (wanted and not wanted & storage.content):
            continue
        if target not in (None, call.node.name) and not seen.is_on(section, str(target)):
            continue
        if storage.enabled or not values.get("enabled"):
            found.append(described(storage, formats=bool(values.get("format"))))
    return found


def described(storage: Storage, *, formats: bool = False) -> dict[str, Any]:
    """Return a storage with its room, as the list shows it."""
    entry: dict[str, Any] = {
        "storage": storage.name,
        "type": storage.kind,
        "content": ",".join(sorted(storage.content)),
        "shared": int(storage.shared),
        "enabled": int(storage.enabled),
        "active": 0,
    }
    if storage.enabled:
        room = storage.status(fresh=False)
        entry |= room.record()
        if room.total:
            entry["used_fraction"] = room.used / room.total
    if formats:
        entry["format"] = [dict.fromkeys(storage.formats, 1), storage.default_format]
    return entry


index("/nodes/{node}/storage/{storage}", PLACE, permissions=MAY_SEE)


@endpoint("GET", "/nodes/{node}/storage/{storage}/status", parameters=PLACE, permissions=MAY_SEE)
def status(call: Call) -> Any:
    """Return the room of one storage."""
    section = call.node.state.storages().get(call.values["storage"])
    if section is None or not seen.is_on(section, call.node.name):
        raise ParameterError({"storage": "No such storage."})
    entry = described(make(section, call.node.state.root, call.node.name))
    return {key: value for key, value in entry.items() if key not in ("storage", "used_fraction")}


@endpoint(
    "GET",
    CONTENT_PATH,
    parameters={
        **PLACE,
        "content": text("pve-storage-content"),
        "vmid": OF_GUEST,
    },
    permissions=MAY_SEE,
)
def content(call: Call) -> Any:
    """Return what is on a storage, as far as the caller may read it."""
    storage = storage_of(call.node, call.values["storage"])
    kinds = call.node.state.guests()
    found = []
    for entry in storage.volumes(call.values.get("content"), call.values.get("vmid")):
        if rights.may_read(call, entry["volid"]):
            owner = kinds.get(entry.get("vmid", 0))
            if entry["content"] == "images" and owner is not None and owner.kind == "lxc":
                entry["content"] = "rootdir"
            found.append(entry)
    return found


@endpoint(
    "POST",
    CONTENT_PATH,
    parameters={
        **PLACE,
        "vmid": VMID,
        "filename": text(optional=False),
        "size": text(pattern=r"\d+[MG]?", optional=False),
        "format": Parameter(enum=("raw", "qcow2", "subvol"), optional=True, requires="size"),
    },
    permissions=perm("/storage/{storage}", "Datastore.AllocateSpace"),
)
def allocate(call: Call) -> Any:
    """Make an empty disk under a given name."""
    values = call.values
    storage = storage_of(call.node, values["storage"])
    named = _DISK_ENDING.search(values["filename"])
    wanted = values.get("format")
    if named and wanted and named[1] != wanted:
        raise ParameterError({"format": f"different storage formats ({wanted} != {named[1]})"})
    if not storage.content & {"images", "rootdir"}:
        storage.require("images")
    found = _SIZE.fullmatch(values["size"])
    assert found is not None
    size = int(found[1]) * _UNITS[found[2]]
    chosen = wanted or (named[1] if named else "raw")
    return storage.alloc(values["vmid"], chosen, size, values["filename"])


def whole_id(call: Call) -> str:
    """Return the volume id that a path means: the storage may be left out of it.

    Raises:
        ParameterError: two storages are named, or none.
    """
    storage, volume = call.values.get("storage"), call.values["volume"]
    head, colon, _ = volume.partition(":")
    if colon and "/" not in head:
        if storage not in (None, head):
            raise ParameterError({"storage": f"storage ID mismatch ({head} != {storage})"})
        return str(volume)
    if storage is None:
        raise ParameterError({"volume": f"no storage ID specified - can't access '{volume}'"})
    return f"{storage}:{volume}"


@endpoint("GET", VOLUME_PATH, parameters=VOLUME, permissions=ALL)
def volume(call: Call) -> Any:
    """Return where a volume is and how large."""
    volid = whole_id(call)
    rights.check_volume(call, volid)
    return attributes.of(seen.of_volume(call.node, volid), volid)


@endpoint("PUT", VOLUME_PATH, parameters={**VOLUME, "notes": text(), "protected": flag()}, permissions=ALL)
def change(call: Call) -> Any:
    """Change a backup's notes, or protect it."""
    volid = whole_id(call)
    storage = seen.of_volume(call.node, volid)
    rights.check_volume(call, volid)
    if "protected" in call.values:
        rights.check_removal(call, storage, volid)
        attributes.protect(storage, volid, bool(call.values["protected"]))
    if "notes" in call.values:
        attributes.annotate(storage, volid, call.values["notes"])


@endpoint("DELETE", VOLUME_PATH, parameters={**VOLUME, "delay": number(1, 30)}, permissions=ALL)
def delete(call: Call) -> Any:
    """Remove a volume, in a task; a client that waits for it gets nothing once it is gone."""
    volid = whole_id(call)
    storage = seen.of_volume(call.node, volid)
    rights.check_removal(call, storage, volid)
    owner = storage.volume(volid).vmid

    def work(task: Task) -> None:
        _assert_unused(call, storage, volid, owner)
        storage.free(volid, task.log)
        task.log(f"Removed volume '{volid}'")

    upid = call.task("imgdel", f"{owner}@{storage.name}" if owner else storage.name, work)
    delay = call.values.get("delay")
    if delay and call.node.tasks.wait(upid, delay):
        ended = call.node.tasks.status(upid)["exitstatus"]
        if ended != "OK":
            raise ClusterError(str(ended))
        return None
    return upid


def _assert_unused(call: Call, storage: Storage, volid: str, owner: int | None) -> None:
    """Refuse to remove a disk that a running machine has open: a logical volume in use cannot be removed."""
    guests = call.node.guests
    if owner is None or guests is None or not guests.is_running(owner):
        return
    values = call.node.state.load_guest(owner).current.values.values()
    if any(value.split(",")[0] == volid for value in values):
        name = storage.volume(volid).name
        group = getattr(storage, "group", storage.name)
        raise ClusterError(f"lvremove '{group}/{name}' error:   Logical volume {group}/{name} in use.")


@endpoint("GET", "/nodes/{node}/aplinfo", parameters={"node": NODE}, permissions=ALL, inline=True)
def appliances(call: Call) -> Any:
    """Return the templates of containers that could be downloaded: the lab has its own already, and no catalogue."""
    del call
    return []
