"""All that the cluster has, in one list, and its nodes: what inventories and monitoring read."""

from __future__ import annotations

import json
import re
from typing import Any

from ...error import ClusterError
from .. import certificates, host
from ..config import sections
from ..config.guest import GuestConfig
from ..node import Node
from ..state import GuestPlace
from .common import ALL, Call, choice, endpoint

_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
NODE_NUMBERS = ("cpu", "maxcpu", "mem", "maxmem", "disk", "maxdisk", "uptime")
NO_NUMBERS = ("cpu", "mem", "disk", "netin", "netout", "diskread", "diskwrite", "uptime")


@endpoint(
    "GET",
    "/cluster/resources",
    parameters={"type": choice("vm storage node sdn")},
    permissions=ALL,
    inline=True,
)
def resources(call: Call) -> Any:
    """Return guests, nodes, storages and pools, as far as the caller may see them."""
    wanted = call.values.get("type")
    found: list[dict[str, Any]] = []
    if wanted is None:
        found += _pools(call)
    if wanted in (None, "vm"):
        found += guests(call)
    if wanted in (None, "node"):
        found += [node_entry(call, name) for name in call.node.state.nodes]
    if wanted in (None, "storage"):
        found += storages(call)
    if wanted in (None, "sdn"):
        found += _networks(call)
    return found


@endpoint("GET", "/nodes", permissions=ALL, inline=True)
def nodes(call: Call) -> Any:
    """Return the nodes."""
    found = []
    for name in call.node.state.nodes:
        certificate = call.node.state.parsed(f"nodes/{name}/pve-ssl.pem", _fingerprint)
        found.append({**node_entry(call, name, index=True), "ssl_fingerprint": certificate})
    return found


def node_entry(call: Call, name: str, *, index: bool = False) -> dict[str, Any]:
    """Return a node as the lists show it; its numbers for those who may audit it."""
    node = call.node
    online = node.members.online(name)
    entry: dict[str, Any] = {
        "id": f"node/{name}",
        "type": "node",
        "node": name,
        "status": "online" if online else "offline",
    }
    if not call.may(f"/nodes/{name}", ["Sys.Audit"]):
        return entry
    entry["level"] = ""
    if not index:
        entry["cgroup-mode"] = 2
    if online:
        said = node.statistics.of(name).get("node", {})
        entry |= {key: said[key] for key in NODE_NUMBERS if key in said}
    return entry


def _pools(call: Call) -> list[dict[str, Any]]:
    return [
        {"id": f"/pool/{name}", "type": "pool", "pool": name}
        for name in sorted(call.node.state.users().pools)
        if call.may(f"/pool/{name}", ["Pool.Audit"])
    ]


def guests(call: Call, *, everybody: bool = False) -> list[dict[str, Any]]:
    """Return the guests that the caller may see, or all."""
    node = call.node
    pools = {vmid: name for name, pool in node.state.users().pools.items() for vmid in pool.vms}
    managed = ha_states(node)
    live = _live(node)
    online = {name: node.members.online(name) for name in node.state.nodes}
    found = []
    for place in node.state.guests().values():
        if not (everybody or call.may(f"/vms/{place.vmid}", ["VM.Audit"])):
            continue
        entry = guest_entry(node, place, live.get(f"{place.kind}/{place.vmid}"), online=online[place.node])
        pool = pools.get(place.vmid)
        if pool is not None and call.may(f"/pool/{pool}", ["Pool.Audit"]):
            entry["pool"] = pool
        if place.vmid in managed:
            entry["hastate"] = managed[place.vmid]
        found.append(entry)
    return found


def _live(node: Node) -> dict[str, dict[str, Any]]:
    """Return what the nodes said of their guests, by ``qemu/169``; not of those that another node has by now."""
    places = node.state.guests()
    return {
        f"{entry['type']}/{entry['vmid']}": {**entry, "node": name}
        for name in node.state.nodes
        for entry in node.statistics.of(name).get("entries", ())
        if "vmid" in entry and entry["vmid"] in places and places[entry["vmid"]].node == name
    }


def guest_entry(node: Node, place: GuestPlace, said: dict[str, Any] | None, *, online: bool) -> dict[str, Any]:
    """Return a guest as the lists show it.

    Args:
        node: that answers.
        place: where the guest is.
        said: what its node said of it last.
        online: whether that node can be reached.
    """
    config = node.state.view_guest(place)
    entry: dict[str, Any] = {
        "id": f"{place.kind}/{place.vmid}",
        "type": place.kind,
        "vmid": place.vmid,
        "node": place.node,
        "status": "stopped" if online else "unknown",
        **shape(place, config),
    }
    if online:
        entry |= dict.fromkeys(NO_NUMBERS, 0)
        if said is not None and said["node"] == place.node:
            entry |= {key: value for key, value in said.items() if value is not None}
    return entry


def shape(place: GuestPlace, config: GuestConfig) -> dict[str, Any]:
    """Return what a guest's configuration says about its size and name."""
    values = config.current.values
    first = "hostname" if place.kind == "lxc" else "name"
    default = f"{'CT' if place.kind == 'lxc' else 'VM'} {place.vmid}"
    cores = int(values.get("cores", "0" if place.kind == "lxc" else "1"))
    cpus = cores * int(values.get("sockets", "1"))
    found: dict[str, Any] = {
        "name": values.get(first, default),
        "template": int(values.get("template", "0") == "1"),
        "maxcpu": int(values.get("vcpus", "0")) or cpus or (host.processor()["cpus"]),
        "maxmem": int(re.sub(r"\D.*", "", values.get("memory", "").removeprefix("current=")) or 512) << 20,
        "maxdisk": _disk(place, values),
    }
    found |= {key: values[key] for key in ("tags", "lock") if key in values}
    return found


def _disk(place: GuestPlace, values: dict[str, str]) -> int:
    """Return the size of a guest's first disk."""
    if place.kind == "lxc":
        return _size(values.get("rootfs", ""))
    order = re.search(r"order=([^,]+)", values.get("boot", ""))
    names = [*(order[1].split(";") if order else ()), values.get("bootdisk", ""), "scsi0", "virtio0", "sata0", "ide0"]
    return next((_size(values[name]) for name in names if name in values and "media=cdrom" not in values[name]), 0)


def _size(volume: str) -> int:
    found = re.search(r"(?:^|,)size=(\d+(?:\.\d+)?)([KMGT]?)", volume)
    return int(float(found[1]) * _SIZES[found[2]]) if found else 0


def storages(call: Call, *, everybody: bool = False) -> list[dict[str, Any]]:
    """Return the storages that the caller may see, or all, on each node that has them."""
    node = call.node
    found = []
    known = node.state.parsed("storage.cfg", _shapes)
    for name in node.state.nodes:
        online = node.members.online(name)
        said = {entry.get("id"): entry for entry in node.statistics.of(name).get("entries", ())} if online else {}
        for storage, nodes, entry in known:
            if (not nodes or name in nodes) and (everybody or call.may(f"/storage/{storage}", ["Datastore.Audit"])):
                id = f"storage/{name}/{storage}"
                found.append({"id": id, "node": name, **entry, **said.get(id, {})})
    return found


def _shapes(text: str) -> list[tuple[str, list[str], dict[str, Any]]]:
    """Return the storages that are not switched off: name, nodes that it is limited to, what its entry says."""
    return [
        (
            name,
            section.words("nodes"),
            {
                "type": "storage",
                "storage": name,
                "status": "unknown",
                "plugintype": section.kind,
                "content": ",".join(section.words("content")),
                "shared": int(section.flag("shared")),
            },
        )
        for name, section in sections.parse(text).items()
        if not section.flag("disable")
    ]


def _networks(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "id": f"sdn/{name}/localnetwork",
            "type": "sdn",
            "sdn": "localnetwork",
            "node": name,
            "status": "ok" if call.node.members.online(name) else "unknown",
        }
        for name in call.node.state.nodes
        if call.may("/sdn/zones/localnetwork", ["SDN.Audit"])
    ]


def ha_states(node: Node) -> dict[int, str]:
    """Return the states of guests that the HA manager looks after, by number."""
    return node.state.parsed("ha/manager_status", _ha_states)


def _ha_states(text: str) -> dict[int, str]:
    try:
        services = json.loads(text)["service_status"] if text else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        int(sid.partition(":")[2]): str(status.get("state", "unknown"))
        for sid, status in services.items()
        if sid.partition(":")[2].isdecimal()
    }


def _fingerprint(certificate: str) -> str:
    try:
        return certificates.fingerprint(certificate)
    except (ValueError, ClusterError):
        return ""
