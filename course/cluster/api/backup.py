"""Backups of a node's guests, what is in an archive, and retention."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, ParameterError
from .. import prune
from ..backup import archive, container, dump, settings
from ..config.users import ROOT
from ..storage import of_volume, rights, storage_of
from ..tasks import Task
from .common import ALL, NODE, STORAGE, Call, choice, endpoint, flag, perm, text
from .storage_content import OF_GUEST, PLACE

_PRUNE = {"prune-backups": text("prune-backups"), "type": choice("qemu lxc"), "vmid": OF_GUEST}


@endpoint(
    "POST",
    "/nodes/{node}/vzdump",
    parameters={**settings.DUMP, "stdout": flag()},
    permissions=ALL,
)
def vzdump(call: Call) -> Any:
    """Back guests up, in one task."""
    node = call.node
    values = {key: value for key, value in call.values.items() if key != "stdout"}
    check_rights(call, values)
    if values.get("stop"):
        _stop_jobs(call)
        if not any(values.get(key) for key in ("all", "vmid", "pool")):
            return "OK"
    vmids = settings.guests(node, values)
    vmids = [vmid for vmid in vmids if _may_back_up(call, vmid, skip=bool(values.get("all") or values.get("pool")))]
    plan = settings.plan(node, values, vmids)
    if not vmids and not values.get("all"):
        return "OK"

    def work(task: Task) -> None:
        dump.run(node, task, vmids, plan)

    return call.task("vzdump", str(vmids[0]) if len(vmids) == 1 else "", work)


def check_rights(call: Call, values: dict[str, Any]) -> None:
    """Refuse a caller who may not set what is asked for.

    Raises:
        ParameterError: only root may.
        PermissionRefused: a privilege is missing.
    """
    if call.user != ROOT:
        for key in settings.ROOT_ONLY:
            if values.get(key):
                raise ParameterError({key: "Only root may set this option."})
    storage = values.get("storage")
    if storage:
        call.check(f"/storage/{storage}", ["Datastore.AllocateSpace"])
        if "prune-backups" in values or "maxfiles" in values:
            call.check(f"/storage/{storage}", ["Datastore.Allocate"])
    if any(key in values for key in ("bwlimit", "ionice", "performance")):
        call.check("/", ["Sys.Modify"])


def _may_back_up(call: Call, vmid: int, *, skip: bool) -> bool:
    if skip:
        return call.may(f"/vms/{vmid}", ["VM.Backup"])
    call.check(f"/vms/{vmid}", ["VM.Backup"])
    return True


def _stop_jobs(call: Call) -> None:
    call.check("/", ["Sys.Modify"])
    for entry in call.node.tasks.active():
        if entry.upid.type == "vzdump":
            call.node.tasks.stop(str(entry.upid))


@endpoint(
    "GET",
    "/nodes/{node}/vzdump/extractconfig",
    parameters={"node": NODE, "volume": text(optional=False)},
    permissions=ALL,
)
def extract(call: Call) -> Any:
    """Return the configuration in an archive."""
    volid = call.values["volume"]
    storage = of_volume(call.node, volid)
    rights.check_volume(call, volid)
    volume, path = storage.existing(volid)
    if volume.content != "backup":
        raise ClusterError(f"'{volid}' is no backup archive")
    return container.read_config(path) if "-lxc-" in path.name else archive.read_config(path)


@endpoint("GET", "/nodes/{node}/vzdump/defaults", parameters={"node": NODE, "storage": STORAGE}, permissions=ALL)
def defaults(call: Call) -> Any:
    """Return what a backup does when it is told nothing."""
    name = call.values.get("storage", "local")
    call.check(f"/storage/{name}", rights.AUDIT, any_of=True)
    rules = storage_of(call.node, name).section.values.get("prune-backups", "keep-all=1")
    known = settings.DUMP.items()
    return {
        **{key: declared.default for key, declared in known if declared.default is not None and key != "prune-backups"},
        "prune-backups": rules,
    }


@endpoint(
    "GET",
    "/nodes/{node}/storage/{storage}/prunebackups",
    parameters={**PLACE, **_PRUNE},
    permissions=perm("/storage/{storage}", *rights.AUDIT, any_of=True),
)
def prune_dry(call: Call) -> Any:
    """Say what a retention would do."""
    storage, rules = _retention(call)
    marks = prune.prune(storage.volumes("backup"), rules, vmid=call.values.get("vmid"), type=call.values.get("type"))
    return [backup.record() for backup in marks]


@endpoint(
    "DELETE",
    "/nodes/{node}/storage/{storage}/prunebackups",
    parameters={**PLACE, **_PRUNE},
    permissions=ALL,
)
def prune_now(call: Call) -> Any:
    """Remove what a retention does not keep."""
    vmid, place = call.values.get("vmid"), f"/storage/{call.values['storage']}"
    if vmid is not None and not call.may(place, ["Datastore.Allocate"]):
        call.check(place, ["Datastore.AllocateSpace"])
        call.check(f"/vms/{vmid}", ["VM.Backup"])
    else:
        call.check(place, ["Datastore.Allocate"])
    storage, rules = _retention(call)
    kind = call.values.get("type")

    def work(task: Task) -> None:
        dump.prune_storage(storage, rules, vmid=vmid, kind=kind, log=task.log)

    return call.task("prunebackups", f"{vmid}@{storage.name}" if vmid else storage.name, work)


def _retention(call: Call) -> tuple[Any, dict[str, int]]:
    """Return a storage and the retention that is asked for, or its own."""
    storage = storage_of(call.node, call.values["storage"])
    storage.require("backup")
    rules = call.values.get("prune-backups") or storage.section.values.get("prune-backups") or "keep-all=1"
    return storage, prune.parse_rules(rules)
