"""Backup jobs of the cluster, and what they include."""

from __future__ import annotations

import time
from typing import Any

from .. import formats
from ..backup import jobs
from ..state import GuestPlace
from ..vm import hardware
from .backup import check_rights
from .common import Call, Parameter, endpoint, index, perm

ID = {"id": Parameter(max_length=50)}
AUDIT = perm("/", "Sys.Audit")
MODIFY = perm("/", "Sys.Modify")


@endpoint("GET", "/cluster/backup", permissions=AUDIT, inline=True)
def listing(call: Call) -> Any:
    """Return the jobs."""
    return [jobs.record(section, time.time()) for section in jobs.jobs(call.node.state).values()]


@endpoint("POST", "/cluster/backup", parameters=jobs.JOB, permissions=MODIFY)
def create(call: Call) -> Any:
    """Make a job."""
    check_rights(call, call.values)
    jobs.create(call.node.state, call.values)


@endpoint("GET", "/cluster/backup/{id}", parameters=ID, permissions=AUDIT, inline=True)
def job(call: Call) -> Any:
    """Return one job."""
    entry = jobs.record(jobs.job(call.node.state, call.values["id"]), time.time())
    entry.pop("next-run", None)
    return entry


@endpoint("PUT", "/cluster/backup/{id}", parameters=jobs.CHANGE, permissions=MODIFY)
def change(call: Call) -> Any:
    """Change a job."""
    values = dict(call.values)
    name, deleted = values.pop("id"), values.pop("delete", "")
    check_rights(call, values)
    jobs.change(call.node.state, name, values, deleted)


@endpoint("DELETE", "/cluster/backup/{id}", parameters=ID, permissions=MODIFY)
def remove(call: Call) -> Any:
    """Remove a job."""
    jobs.remove(call.node.state, call.values["id"])


@endpoint("GET", "/cluster/backup/{id}/included_volumes", parameters=ID, permissions=AUDIT)
def included(call: Call) -> Any:
    """Return which volumes of which guests a job backs up, and why."""
    values = jobs.asked_of(jobs.job(call.node.state, call.values["id"]))
    places = call.node.state.guests()
    return {"children": [_guest(call, places.get(vmid), vmid) for vmid in _vmids(call, values)]}


def _vmids(call: Call, values: dict[str, Any]) -> list[int]:
    """Return the guests that a job means, on whatever node."""
    places, excluded = call.node.state.guests(), {int(w) for w in formats.split_list(str(values.get("exclude", "")))}
    if values.get("pool"):
        pool = call.node.state.users().pools.get(values["pool"])
        found = set(pool.vms) if pool else set()
    elif values.get("vmid"):
        found = {int(word) for word in formats.split_list(str(values["vmid"]))}
    else:
        found = set(places)
    only = values.get("node")
    return sorted(v for v in found - excluded if only is None or (v in places and places[v].node == only))


def _guest(call: Call, place: GuestPlace | None, vmid: int) -> dict[str, Any]:
    if place is None:
        return {"id": vmid, "type": "unknown", "children": []}
    values = call.node.state.view_guest(place).current.values
    entry: dict[str, Any] = {"id": vmid, "type": place.kind}
    if name := values.get("name" if place.kind == "qemu" else "hostname"):
        entry["name"] = name
    return {**entry, "children": _of_machine(values) if place.kind == "qemu" else _of_container(values)}


def _of_machine(values: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "id": drive.key,
            "name": drive.volume,
            "included": int(drive.flag("backup", True)),
            "reason": "enabled" if drive.flag("backup", True) else "disabled",
        }
        for drive in hardware.drives(values)
        if drive.is_disk and drive.bus != "unused"
    ]


def _of_container(values: dict[str, str]) -> list[dict[str, Any]]:
    if "rootfs" not in values:
        return []
    return [{"id": "rootfs", "name": values["rootfs"].partition(",")[0], "included": 1, "reason": "rootfs"}]


index("/cluster/backup-info", permissions=None)


@endpoint("GET", "/cluster/backup-info/not-backed-up", permissions=AUDIT)
def left_out(call: Call) -> Any:
    """Return the guests that no job backs up."""
    covered: set[int] = set()
    for section in jobs.jobs(call.node.state).values():
        covered.update(_vmids(call, jobs.asked_of(section)))
    found = []
    for vmid, place in call.node.state.guests().items():
        if vmid not in covered:
            values = call.node.state.view_guest(place).current.values
            name = values.get("name" if place.kind == "qemu" else "hostname")
            found.append({"vmid": vmid, "type": place.kind, **({"name": name} if name else {})})
    return found
