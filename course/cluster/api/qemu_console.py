"""Consoles of virtual machines: screen, serial lines, keys, QEMU's monitor; and their history."""

from __future__ import annotations

import re
from typing import Any

from ...error import ClusterError, ParameterError
from ..config.users import ROOT
from ..route import Call as RouteCall
from ..vm import console, rights
from .common import NODE, SKIPLOCK, VMID, Call, Parameter, choice, endpoint, flag, perm, text

GUEST = {"node": NODE, "vmid": VMID}
PATH = "/nodes/{node}/qemu/{vmid}"
CONSOLE = perm("/vms/{vmid}", "VM.Console")
AUDIT = perm("/vms/{vmid}", "VM.Audit")
_TIMEFRAME = choice("hour day week month year", optional=False)
_READ_ONLY = re.compile(r"\s*(info|help)(\s|$)")


def _wait(call: RouteCall, path: str, *, terminal: bool) -> dict[str, Any]:
    """Let a console wait for its client; return what both kinds answer."""
    node, vmid = call.node, call.values["vmid"]
    ticket = node.tickets.console(call.user, f"/vms/{vmid}")
    waiting = node.consoles.wait(vmid, node.guests.run / f"{vmid}.{path}", call.user, ticket, terminal=terminal)
    upid = call.task("vncproxy", vmid, lambda task: node.consoles.work(waiting, task))
    return {"user": call.user, "ticket": ticket, "port": str(waiting.port), "upid": upid}


@endpoint(
    "POST",
    f"{PATH}/vncproxy",
    parameters={**GUEST, "websocket": flag(), "generate-password": flag(0)},
    permissions=CONSOLE,
    writes=False,
)
def screen(call: Call) -> Any:
    """Offer a machine's screen."""
    node, vmid = call.node, call.values["vmid"]
    if call.values.get("generate-password") and not call.values.get("websocket"):
        raise ParameterError({"generate-password": "'generate-password' only works when 'websocket' is set"})
    values = node.state.load_guest(vmid, node.name, "qemu").current.values
    if not console.shows_screen(values):
        return {**_wait(call, console.serial_of(values, None), terminal=True), "cert": _certificate(call)}
    answer = _wait(call, "vnc", terminal=False)
    password = answer["ticket"]
    if call.values.get("generate-password"):
        password = answer["password"] = console.new_password()
    console.set_password(node, vmid, password)
    return {**answer, "cert": _certificate(call)}


def _certificate(call: RouteCall) -> str:
    return call.node.state.read("pve-root-ca.pem")


@endpoint(
    "POST",
    f"{PATH}/termproxy",
    parameters={**GUEST, "serial": choice("serial0 serial1 serial2 serial3")},
    permissions=CONSOLE,
    writes=False,
)
def terminal(call: Call) -> Any:
    """Offer one of a machine's serial lines."""
    values = call.node.state.load_guest(call.values["vmid"], call.node.name, "qemu").current.values
    return _wait(call, console.serial_of(values, call.values.get("serial")), terminal=True)


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
    """Join a client with the console that waits for it."""
    node, values = call.node, call.values
    node.tickets.verify_console(values["vncticket"], f"/vms/{values['vmid']}", user=call.user)
    if call.request is None or call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise ClusterError("websocket upgrade expected", status=501)
    found = node.consoles.take(values["port"], values["vmid"])
    return await console.serve(call.request, node, found)


@endpoint(
    "PUT",
    f"{PATH}/sendkey",
    parameters={**GUEST, "skiplock": SKIPLOCK, "key": text(optional=False)},
    permissions=CONSOLE,
    writes=False,
)
def sendkey(call: Call) -> Any:
    """Press keys, such as ``ctrl-alt-delete``."""
    rights.root_only(call, ["skiplock"])
    node, key = call.node, call.values["key"]
    node.state.guest(call.values["vmid"], node.name, "qemu")
    running = node.guests.require(call.values["vmid"])
    if not re.fullmatch(r"[\w-]+", key):
        raise ParameterError({"key": "value does not look like the name of a key"})
    if said := running.hmp(f"sendkey {key}").strip():
        raise ClusterError(said)


@endpoint(
    "POST",
    f"{PATH}/monitor",
    parameters={**GUEST, "command": text(optional=False)},
    permissions=perm("/vms/{vmid}", "VM.Monitor"),
    writes=False,
)
def monitor(call: Call) -> Any:
    """Execute a command of QEMU's human monitor."""
    node, command = call.node, call.values["command"]
    if call.user != ROOT and not _READ_ONLY.match(command):
        call.check("/", ["Sys.Modify"])
    node.state.guest(call.values["vmid"], node.name, "qemu")
    running = node.guests.require(call.values["vmid"])
    try:
        return running.hmp(command)
    except ClusterError as error:
        return f"ERROR: {error.message}"


@endpoint(
    "GET",
    f"{PATH}/rrddata",
    parameters={**GUEST, "timeframe": _TIMEFRAME, "cf": choice("AVERAGE MAX")},
    permissions=AUDIT,
)
def history(call: Call) -> Any:
    """Return what a machine used over time."""
    values, node = call.values, call.node
    node.state.guest(values["vmid"], node.name, "qemu")
    return node.statistics.rrd.data(f"qemu/{values['vmid']}", values["timeframe"], values.get("cf", "AVERAGE"))
