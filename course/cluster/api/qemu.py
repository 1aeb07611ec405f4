"""Virtual machines of a node: the list, making one, removing one."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from .. import options
from ..backup import restore
from ..tasks import Task
from ..vm import allocation, creation, lifecycle, rights, status
from .common import ALL, NODE, SKIPLOCK, VMID, Call, endpoint, flag, index, perm

GUEST = {"node": NODE, "vmid": VMID}


@endpoint("GET", "/nodes/{node}/qemu", parameters={"node": NODE, "full": flag()}, permissions=ALL)
def machines(call: Call) -> Any:
    """Return the machines of this node that the caller may see."""
    describe = status.with_qmp if call.values.get("full") else status.brief
    places = [place for place in call.node.state.guests().values() if place.kind == "qemu"]
    return [
        describe(call.node, place)
        for place in places
        if place.node == call.node.name and call.may(f"/vms/{place.vmid}", ["VM.Audit"])
    ]


index("/nodes/{node}/qemu/{vmid}", GUEST)


@endpoint("POST", "/nodes/{node}/qemu", parameters=options.CREATE, permissions=ALL)
def create(call: Call) -> Any:
    """Make a machine, or restore one from a backup."""
    values = dict(call.values)
    vmid, pool, storage = values["vmid"], values.get("pool"), values.get("storage")
    if not call.may(f"/vms/{vmid}", ["VM.Allocate"]):
        if not pool:
            call.check(f"/vms/{vmid}", ["VM.Allocate"])
        call.check(f"/pool/{pool}", ["VM.Allocate"])
    if pool and pool not in call.node.state.users().pools:
        raise ClusterError(f"pool '{pool}' does not exist")
    own = ("node", "vmid", "archive", "storage", "pool", "start", "bwlimit", "force", "unique", "live-restore")
    asked = {key: value for key, value in values.items() if key not in own}
    if "archive" in values:
        return restore.machine(call, asked)
    settings = allocation.normalized(rights.text_of(asked))
    rights.check_settings(call, vmid, dict(settings), {}, pool)
    rights.check_storages(call, settings, storage)
    rights.check_bridges(call, settings)
    allocation.assert_storages(call.node, settings)
    creation.reserve(call.node, vmid)

    def work(task: Task) -> None:
        creation.create(call.node, vmid, settings, task.log, pool=pool, storage=storage)
        if values.get("start"):
            lifecycle.start(call.node, vmid, task.log)

    return call.task("qmcreate", vmid, work)


@endpoint(
    "DELETE",
    "/nodes/{node}/qemu/{vmid}",
    parameters={**GUEST, "skiplock": SKIPLOCK, "purge": flag(), "destroy-unreferenced-disks": flag(0)},
    permissions=perm("/vms/{vmid}", "VM.Allocate"),
)
def destroy(call: Call) -> Any:
    """Remove a machine and its volumes."""
    vmid, node = call.values["vmid"], call.node
    rights.root_only(call, ["skiplock"])
    skiplock, purge = bool(call.values.get("skiplock")), bool(call.values.get("purge"))
    config = node.state.load_guest(vmid, node.name, "qemu")
    creation.assert_removable(node, vmid, config, skiplock=skiplock, purge=purge)

    def work(task: Task) -> None:
        creation.destroy(
            node,
            vmid,
            task.log,
            skiplock=skiplock,
            purge=purge,
            unreferenced=bool(call.values.get("destroy-unreferenced-disks")),
        )

    return call.task("qmdestroy", vmid, work)
