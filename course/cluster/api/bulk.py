"""All guests of a node at once: starting, ending and moving them."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..tasks import Task
from ..vm import bulk
from .common import ALL, NODE, Call, Parameter, endpoint, flag, number, text

_VMS = text("pve-vmid-list")


@endpoint(
    "POST",
    "/nodes/{node}/startall",
    parameters={"node": NODE, "force": Parameter(type="boolean", optional=True, default="off"), "vms": _VMS},
    permissions=ALL,
)
def start(call: Call) -> Any:
    """Start the guests that start with their node, or those that are named."""
    wanted = bulk.chosen(call, ["VM.PowerMgmt"])
    force = bool(call.values.get("force")) or "vms" in call.values

    def work(task: Task) -> None:
        bulk.start(call.node, wanted, task, force=force)

    return call.task("startall", "", work)


@endpoint(
    "POST",
    "/nodes/{node}/stopall",
    parameters={
        "node": NODE,
        "vms": _VMS,
        "force-stop": flag(1),
        "timeout": number(0, 7200, 180),
    },
    permissions=ALL,
)
def stop(call: Call) -> Any:
    """Shut the guests of a node down."""
    wanted = bulk.chosen(call, ["VM.PowerMgmt"])
    force, timeout_s = bool(call.values.get("force-stop", 1)), int(call.values.get("timeout", 180))

    def work(task: Task) -> None:
        bulk.stop(call.node, wanted, task, force=force, timeout_s=timeout_s)

    return call.task("stopall", "", work)


@endpoint(
    "POST",
    "/nodes/{node}/migrateall",
    parameters={
        "node": NODE,
        "target": text("pve-node", optional=False),
        "maxworkers": number(1),
        "vms": _VMS,
        "with-local-disks": flag(),
    },
    permissions=ALL,
)
def migrate(call: Call) -> Any:
    """Move the guests of a node to another one."""
    target = call.values["target"]
    wanted = bulk.chosen(call, ["VM.Migrate"])
    if target == call.node.name:
        raise ClusterError("target is local node.", status=400)
    if target not in call.node.state.nodes:
        raise ClusterError(f"no such cluster node '{target}'")
    with_disks = bool(call.values.get("with-local-disks"))

    def work(task: Task) -> None:
        bulk.migrate(call.node, wanted, target, task, with_local_disks=with_disks)

    return call.task("migrateall", "", work)
