"""Snapshots of virtual machines."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..tasks import Task
from ..vm import snapshotting, status
from .common import NODE, VMID, Call, endpoint, flag, index, perm, text

GUEST = {"node": NODE, "vmid": VMID}
NAME = text("pve-configid", longest=40, optional=False)
ONE = {**GUEST, "snapname": NAME}
PATH = "/nodes/{node}/qemu/{vmid}/snapshot"
TAKE = perm("/vms/{vmid}", "VM.Snapshot")
_RESERVED = ("current", "pending")


@endpoint("GET", PATH, parameters=GUEST, permissions=perm("/vms/{vmid}", "VM.Audit"))
def snapshots(call: Call) -> Any:
    """Return a machine's snapshots, and last what it is now."""
    vmid, node = call.values["vmid"], call.node
    config = node.state.load_guest(vmid, node.name, "qemu")
    entries = []
    for name, section in sorted(config.snapshots.items()):
        values = section.values
        entry: dict[str, Any] = {
            "name": name,
            "description": (section.description or "").removesuffix("\n"),
            "snaptime": int(values.get("snaptime", 0)),
            "vmstate": int("vmstate" in values),
        }
        for key in ("parent", "snapstate"):
            if key in values:
                entry[key] = values[key]
        entries.append(entry)
    running = node.guests.is_running(vmid)
    now: dict[str, Any] = {
        "name": "current",
        "description": "You are here!",
        "digest": config.digest,
        "running": int(running),
    }
    if "parent" in config.current.values:
        now["parent"] = config.current.values["parent"]
    return [*entries, now]


@endpoint("POST", PATH, parameters={**ONE, "vmstate": flag(), "description": text()}, permissions=TAKE)
def take(call: Call) -> Any:
    """Take a snapshot."""
    values, node = call.values, call.node
    vmid, name = values["vmid"], values["snapname"]
    for reserved in _RESERVED:
        if name == reserved:
            raise ClusterError(f"unable to use snapshot name '{reserved}' (reserved name)")
    node.state.guest(vmid, node.name, "qemu")

    def work(task: Task) -> None:
        snapshotting.create(
            node, vmid, name, task.log, vmstate=bool(values.get("vmstate")), comment=values.get("description")
        )

    return call.task("qmsnapshot", vmid, work)


index(f"{PATH}/{{snapname}}", ONE, key="cmd")


@endpoint("DELETE", f"{PATH}/{{snapname}}", parameters={**ONE, "force": flag()}, permissions=TAKE)
def delete(call: Call) -> Any:
    """Delete a snapshot."""
    values, node = call.values, call.node
    node.state.guest(values["vmid"], node.name, "qemu")

    def work(task: Task) -> None:
        snapshotting.delete(node, values["vmid"], values["snapname"], task.log, force=bool(values.get("force")))

    return call.task("qmdelsnapshot", values["vmid"], work)


@endpoint(
    "GET",
    f"{PATH}/{{snapname}}/config",
    parameters=ONE,
    permissions=perm("/vms/{vmid}", "VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit", any_of=True),
)
def config(call: Call) -> Any:
    """Return what a snapshot keeps of the configuration."""
    found = call.node.state.load_guest(call.values["vmid"], call.node.name, "qemu")
    section = found.snapshots.get(call.values["snapname"])
    if section is None:
        raise ClusterError(f"snapshot '{call.values['snapname']}' does not exist")
    answer = {key: status.typed(key, value) for key, value in section.values.items()}
    if "snaptime" in answer:
        answer["snaptime"] = int(answer["snaptime"])
    if section.description is not None:
        answer["description"] = section.description.removesuffix("\n")
    return answer


@endpoint("PUT", f"{PATH}/{{snapname}}/config", parameters={**ONE, "description": text()}, permissions=TAKE)
def describe(call: Call) -> Any:
    """Change a snapshot's description."""
    values = call.values
    with call.node.state.guest_lock(values["vmid"], call.node.name, "qemu") as found:
        found.assert_unlocked()
        section = found.snapshots.get(values["snapname"])
        if section is None:
            raise ClusterError(f"snapshot '{values['snapname']}' does not exist")
        if "description" in values:
            section.description = f"{values['description']}\n" if values["description"] else None


@endpoint(
    "POST",
    f"{PATH}/{{snapname}}/rollback",
    parameters={**ONE, "start": flag(0)},
    permissions=perm("/vms/{vmid}", "VM.Snapshot", "VM.Snapshot.Rollback", any_of=True),
)
def rollback(call: Call) -> Any:
    """Return to a snapshot."""
    values, node = call.values, call.node
    node.state.guest(values["vmid"], node.name, "qemu")

    def work(task: Task) -> None:
        snapshotting.rollback(node, values["vmid"], values["snapname"], task.log, start=bool(values.get("start")))

    return call.task("qmrollback", values["vmid"], work)
