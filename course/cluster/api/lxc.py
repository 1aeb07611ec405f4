"""Containers of a node: the list, making one, changing one, removing one."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from ...error import ClusterError, ParameterError
from ..config.guest import Section
from ..ct import creation, lifecycle, settings, status
from ..ct import options as declared
from ..ha import hooks
from ..properties import parse
from ..tasks import Task
from .common import ALL, NODE, VMID, Call, choice, endpoint, flag, index, number, perm, text

GUEST = {"node": NODE, "vmid": VMID}
_OWN = {
    *("node", "vmid", "bwlimit", "force", "ignore-unpack-errors", "ostemplate", "password"),
    *("pool", "restore", "ssh-public-keys", "start", "storage", "unique"),
}
_DISK, _NETWORK = ("rootfs", "mp", "unused"), ("net", "nameserver", "searchdomain", "hostname")


def text_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as they stand in a file."""
    return {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in values.items()}


def privilege(key: str) -> str:
    """Return what somebody needs who changes a setting."""
    bare = key.rstrip("0123456789")
    if bare in _DISK:
        return "VM.Config.Disk"
    if bare in _NETWORK:
        return "VM.Config.Network"
    if bare in ("cores", "cpulimit", "cpuunits"):
        return "VM.Config.CPU"
    return "VM.Config.Memory" if bare in ("memory", "swap") else "VM.Config.Options"


@endpoint("GET", "/nodes/{node}/lxc", parameters={"node": NODE}, permissions=ALL)
def containers(call: Call) -> Any:
    """Return the containers of this node that the caller may see."""
    return [
        status.brief(call.node, place)
        for place in call.node.state.guests().values()
        if place.kind == "lxc" and place.node == call.node.name and call.may(f"/vms/{place.vmid}", ["VM.Audit"])
    ]


index("/nodes/{node}/lxc/{vmid}", GUEST)


@endpoint("POST", "/nodes/{node}/lxc", parameters=declared.CREATE, permissions=ALL)
def create(call: Call) -> Any:
    """Make a container from a template, or restore one from a backup."""
    values, node = call.values, call.node
    vmid, pool, storage = values["vmid"], values.get("pool"), values.get("storage")
    _check_allocate(call, vmid, pool)
    if values.get("restore"):
        return _restore(call)
    asked = text_of({key: value for key, value in values.items() if key not in _OWN})
    wanted = parse(asked["rootfs"], declared.ROOT_DISK)["volume"].partition(":")[0] if "rootfs" in asked else storage
    call.check(f"/storage/{wanted or creation.DEFAULT_STORAGE}", ["Datastore.AllocateSpace"])
    for key in asked:
        call.check(f"/vms/{vmid}", [privilege(key)])
    settings.assert_one_disk(asked)
    archive = creation.archive_path(node, values["ostemplate"])
    creation.reserve(node, vmid)

    def work(task: Task) -> None:
        creation.create(node, vmid, asked, archive, task.log, storage=storage, pool=pool)
        if values.get("start"):
            lifecycle.start(node, vmid, task.log)

    return call.task("vzcreate", vmid, work)


def _check_allocate(call: Call, vmid: int, pool: str | None) -> None:
    if not call.may(f"/vms/{vmid}", ["VM.Allocate"]):
        call.check(f"/pool/{pool}" if pool else f"/vms/{vmid}", ["VM.Allocate"])
    if pool and pool not in call.node.state.users().pools:
        raise ClusterError(f"pool '{pool}' does not exist")


def _restore(call: Call) -> Any:
    """Hand a restore to the backup layer."""
    try:
        restore: Any = importlib.import_module("..backup.restore", __package__)
    except ImportError:
        raise ClusterError("restoring is not implemented") from None
    return restore.container(call, text_of({key: value for key, value in call.values.items() if key not in _OWN}))


@endpoint(
    "DELETE",
    "/nodes/{node}/lxc/{vmid}",
    parameters={**GUEST, "destroy-unreferenced-disks": flag(), "force": flag(0), "purge": flag(0)},
    permissions=perm("/vms/{vmid}", "VM.Allocate"),
)
def destroy(call: Call) -> Any:
    """Remove a container and its volumes."""
    vmid, node = call.values["vmid"], call.node
    purge, force = bool(call.values.get("purge")), bool(call.values.get("force"))
    config = node.state.load_guest(vmid, node.name, "lxc")
    creation.assert_removable(node, vmid, config, purge=purge, force=force)
    unreferenced = bool(call.values.get("destroy-unreferenced-disks"))

    def work(task: Task) -> None:
        creation.destroy(node, vmid, task.log, purge=purge, force=force, unreferenced=unreferenced)

    return call.task("vzdestroy", vmid, work)


# Configuration


@endpoint(
    "GET",
    "/nodes/{node}/lxc/{vmid}/config",
    parameters={**GUEST, "current": flag(0), "snapshot": text("pve-configid", longest=40)},
    permissions=perm("/vms/{vmid}", "VM.Audit"),
)
def config(call: Call) -> Any:
    """Return a container's settings."""
    found = call.node.state.load_guest(call.values["vmid"], call.node.name, "lxc")
    snapshot = call.values.get("snapshot")
    if snapshot and snapshot not in found.snapshots:
        raise ClusterError(f"snapshot '{snapshot}' does not exist")
    section = found.snapshots[snapshot] if snapshot else found.current
    plain = section.values if snapshot or call.values.get("current") else found.merged()
    return {**typed(plain), **_description(section), "digest": found.digest}


def _description(section: Section) -> dict[str, str]:
    return {"description": section.description} if section.description else {}


def typed(values: Mapping[str, str]) -> dict[str, Any]:
    """Return settings with numbers as numbers."""
    numeric = {key for key, parameter in declared.CT_OPTIONS.items() if parameter.type in ("integer", "boolean")}
    return {
        key: int(value) if key in numeric | {"snaptime"} and value.isdecimal() else value
        for key, value in values.items()
    }


@endpoint("GET", "/nodes/{node}/lxc/{vmid}/pending", parameters=GUEST, permissions=perm("/vms/{vmid}", "VM.Audit"))
def pending(call: Call) -> Any:
    """Return a container's settings, each with the value that waits for its next start."""
    found = call.node.state.load_guest(call.values["vmid"], call.node.name, "lxc")
    deletes = found.pending_deletes()
    entries = []
    for key in sorted({*found.current.values, *found.pending.values} - {"delete"}):
        entry: dict[str, Any] = {"key": key}
        if key in found.current.values:
            entry["value"] = typed(found.current.values)[key]
        if key in found.pending.values:
            entry["pending"] = typed(found.pending.values)[key]
        if key in deletes:
            entry["delete"] = 1
        entries.append(entry)
    return entries


@endpoint(
    "PUT",
    "/nodes/{node}/lxc/{vmid}/config",
    parameters=declared.CHANGE,
    permissions=perm(
        "/vms/{vmid}",
        "VM.Config.Disk",
        "VM.Config.CPU",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        any_of=True,
    ),
)
def change(call: Call) -> Any:
    """Change a container's settings."""
    values, node = call.values, call.node
    vmid = values["vmid"]
    deletes = [word for word in re.split(r"[,;\s]+", values.get("delete", "")) if word]
    asked = text_of(
        {key: value for key, value in values.items() if key not in ("node", "vmid", "delete", "digest", "revert")}
    )
    for key in (*asked, *deletes):
        call.check(f"/vms/{vmid}", [privilege(key)])
    for key in deletes:
        if key not in declared.CT_OPTIONS or key == "rootfs":
            raise ParameterError({"delete": f"unable to delete required or unknown option '{key}'"})
        if key in asked:
            raise ParameterError({key: f"conflicts with deletion of '{key}'"})
    settings.assert_one_disk(asked)
    if "rootfs" in asked:
        raise ClusterError("can't change the root disk of a container")
    with node.state.guest_lock(vmid, node.name, "lxc") as found:
        found.assert_unchanged(values.get("digest"))
        if "lock" not in deletes:
            settings.assert_unlocked(found)
        description = asked.pop("description", None)
        if description is not None or "description" in deletes:
            found.current.description = description + "\n" if description else None
        for key in deletes:
            found.current.values.pop(key, None)
        found.current.values |= asked
        found.current.values = settings.with_addresses(found.current.values)
    node.statistics.changed()


@endpoint(
    "PUT",
    "/nodes/{node}/lxc/{vmid}/resize",
    parameters={
        **GUEST,
        "digest": text(longest=40),
        "disk": choice(" ".join(["rootfs", *(f"mp{number}" for number in range(256))]), optional=False),
        "size": text(pattern=r"\+?\d+(\.\d+)?[KMGT]?", optional=False),
    },
    permissions=perm("/vms/{vmid}", "VM.Config.Disk", any_of=True),
)
def resize(call: Call) -> Any:
    """Give a container's disk more room."""
    values, node = call.values, call.node
    found = node.state.load_guest(values["vmid"], node.name, "lxc")
    found.assert_unchanged(values.get("digest"))
    if values["disk"] not in found.current.values:
        raise ClusterError(f"disk '{values['disk']}' does not exist")

    def work(task: Task) -> None:
        creation.grow(node, values["vmid"], values["size"])

    return call.task("resize", values["vmid"], work)


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/clone",
    parameters=declared.CLONE,
    permissions={
        "check": [
            "and",
            ["perm", "/vms/{vmid}", ["VM.Clone"]],
            [
                "or",
                ["perm", "/vms/{newid}", ["VM.Allocate"]],
                ["perm", "/pool/{pool}", ["VM.Allocate"], "require_param", "pool"],
            ],
        ]
    },
)
def clone(call: Call) -> Any:
    """Copy a container."""
    values, node = call.values, call.node
    vmid, new = values["vmid"], values["newid"]
    found = node.state.load_guest(vmid, node.name, "lxc")
    settings.assert_unlocked(found)
    snapshot = values.get("snapname")
    if snapshot and snapshot not in found.snapshots:
        raise ClusterError(f"snapshot '{snapshot}' does not exist")
    if node.containers.is_running(vmid) and not snapshot:
        raise ClusterError("Full clone of a running container is only possible from a snapshot")
    if values.get("target", node.name) != node.name:
        raise ClusterError("can't clone CT to another node (CT uses local storage)")
    creation.reserve(node, new)

    def work(task: Task) -> None:
        creation.clone(
            node,
            vmid,
            new,
            task.log,
            name=values.get("hostname"),
            description=values.get("description"),
            snapshot=snapshot,
            storage=values.get("storage"),
            pool=values.get("pool"),
        )

    return call.task("vzclone", vmid, work)


@endpoint("POST", "/nodes/{node}/lxc/{vmid}/template", parameters=GUEST, permissions=perm("/vms/{vmid}", "VM.Allocate"))
def template(call: Call) -> Any:
    """Make a container a template."""
    creation.make_template(call.node, call.values["vmid"])


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/migrate",
    parameters={
        **GUEST,
        "bwlimit": number(0, default="migrate limit from datacenter or storage config", kind="number"),
        "online": flag(),
        "restart": flag(),
        "target": text("pve-node", optional=False),
        "target-storage": text("storage-pair-list"),
        "timeout": number(default=180),
    },
    permissions=perm("/vms/{vmid}", "VM.Migrate"),
)
def migrate(call: Call) -> Any:
    """Move a container to another node."""
    from ..ct import migrate as moving  # noqa: PLC0415 - the handler has its name

    values, node = call.values, call.node
    vmid, target = values["vmid"], values["target"]
    node.state.guest(vmid, node.name, "lxc")
    if target == node.name:
        raise ParameterError({"target": "target is local node."})
    managed = hooks.instead(call, "migrate", vmid, target=target)
    if managed is not None:
        return managed
    online = bool(values.get("online") or values.get("restart"))
    moving.assert_possible(node, vmid, target, restart=online)

    def work(task: Task) -> None:
        moving.migrate(
            node,
            vmid,
            target,
            task,
            online=online,
            timeout_s=values.get("timeout", 180),
            storage=(values.get("target-storage") or "").partition(":")[2] or values.get("target-storage"),
        )

    return call.task("vzmigrate", vmid, work)
