"""Moving virtual machines to other nodes."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, ParameterError
from ..config.users import ROOT
from ..ha import hooks
from ..tasks import Task
from ..vm import migrate, preconditions, rights
from .common import NODE, VMID, Call, choice, endpoint, flag, number, perm, text

GUEST = {"node": NODE, "vmid": VMID}
PATH = "/nodes/{node}/qemu/{vmid}/migrate"
MIGRATE = perm("/vms/{vmid}", "VM.Migrate")


@endpoint("GET", PATH, parameters={**GUEST, "target": text("pve-node")}, permissions=MIGRATE)
def overview(call: Call) -> Any:
    """Return where a machine can go, and what keeps it."""
    target = call.values.get("target")
    if target:
        _check_node(call, target)
    return preconditions.overview(call.node, call.values["vmid"], target)


def _check_node(call: Call, target: str) -> None:
    if target not in call.node.state.nodes:
        raise ClusterError(f"no such cluster node '{target}'")


@endpoint(
    "POST",
    PATH,
    parameters={
        **GUEST,
        "target": text("pve-node", optional=False),
        "online": flag(),
        "force": flag(),
        "migration_type": choice("secure insecure"),
        "migration_network": text("CIDR"),
        "with-local-disks": flag(),
        "targetstorage": text("storage-pair-list"),
        "bwlimit": number(0, default="migrate limit from datacenter or storage config"),
    },
    permissions=MIGRATE,
)
def move(call: Call) -> Any:
    """Move a machine to another node."""
    values, node = call.values, call.node
    vmid, target = values["vmid"], values["target"]
    if target == node.name:
        raise ParameterError({"target": "target is local node."})
    node.state.assert_quorum()
    _check_node(call, target)
    rights.root_only(call, ["force"])
    if call.user != ROOT and (values.get("migration_type") or values.get("migration_network")):
        call.check("/", ["Sys.Modify"])
    config = node.state.load_guest(vmid, node.name, "qemu")
    config.assert_unlocked()
    running = node.guests.is_running(vmid)
    if running and not values.get("online"):
        raise ClusterError("can't migrate running VM without --online")
    if not values.get("targetstorage"):
        preconditions.assert_storages(node, config, target)
    if (upid := hooks.instead(call, "migrate", vmid, target=target)) is not None:
        return upid

    def work(task: Task) -> None:
        if values.get("online") and not running:
            task.warn("VM isn't running. Doing offline migration instead.")
        migrate.migrate(
            node,
            vmid,
            target,
            task,
            online=bool(values.get("online")),
            with_local_disks=bool(values.get("with-local-disks")),
            target_storage=values.get("targetstorage"),
            bandwidth_kib_s=values.get("bwlimit"),
        )

    return call.task("qmigrate", vmid, work)
