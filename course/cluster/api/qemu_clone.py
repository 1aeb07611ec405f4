"""Clones and templates of virtual machines, and their disks on the move."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...error import ClusterError, ParameterError
from .. import options
from ..tasks import Task
from ..vm import clone, creation, disks, reassign, rights
from .common import DIGEST, NODE, STORAGE, VMID, Call, choice, endpoint, flag, number, perm, text
from .qemu_config import DISKS

GUEST = {"node": NODE, "vmid": VMID}
PATH = "/nodes/{node}/qemu/{vmid}"
_UNUSED = " ".join(key for key in options.DRIVES if key.startswith("unused"))
_NEW = [
    "or",
    ["perm", "/vms/{newid}", ["VM.Allocate"]],
    ["perm", "/pool/{pool}", ["VM.Allocate"], "require_param", "pool"],
]


@endpoint(
    "POST",
    f"{PATH}/clone",
    parameters={
        **GUEST,
        "newid": VMID,
        "name": text("dns-name"),
        "description": text(),
        "pool": text("pve-poolid"),
        "snapname": text("pve-configid", longest=40),
        "storage": STORAGE,
        "format": choice("raw qcow2 vmdk"),
        "full": flag(),
        "target": text("pve-node"),
        "bwlimit": number(0, default="clone limit from datacenter or storage config"),
    },
    permissions={"check": ["and", ["perm", "/vms/{vmid}", ["VM.Clone"]], _NEW]},
)
def make_clone(call: Call) -> Any:
    """Clone a machine."""
    values, node = call.values, call.node
    target = values.get("target")
    if target and target != node.name:
        if target not in node.state.nodes:
            raise ClusterError(f"no such cluster node '{target}'")
        if not node.members.online(target):
            raise ClusterError(f"node '{target}' is not online")
    if values.get("pool") and values["pool"] not in node.state.users().pools:
        raise ClusterError(f"pool '{values['pool']}' does not exist")
    wanted = clone.plan(node, values)
    for drive in wanted.drives:
        storage = wanted.storage or drive.volume.partition(":")[0]
        call.check(f"/storage/{storage}", ["Datastore.AllocateSpace"])
    rights.check_bridges(call, {key: value for key, value in wanted.values.items() if key.startswith("net")})
    creation.reserve(node, wanted.newid, "clone")
    return call.task("qmclone", wanted.vmid, lambda task: clone.clone(node, wanted, task))


@endpoint(
    "POST",
    f"{PATH}/template",
    parameters={**GUEST, "disk": choice(DISKS)},
    permissions=perm("/vms/{vmid}", "VM.Allocate"),
)
def make_template(call: Call) -> Any:
    """Make a machine a template."""
    vmid, node, disk = call.values["vmid"], call.node, call.values.get("disk")
    config = node.state.load_guest(vmid, node.name, "qemu")
    config.assert_unlocked()
    clone.check_template(node, vmid, config, disk)
    return call.task("qmtemplate", vmid, lambda task: clone.template(node, vmid, task, disk))


@endpoint(
    "POST",
    f"{PATH}/move_disk",
    parameters={
        **GUEST,
        "target-vmid": dataclasses.replace(VMID, optional=True),
        "disk": choice(f"{DISKS} {_UNUSED}", optional=False),
        "storage": STORAGE,
        "format": choice("raw qcow2 vmdk"),
        "delete": flag(0),
        "digest": DIGEST,
        "bwlimit": number(0, default="move limit from datacenter or storage config"),
        "target-disk": choice(f"{DISKS} {_UNUSED}"),
        "target-digest": DIGEST,
    },
    permissions=perm("/vms/{vmid}", "VM.Config.Disk"),
)
def move_disk(call: Call) -> Any:
    """Move a disk to another storage, or give it to another machine."""
    values, node = call.values, call.node
    if values.get("target-vmid"):
        return _give(call)
    if not values.get("storage"):
        raise ParameterError({"storage": "missing parameter, either 'storage' or 'target-vmid' is needed"})
    call.check(f"/storage/{values['storage']}", ["Datastore.AllocateSpace"])
    disks.check_move(node, values["vmid"], values)

    def work(task: Task) -> None:
        disks.move(node, values["vmid"], values, task)

    return call.task("qmmove", values["vmid"], work)


def _give(call: Call) -> Any:
    values, node = call.values, call.node
    target = values["target-vmid"]
    if values.get("storage"):
        raise ParameterError({"storage": "either set storage or target-vmid, but not both"})
    call.check(f"/vms/{target}", ["VM.Config.Disk"])
    disk = values["disk"]
    reassign.check(node, values)

    def work(task: Task) -> None:
        reassign.reassign(node, values, task.log)

    return call.task("qmmove", f"{values['vmid']}-{disk}>{target}-{values.get('target-disk', disk)}", work)
