"""A node's interfaces: changes wait in ``interfaces.new`` until the network is reloaded or they are taken back."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
from pathlib import Path
from typing import Any

from ...error import ParameterError
from ..config import files
from ..declaration import Declarations, Parameter
from ..formats import split_list
from ..net import interfaces
from ..net.interfaces import Interface
from ..tasks import Task
from .common import ALL, NODE, Call, choice, endpoint, flag, number, perm, text

_IFACE = Parameter(format="pve-iface", min_length=2, max_length=20)
_OPTIONAL_IFACE = text("pve-iface")
_LIST = text("pve-iface-list")
_KINDS = "bridge bond eth alias vlan OVSBridge OVSBond OVSPort OVSIntPort"
_FIELDS: Declarations = {
    "node": NODE,
    "iface": _IFACE,
    "type": choice(f"{_KINDS} unknown", optional=False),
    "address": Parameter(format="ipv4", optional=True, requires="netmask"),
    "netmask": Parameter(format="ipv4mask", optional=True, requires="address"),
    "cidr": text("CIDRv4"),
    "gateway": text("ipv4"),
    "address6": Parameter(format="ipv6", optional=True, requires="netmask6"),
    "netmask6": Parameter(type="integer", optional=True, minimum=0, maximum=128, requires="address6"),
    "cidr6": text("CIDRv6"),
    "gateway6": text("ipv6"),
    "autostart": flag(),
    "comments": text(),
    "comments6": text(),
    "mtu": number(1280, 65520),
    "bridge_ports": _LIST,
    "bridge_vlan_aware": flag(),
    "slaves": _LIST,
    "bond_mode": choice(
        "balance-rr active-backup balance-xor broadcast 802.3ad balance-tlb balance-alb balance-slb "
        "lacp-balance-slb lacp-balance-tcp"
    ),
    "bond-primary": _OPTIONAL_IFACE,
    "bond_xmit_hash_policy": choice("layer2 layer2+3 layer3+4"),
    "ovs_bonds": _LIST,
    "ovs_bridge": _OPTIONAL_IFACE,
    "ovs_options": text(longest=1024),
    "ovs_ports": _LIST,
    "ovs_tag": number(1, 4094),
    "vlan-id": number(1, 4094),
    "vlan-raw-device": _OPTIONAL_IFACE,
}
_OPTIONS = {  # how a parameter is called in the file
    "mtu": "mtu",
    "gateway": "gateway",
    "gateway6": "gateway6",
    "bridge_ports": "bridge-ports",
    "slaves": "bond-slaves",
    "bond_mode": "bond-mode",
    "bond-primary": "bond-primary",
    "bond_xmit_hash_policy": "bond-xmit-hash-policy",
    "vlan-id": "vlan-id",
    "vlan-raw-device": "vlan-raw-device",
    **{name: name for name in ("ovs_bonds", "ovs_bridge", "ovs_options", "ovs_ports")},
}
_PRIORITY = {"eth": 3, "bond": 4, "bridge": 5, "OVSBridge": 5}
_AUDIT, _MODIFY = perm("/nodes/{node}", "Sys.Audit"), perm("/nodes/{node}", "Sys.Modify")


def _new_file(call: Call) -> Path:
    path: Path = call.node.fabric.interfaces_file
    return path.with_name("interfaces.new")


def _load(call: Call) -> dict[str, Interface]:
    """Return the interfaces as they will be once the network is reloaded."""
    return interfaces.parse(files.read(_new_file(call)) or files.read(call.node.fabric.interfaces_file))


def _save(call: Call, found: dict[str, Interface]) -> None:
    files.write(_new_file(call), interfaces.render(found), mode=0o644)


def _changes(call: Call) -> str:
    """Return what waits, as a difference; empty when nothing does."""
    new = files.read(_new_file(call))
    if not new:
        return ""
    names = ("/etc/network/interfaces", "/etc/network/interfaces.new")
    before = files.read(call.node.fabric.interfaces_file)
    return "".join(difflib.unified_diff(before.splitlines(True), new.splitlines(True), *names))


@endpoint(
    "GET",
    "/nodes/{node}/network",
    parameters={"node": NODE, "type": choice(f"{_KINDS} any_bridge any_local_bridge")},
    permissions=ALL,
)
def listed(call: Call) -> Any:
    """List the interfaces, the loopback one left out."""
    found = _load(call)
    changes = _changes(call)
    if changes:
        call.more["changes"] = changes
    wanted = call.values.get("type")
    kinds = ("bridge", "OVSBridge") if wanted in ("any_bridge", "any_local_bridge") else (wanted,)
    return [
        {"iface": name, **_shown(call, one)}
        for name, one in sorted(found.items())
        if one.type != "loopback" and (wanted is None or one.type in kinds)
    ]


def _shown(call: Call, one: Interface) -> dict[str, Any]:
    """Return an interface as the API answers it."""
    bridges = call.node.fabric.bridges()
    fields: dict[str, Any] = {
        "type": one.type,
        "method": one.method or "manual",
        "method6": one.method6 or "manual",
        "families": [name for name, used in (("inet", one.method), ("inet6", one.method6)) if used],
        "priority": _PRIORITY.get(one.type, 6),
    }
    if one.type == "eth":
        fields["exists"] = 1
    if one.auto:
        fields["autostart"] = 1
    if one.type == "eth" or one.name in bridges:
        fields["active"] = 1
    network = one.network
    if network is not None:
        fields |= {"address": str(network.ip), "netmask": str(network.network.prefixlen), "cidr": str(network)}
    names = {value: key for key, value in _OPTIONS.items()}
    fields |= {names.get(key, key.replace("-", "_")): value for key, value in one.options.items() if key != "address"}
    if "bridge_vlan_aware" in fields:
        fields["bridge_vlan_aware"] = int(fields["bridge_vlan_aware"] in ("yes", "1"))
    if one.comment:
        fields["comments"] = one.comment
    return fields


@endpoint("GET", "/nodes/{node}/network/{iface}", parameters={"node": NODE, "iface": _IFACE}, permissions=_AUDIT)
def read(call: Call) -> Any:
    """Return one interface."""
    return _shown(call, _known(_load(call), call.values["iface"]))


def _known(found: dict[str, Interface], name: str) -> Interface:
    if name not in found:
        raise ParameterError({"iface": "interface does not exist"})
    return found[name]


@endpoint("POST", "/nodes/{node}/network", parameters=_FIELDS, permissions=_MODIFY)
def create(call: Call) -> Any:
    """Make an interface."""
    name = call.values["iface"]
    found = _load(call)
    if name in found:
        raise ParameterError({"iface": "interface already exists"})
    one = Interface(name)
    if call.values["type"] == "bridge":
        one.options |= {"bridge-ports": "none", "bridge-stp": "off", "bridge-fd": "0"}
    elif call.values["type"].startswith("OVS"):
        one.options["ovs_type"] = call.values["type"]
    _set(call, one, found)
    found[name] = one
    _save(call, found)


@endpoint(
    "PUT",
    "/nodes/{node}/network/{iface}",
    parameters={**_FIELDS, "delete": text("pve-configid-list")},
    permissions=_MODIFY,
)
def update(call: Call) -> Any:
    """Change an interface."""
    found = _load(call)
    one = _known(found, call.values["iface"])
    for name in split_list(call.values.get("delete", "")):
        _forget(one, name)
    _set(call, one, found)
    _save(call, found)


def _forget(one: Interface, name: str) -> None:
    """Take a setting away."""
    if name == "comments":
        one.comment = ""
    elif name == "autostart":
        one.auto = False
    elif name in ("cidr", "address", "netmask"):
        one.options.pop("address", None)
        one.method = "manual"
    elif name in ("cidr6", "address6", "netmask6"):
        one.options.pop("address6", None)
        one.method6 = None
    else:
        one.options.pop(_OPTIONS.get(name, name), None)


def _set(call: Call, one: Interface, found: dict[str, Interface]) -> None:
    """Give an interface what a call says."""
    values = call.values
    for name, option in _OPTIONS.items():
        if name in values:
            several = name in ("bridge_ports", "slaves", "ovs_ports", "ovs_bonds")
            one.options[option] = " ".join(split_list(values[name])) or "none" if several else str(values[name])
    if values.get("bridge_vlan_aware"):
        one.options |= {"bridge-vlan-aware": "yes", "bridge-vids": "2-4094"}
    four = values.get("cidr") or (f"{values['address']}/{values['netmask']}" if "address" in values else None)
    if four is not None:
        network = ipaddress.IPv4Interface(four)
        _unique(found, one.name, network)
        one.options = {"address": str(network), **{key: v for key, v in one.options.items() if key != "address"}}
        one.method = "static"
    six = values.get("cidr6") or (f"{values['address6']}/{values['netmask6']}" if "address6" in values else None)
    if six is not None:
        one.options["address6"], one.method6 = str(ipaddress.IPv6Interface(six)), "static"
    if "gateway" in values:
        _only_gateway(found, one.name)
    one.auto = bool(values.get("autostart", one.auto))
    one.comment = values.get("comments", one.comment)


def _unique(found: dict[str, Interface], name: str, network: ipaddress.IPv4Interface) -> None:
    for other in found.values():
        if other.name != name and other.network is not None and other.network.ip == network.ip:
            words = f"address '{network.ip}' already exists on interface '{other.name}'"
            raise ParameterError({"address": words})


def _only_gateway(found: dict[str, Interface], name: str) -> None:
    for other in found.values():
        if other.name != name and "gateway" in other.options:
            words = f"Default gateway already exists on interface '{other.name}'."
            raise ParameterError({"gateway": words})


@endpoint("DELETE", "/nodes/{node}/network/{iface}", parameters={"node": NODE, "iface": _IFACE}, permissions=_MODIFY)
def delete(call: Call) -> Any:
    """Remove an interface."""
    found = _load(call)
    _known(found, call.values["iface"])
    del found[call.values["iface"]]
    _save(call, found)


@endpoint("DELETE", "/nodes/{node}/network", parameters={"node": NODE}, permissions=_MODIFY)
def revert(call: Call) -> Any:
    """Take back what waits."""
    _new_file(call).unlink(missing_ok=True)


@endpoint("PUT", "/nodes/{node}/network", parameters={"node": NODE}, permissions=_MODIFY)
def reload(call: Call) -> Any:
    """Let what waits count."""
    fabric, new = call.node.fabric, _new_file(call)

    def work(task: Task) -> None:
        with contextlib.suppress(FileNotFoundError):
            new.replace(fabric.interfaces_file)
            files.sync_directory(new.parent)
        fabric.reload()
        task.log("reload network configuration: " + ", ".join(fabric.bridges()))

    return call.task("srvreload", "networking", work)
