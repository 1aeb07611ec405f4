"""Starting, ending and watching containers; their snapshots and terminals."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, ParameterError
from ..ct import lifecycle, settings, snapshots, status
from ..ha import hooks
from ..route import routes
from ..tasks import Task
from .common import ALL, NODE, SKIPLOCK, VMID, Call, endpoint, flag, index, number, perm, text
from .lxc import typed

GUEST = {"node": NODE, "vmid": VMID}
SNAPSHOT = {**GUEST, "snapname": text("pve-configid", longest=40, optional=False)}
AUDIT, POWER = perm("/vms/{vmid}", "VM.Audit"), perm("/vms/{vmid}", "VM.PowerMgmt")
TAKE = perm("/vms/{vmid}", "VM.Snapshot")

index("/nodes/{node}/lxc/{vmid}/status", GUEST)


@endpoint("GET", "/nodes/{node}/lxc/{vmid}/status/current", parameters=GUEST, permissions=AUDIT)
def current(call: Call) -> Any:
    """Return what a container is doing."""
    return status.current(call.node, call.node.state.guest(call.values["vmid"], call.node.name, "lxc"))


def _root_only(call: Call, name: str) -> None:
    if call.values.get(name) and call.user != "root@pam":
        raise ParameterError({name: "Only root may use this option."})


def _require(call: Call, *, running: bool | None = None) -> int:
    """Refuse a container that is not here, or not as it has to be, at once."""
    vmid = int(call.values["vmid"])
    call.node.state.guest(vmid, call.node.name, "lxc")
    if running is not None and call.node.containers.is_running(vmid) != running:
        raise ClusterError(f"CT {vmid} {'not' if running else 'already'} running")
    return vmid


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/status/start",
    parameters={**GUEST, "debug": flag(0), "skiplock": SKIPLOCK},
    permissions=POWER,
)
def start(call: Call) -> Any:
    """Start a container."""
    _root_only(call, "skiplock")
    vmid = _require(call, running=False)
    skiplock = bool(call.values.get("skiplock"))
    managed = None if skiplock else hooks.instead(call, "start", vmid)
    if managed is not None:
        return managed

    def work(task: Task) -> None:
        lifecycle.start(call.node, vmid, task.log, skiplock=skiplock)

    return call.task("vzstart", vmid, work)


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/status/stop",
    parameters={**GUEST, "skiplock": SKIPLOCK},
    permissions=POWER,
)
def stop(call: Call) -> Any:
    """End a container at once."""
    _root_only(call, "skiplock")
    vmid = _require(call, running=True)
    managed = hooks.instead(call, "stop", vmid)
    if managed is not None:
        return managed

    def work(task: Task) -> None:
        lifecycle.stop(call.node, vmid, task.log, skiplock=bool(call.values.get("skiplock")))

    return call.task("vzstop", vmid, work)


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/status/shutdown",
    parameters={**GUEST, "forceStop": flag(0), "timeout": number(0, default=60)},
    permissions=POWER,
)
def shutdown(call: Call) -> Any:
    """Ask a container to end."""
    vmid, timeout = _require(call, running=True), call.values.get("timeout")
    managed = hooks.instead(call, "shutdown", vmid, timeout_s=timeout)
    if managed is not None:
        return managed

    def work(task: Task) -> None:
        lifecycle.shutdown(call.node, vmid, task, timeout_s=timeout, force=bool(call.values.get("forceStop")))

    return call.task("vzshutdown", vmid, work)


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/status/reboot",
    parameters={**GUEST, "timeout": number(0)},
    permissions=POWER,
)
def reboot(call: Call) -> Any:
    """Ask a container to end, and start it again."""
    vmid = _require(call, running=True)

    def work(task: Task) -> None:
        lifecycle.reboot(call.node, vmid, task, timeout_s=call.values.get("timeout"))

    return call.task("vzreboot", vmid, work)


# Snapshots


@endpoint("GET", "/nodes/{node}/lxc/{vmid}/snapshot", parameters=GUEST, permissions=AUDIT)
def snapshot_list(call: Call) -> Any:
    """Return a container's snapshots."""
    return snapshots.listing(call.node, _require(call))


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/snapshot",
    parameters={**SNAPSHOT, "description": text()},
    permissions=TAKE,
)
def take_snapshot(call: Call) -> Any:
    """Take a snapshot of a container."""
    vmid, name = _require(call), call.values["snapname"]
    if name in snapshots.RESERVED:
        raise ClusterError(f"unable to use snapshot name '{name}' (reserved name)")
    settings.assert_unlocked(call.node.state.load_guest(vmid))

    def work(task: Task) -> None:
        snapshots.create(call.node, vmid, name, call.values.get("description", ""))

    return call.task("vzsnapshot", vmid, work)


@endpoint("GET", "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}", parameters=SNAPSHOT, permissions=ALL)
def snapshot_index(call: Call) -> Any:
    """Say what can be done with a snapshot."""
    return [{"cmd": word} for word in routes().below("/nodes/{node}/lxc/{vmid}/snapshot/{snapname}")]


@endpoint(
    "DELETE",
    "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}",
    parameters={**SNAPSHOT, "force": flag()},
    permissions=TAKE,
)
def delete_snapshot(call: Call) -> Any:
    """Remove a snapshot."""
    vmid, name = _require(call), call.values["snapname"]

    def work(task: Task) -> None:
        snapshots.delete(call.node, vmid, name, force=bool(call.values.get("force")))

    return call.task("vzdelsnapshot", vmid, work)


@endpoint(
    "POST",
    "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/rollback",
    parameters={**SNAPSHOT, "start": flag(0)},
    permissions=perm("/vms/{vmid}", "VM.Snapshot", "VM.Snapshot.Rollback", any_of=True),
)
def rollback(call: Call) -> Any:
    """Bring a container back to a snapshot."""
    vmid, name = _require(call), call.values["snapname"]

    def work(task: Task) -> None:
        snapshots.rollback(call.node, vmid, name, task, start=bool(call.values.get("start")))

    return call.task("vzrollback", vmid, work)


@endpoint(
    "GET",
    "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/config",
    parameters=SNAPSHOT,
    permissions=perm("/vms/{vmid}", "VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit", any_of=True),
)
def snapshot_config(call: Call) -> Any:
    """Return the settings of a snapshot."""
    config = call.node.state.load_guest(_require(call))
    snapshots.require(config, call.values["snapname"])
    section = config.snapshots[call.values["snapname"]]
    return {**typed(section.values), "description": (section.description or "").removesuffix("\n")}


@endpoint(
    "PUT",
    "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/config",
    parameters={**SNAPSHOT, "description": text()},
    permissions=TAKE,
)
def change_snapshot(call: Call) -> Any:
    """Change a snapshot's description."""
    snapshots.describe(call.node, _require(call), call.values["snapname"], call.values.get("description", ""))
