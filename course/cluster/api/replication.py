"""Replication of guests' disks, which needs storages that can send their changes: this lab has none.

So a job is refused as on a node without such a storage, and the lists are empty, in the shape that monitoring reads.
"""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, ParameterError
from ..storage import of_volume
from ..vm import hardware
from .common import ALL, NODE, Call, Parameter, choice, endpoint, flag, number, perm, text
from .storage_content import OF_GUEST

ID = Parameter(format="pve-replication-job-id", pattern=r"[1-9][0-9]{2,8}-\d{1,9}")
ALLOCATE = perm("/storage", "Datastore.Allocate")
OF_NODE = {"node": NODE, "guest": OF_GUEST}


@endpoint("GET", "/cluster/replication", permissions=ALL, inline=True)
def jobs(call: Call) -> Any:
    """Return the jobs of the cluster: none."""
    del call
    return []


@endpoint("GET", "/nodes/{node}/replication", parameters=OF_NODE, permissions=ALL, inline=True)
def jobs_of_node(call: Call) -> Any:
    """Return the jobs of a node with their states: none."""
    del call
    return []


@endpoint("GET", "/cluster/replication/{id}", parameters={"id": ID}, permissions=ALL, inline=True)
def job(call: Call) -> Any:
    """Return one job: there is none."""
    call.check(f"/vms/{call.values['id'].partition('-')[0]}", ["VM.Audit"])
    raise ClusterError(f"no such replication job '{call.values['id']}'")


@endpoint(
    "POST",
    "/cluster/replication",
    parameters={
        "comment": text(longest=4096),
        "disable": flag(),
        "id": ID,
        "rate": number(1, kind="number"),
        "remove_job": choice("local full"),
        "schedule": text("pve-calendar-event", longest=128, default="*/15"),
        "source": text("pve-node"),
        "target": text("pve-node", optional=False),
        "type": choice("local", optional=False),
    },
    permissions=ALLOCATE,
)
def create(call: Call) -> Any:
    """Refuse a job: no volume of this lab can be replicated."""
    vmid, node = int(call.values["id"].partition("-")[0]), call.node
    place = node.state.guests().get(vmid)
    if place is None:
        raise ParameterError({"id": f"guest '{vmid}' does not exist"})
    if call.values["target"] not in node.state.nodes:
        raise ParameterError({"target": f"no such cluster node '{call.values['target']}'"})
    if call.values["target"] == place.node:
        raise ParameterError({"target": "Source and target node are the same"})
    values = node.state.view_guest(place).current.values
    volumes = [drive.volume for drive in hardware.drives(values) if drive.is_disk and drive.has_volume]
    if place.kind == "lxc" and "rootfs" in values:
        volumes = [values["rootfs"].partition(",")[0]]
    for volid in volumes:
        if not of_volume(node, volid).has_feature("replicate", volid):
            raise ClusterError(f"missing replicate feature on volume '{volid}'")
    raise ClusterError("no replicatable volumes found")


@endpoint(
    "DELETE",
    "/cluster/replication/{id}",
    parameters={"id": ID, "force": flag(0), "keep": flag(0)},
    permissions=ALLOCATE,
)
def remove(call: Call) -> Any:
    """Remove a job: there is none."""
    raise ClusterError(f"no such replication job '{call.values['id']}'")
