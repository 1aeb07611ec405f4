"""Terminals of containers, their addresses, features and history."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..ct import console as terminals
from ..ct import settings, veth
from ..vm import console
from .common import NODE, VMID, Call, Parameter, choice, endpoint, perm, text

GUEST = {"node": NODE, "vmid": VMID}
PATH = "/nodes/{node}/lxc/{vmid}"
AUDIT, CONSOLE = perm("/vms/{vmid}", "VM.Audit"), perm("/vms/{vmid}", "VM.Console")


def _require(call: Call) -> int:
    vmid = int(call.values["vmid"])
    call.node.state.guest(vmid, call.node.name, "lxc")
    return vmid


@endpoint("POST", f"{PATH}/termproxy", parameters=GUEST, permissions=CONSOLE, writes=False)
def terminal(call: Call) -> Any:
    """Offer a terminal of a container."""
    vmid, node = _require(call), call.node
    ticket = node.tickets.console(call.user, f"/vms/{vmid}")
    path = terminals.offer_terminal(node, vmid)
    waiting = node.consoles.wait(vmid, path, call.user, ticket, terminal=True)
    upid = call.task("vncproxy", vmid, lambda task: node.consoles.work(waiting, task))
    return {"user": call.user, "ticket": ticket, "port": str(waiting.port), "upid": upid}


@endpoint(
    "GET",
    f"{PATH}/vncwebsocket",
    parameters={
        **GUEST,
        "vncticket": text(longest=512, optional=False),
        "port": Parameter(type="integer", minimum=5900, maximum=5999),
    },
    permissions=CONSOLE,
    inline=True,
)
async def websocket(call: Call) -> Any:
    """Join a client with the terminal that waits for it."""
    node, values = call.node, call.values
    node.tickets.verify_console(values["vncticket"], f"/vms/{values['vmid']}", user=call.user)
    if call.request is None or call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise ClusterError("websocket upgrade expected", status=501)
    found = node.consoles.take(values["port"], values["vmid"])
    return await console.serve(call.request, node, found)


@endpoint("GET", f"{PATH}/interfaces", parameters=GUEST, permissions=AUDIT)
def interfaces(call: Call) -> Any:
    """Return a running container's network interfaces and their addresses."""
    vmid = _require(call)
    status, output = call.node.containers.exec(vmid, ["ip", "-o", "addr"], timeout_s=20)
    if status:
        raise ClusterError(f"unable to read the interfaces of CT {vmid}")
    _, links = call.node.containers.exec(vmid, ["ip", "-o", "link"], timeout_s=20)
    found: dict[str, dict[str, str]] = {}
    for words in (line.split() for line in links.decode().splitlines()):
        address = words[words.index("brd") - 1] if "brd" in words else "00:00:00:00:00:00"
        found[words[1].rstrip(":").partition("@")[0]] = {
            "name": words[1].rstrip(":").partition("@")[0],
            "hwaddr": address,
        }
    for words in (line.split() for line in output.decode().splitlines()):
        if words[2] in ("inet", "inet6") and words[1] in found:
            found[words[1]].setdefault(words[2], words[3])
    return [entry for name, entry in found.items() if not name.startswith(veth.PEER)]


@endpoint(
    "GET",
    f"{PATH}/feature",
    parameters={
        **GUEST,
        "feature": choice("snapshot clone copy", optional=False),
        "snapname": text("pve-configid", longest=40),
    },
    permissions=AUDIT,
)
def feature(call: Call) -> Any:
    """Say whether a container's disk can do something."""
    node = call.node
    values = node.state.load_guest(_require(call)).current.values
    storage, volume = settings.storage_of_root(node, values)
    return {"hasFeature": int(storage.has_feature(call.values["feature"], volume, call.values.get("snapname")))}


@endpoint(
    "GET",
    f"{PATH}/rrddata",
    parameters={
        **GUEST,
        "timeframe": choice("hour day week month year", optional=False),
        "cf": choice("AVERAGE MAX"),
    },
    permissions=AUDIT,
)
def history(call: Call) -> Any:
    """Return what a container used over time."""
    values = call.values
    return call.node.statistics.rrd.data(f"lxc/{_require(call)}", values["timeframe"], values.get("cf", "AVERAGE"))
