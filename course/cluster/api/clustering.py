"""The cluster as a whole: who is in it, the next free number, options, and its log."""

from __future__ import annotations

from typing import Any

from .. import properties
from ..foundation import address_of, cluster_name
from ..vmid import next_free
from .common import ALL, VMID, Call, Parameter, endpoint, number, perm

AUDIT = perm("/", "Sys.Audit")


@endpoint("GET", "/cluster/status", permissions=AUDIT, inline=True)
def status(call: Call) -> Any:
    """Say who is there, and whether they are enough."""
    node = call.node
    names = node.state.nodes
    cluster: dict[str, Any] = {
        "id": "cluster",
        "type": "cluster",
        "name": cluster_name(node.state, node.settings),
        "nodes": len(names),
        "quorate": int(node.members.quorate()),
        "version": len(names),
    }
    return [
        cluster,
        *(
            {
                "id": f"node/{name}",
                "type": "node",
                "name": name,
                "nodeid": number,
                "ip": address_of(name),
                "online": int(node.members.online(name)),
                "local": int(name == node.name),
                "level": "",
            }
            for number, name in enumerate(names, 1)
        ),
    ]


@endpoint(
    "GET",
    "/cluster/nextid",
    parameters={
        "vmid": Parameter(type="integer", optional=True, format=VMID.format, minimum=VMID.minimum, maximum=VMID.maximum)
    },
    permissions=ALL,
    inline=True,
)
def nextid(call: Call) -> Any:
    """Return a number that no guest has; as text, as a real one does."""
    bounds = properties.parse(call.node.state.datacenter().get("next-id", ""), {})
    limits = {name: int(value) for name, value in bounds.items() if name in ("lower", "upper")}
    return str(next_free(call.node.state.guests(), call.values.get("vmid"), **limits))


@endpoint("GET", "/cluster/log", parameters={"max": number(1)}, permissions=ALL)
def log(call: Call) -> Any:
    """Return the latest lines of the cluster's log that the caller may read."""
    auditor = call.may("/", ["Sys.Syslog"])
    entries = call.node.statistics.read_cluster_log()
    shown = [entry for entry in entries if auditor or entry["user"] == call.user]
    return shown[: call.values.get("max", 500)]
