"""Starting, ending and watching virtual machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...error import ClusterError, ParameterError
from ..ha import hooks
from ..options import VM_OPTIONS
from ..tasks import Task
from ..vm import incoming, lifecycle, ram, rights, status
from .common import NODE, SKIPLOCK, VMID, Call, Parameter, choice, endpoint, flag, index, number, perm, text

GUEST = {"node": NODE, "vmid": VMID}
POWER = perm("/vms/{vmid}", "VM.PowerMgmt")
_NODE_NAME = text("pve-node")
_MACHINE = VM_OPTIONS["machine"]

index("/nodes/{node}/qemu/{vmid}/status", GUEST)


@endpoint(
    "GET", "/nodes/{node}/qemu/{vmid}/status/current", parameters=GUEST, permissions=perm("/vms/{vmid}", "VM.Audit")
)
def current(call: Call) -> Any:
    """Return what a machine is doing."""
    place = call.node.state.guest(call.values["vmid"], call.node.name, "qemu")
    return status.current(call.node, place)


def _require(call: Call) -> None:
    """Refuse a machine that is not here."""
    call.node.state.guest(call.values["vmid"], call.node.name, "qemu")


def _task(call: Call, type: str, work: Callable[[Task], object]) -> str:
    def run(task: Task) -> None:
        work(task)

    return call.task(type, call.values["vmid"], run)


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/start",
    parameters={
        **GUEST,
        "skiplock": SKIPLOCK,
        "stateuri": text(longest=128),
        "migratedfrom": _NODE_NAME,
        "migration_type": choice("secure insecure"),
        "migration_network": text("CIDR"),
        "machine": _MACHINE,
        "force-cpu": text(),
        "targetstorage": text("storage-pair-list"),
        "timeout": number(0, default="max(30, vm memory in GiB)"),
    },
    permissions=POWER,
)
def start(call: Call) -> Any:
    """Start a machine."""
    values, node = call.values, call.node
    rights.root_only(
        call,
        ["stateuri", "skiplock", "migratedfrom", "migration_type", "migration_network", "targetstorage", "force-cpu"],
    )
    if values.get("migratedfrom"):
        return _task(call, "qmstart", lambda task: incoming.start(node, values, task))
    _require(call)
    if (upid := hooks.instead(call, "start", values["vmid"])) is not None:
        return upid
    return _task(
        call,
        "qmstart",
        lambda task: lifecycle.start(
            node, values["vmid"], task.log, skiplock=bool(values.get("skiplock")), machine=values.get("machine")
        ),
    )


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/stop",
    parameters={
        **GUEST,
        "skiplock": SKIPLOCK,
        "migratedfrom": _NODE_NAME,
        "timeout": number(0),
        "keepActive": flag(0),
    },
    permissions=POWER,
    writes=False,
)
def stop(call: Call) -> Any:
    """Pull a machine's power cord."""
    values, node = call.values, call.node
    rights.root_only(call, ["skiplock", "keepActive", "migratedfrom"])
    if values.get("migratedfrom"):
        return _task(call, "qmstop", lambda task: incoming.abandon(node, values["vmid"], task.log))
    _require(call)
    if (upid := hooks.instead(call, "stop", values["vmid"])) is not None:
        return upid
    return _task(
        call,
        "qmstop",
        lambda task: lifecycle.stop(
            node, values["vmid"], task.log, skiplock=bool(values.get("skiplock")), timeout_s=values.get("timeout")
        ),
    )


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/shutdown",
    parameters={
        **GUEST,
        "skiplock": SKIPLOCK,
        "timeout": number(0),
        "forceStop": flag(0),
        "keepActive": flag(0),
    },
    permissions=POWER,
    writes=False,
)
def shutdown(call: Call) -> Any:
    """Ask a guest to end itself."""
    values, node = call.values, call.node
    rights.root_only(call, ["skiplock", "keepActive"])
    _require(call)
    running = node.guests.get(values["vmid"])
    if running is not None and running.qmpstatus == "paused" and not values.get("forceStop"):
        raise ClusterError("VM is paused - cannot shutdown")
    if (upid := hooks.instead(call, "shutdown", values["vmid"], timeout_s=values.get("timeout"))) is not None:
        return upid
    return _task(
        call,
        "qmshutdown",
        lambda task: lifecycle.shutdown(
            node,
            values["vmid"],
            task,
            skiplock=bool(values.get("skiplock")),
            timeout_s=values.get("timeout"),
            force=bool(values.get("forceStop")),
        ),
    )


def _require_running(call: Call) -> None:
    _require(call)
    call.node.guests.require(call.values["vmid"])


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/reboot",
    parameters={**GUEST, "timeout": number(0)},
    permissions=POWER,
)
def reboot(call: Call) -> Any:
    """Shut a guest down and start it again."""
    _require_running(call)
    if call.node.guests.require(call.values["vmid"]).qmpstatus == "paused":
        raise ClusterError("VM is paused - cannot shutdown")
    return _task(
        call,
        "qmreboot",
        lambda task: lifecycle.reboot(call.node, call.values["vmid"], task, timeout_s=call.values.get("timeout")),
    )


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/reset",
    parameters={**GUEST, "skiplock": SKIPLOCK},
    permissions=POWER,
    writes=False,
)
def reset(call: Call) -> Any:
    """Press a machine's reset button."""
    rights.root_only(call, ["skiplock"])
    _require_running(call)
    return _task(
        call,
        "qmreset",
        lambda _: lifecycle.reset(call.node, call.values["vmid"], skiplock=bool(call.values.get("skiplock"))),
    )


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/suspend",
    parameters={
        **GUEST,
        "skiplock": SKIPLOCK,
        "todisk": flag(0),
        "statestorage": Parameter(format="pve-storage-id", optional=True, requires="todisk"),
    },
    permissions=POWER,
)
def suspend(call: Call) -> Any:
    """Stop a machine's processors, or keep its RAM on a storage and end it."""
    values, node = call.values, call.node
    rights.root_only(call, ["skiplock"])
    _require_running(call)
    if values.get("statestorage") and not values.get("todisk"):
        raise ParameterError({"statestorage": "missing property - 'todisk' requires this property"})
    storage = None
    if values.get("todisk"):
        call.check(f"/vms/{values['vmid']}", ["VM.Config.Disk"])
        config = node.state.load_guest(values["vmid"], node.name, "qemu")
        storage = values.get("statestorage") or ram.storage_for(node, config.current.values)
        call.check(f"/storage/{storage}", ["Datastore.AllocateSpace"])
    return _task(
        call,
        "qmsuspend" if storage else "qmpause",
        lambda task: lifecycle.suspend(
            node, values["vmid"], task, skiplock=bool(values.get("skiplock")), storage=storage
        ),
    )


@endpoint(
    "POST",
    "/nodes/{node}/qemu/{vmid}/status/resume",
    parameters={**GUEST, "skiplock": SKIPLOCK, "nocheck": flag()},
    permissions=POWER,
    writes=False,
)
def resume(call: Call) -> Any:
    """Let a machine go on."""
    values, node = call.values, call.node
    rights.root_only(call, ["skiplock", "nocheck"])
    vmid, nocheck = values["vmid"], bool(values.get("nocheck"))
    if not nocheck:
        _require(call)
        config = node.state.load_guest(vmid, node.name, "qemu")
        if config.current.values.get("lock") == "suspended" and not node.guests.is_running(vmid):
            return _task(call, "qmresume", lambda task: lifecycle.start(node, vmid, task.log))
    node.guests.require(vmid)
    return _task(
        call,
        "qmresume",
        lambda _: lifecycle.resume(node, vmid, skiplock=bool(values.get("skiplock")), nocheck=nocheck),
    )
