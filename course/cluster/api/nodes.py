"""One node: how it does, what time it has, its logs, and its power."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from ...error import ClusterError
from .. import host
from ..foundation import address_of, host_address
from ..node import Node
from ..tasks import Task
from .common import NODE, Call, Parameter, choice, endpoint, number, perm, text

AUDIT = perm("/nodes/{node}", "Sys.Audit")
MODIFY = perm("/nodes/{node}", "Sys.Modify")
_NODE = {"node": NODE}
_MOMENT = text(pattern=r"^\d{4}-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2})?)?$")
SERVICES = {
    "chrony": "chrony, an NTP client/server",
    "corosync": "Corosync Cluster Engine",
    "cron": "Regular background program processing daemon",
    "ksmtuned": "Kernel Samepage Merging (KSM) Tuning Daemon",
    "postfix": "Postfix Mail Transport Agent",
    "pve-cluster": "The Proxmox VE cluster filesystem",
    "pve-firewall": "Proxmox VE firewall",
    "pve-ha-crm": "PVE Cluster HA Resource Manager Daemon",
    "pve-ha-lrm": "PVE Local HA Resource Manager Daemon",
    "pvedaemon": "PVE API Daemon",
    "pvefw-logger": "Proxmox VE firewall logger",
    "pveproxy": "PVE API Proxy Server",
    "pvescheduler": "Proxmox VE scheduler",
    "pvestatd": "PVE Status Daemon",
    "spiceproxy": "PVE SPICE Proxy Server",
    "sshd": "OpenBSD Secure Shell server",
    "syslog": "Journal Service",
    "systemd-journald": "Journal Service",
    "systemd-timesyncd": "Network Time Synchronization",
}
"""What a node of Proxmox VE runs, under systemd's names."""
LIVING = SERVICES.keys() - {"chrony", "cron", "ksmtuned", "postfix", "pvefw-logger", "spiceproxy", "sshd", "syslog"}
LIVING -= {"systemd-journald", "systemd-timesyncd"}
"""Those whose work a node of the lab does, all in one process."""
_SERVICE = {**_NODE, "service": Parameter(enum=tuple(SERVICES))}


@endpoint("GET", "/nodes/{node}/status", parameters=_NODE, permissions=AUDIT, inline=True)
def status(call: Call) -> Any:
    """Return how a node does: processors, memory, disk, load, versions."""
    node = call.node
    said = node.statistics.of(node.name).get("node", {})
    memory = host.meminfo()
    free, total = memory.get("MemAvailable", 0), memory.get("MemTotal", 0)
    disk, full = said.get("disk", 0), said.get("maxdisk", 0)
    kernel = host.kernel()
    swap = memory.get("SwapTotal", 0)
    return {
        "uptime": int(time.time() - node.started),
        "cpu": said.get("cpu", 0),
        "wait": said.get("wait", 0),
        "idle": 0,
        "loadavg": [f"{load:.2f}" for load in host.loads()],
        "kversion": f"{kernel['sysname']} {kernel['release']} {kernel['version']}",
        "current-kernel": kernel,
        "boot-info": {"mode": "legacy-bios"},
        "pveversion": "pve-manager/{version}/{repoid}".format(**host.VERSION),
        "ksm": {"shared": 0},
        "cpuinfo": host.processor(),
        "memory": {"total": total, "used": total - free, "free": free},
        "swap": {"total": swap, "used": swap - memory.get("SwapFree", 0), "free": memory.get("SwapFree", 0)},
        "rootfs": {"total": full, "used": disk, "free": full - disk, "avail": full - disk},
    }


@endpoint(
    "POST",
    "/nodes/{node}/status",
    parameters={**_NODE, "command": Parameter(enum=("reboot", "shutdown"))},
    permissions=perm("/nodes/{node}", "Sys.PowerMgmt"),
    writes=False,
)
def power(call: Call) -> Any:
    """Shut a node down in order, or let it start again."""
    if call.node.rack is None:
        raise ClusterError(f"node '{call.node.name}' has no power switch")
    node, command = call.node, call.values["command"]
    node.cluster_log(f"node '{node.name}': {command}", user=call.user)

    def end() -> None:
        node.rack.shutdown(node.name, again=command == "reboot")

    def begin() -> None:
        if node.ha is None:
            end()
        else:
            node.ha.leave(command, end)

    threading.Timer(0.2, begin).start()  # the answer goes out first


@endpoint(
    "POST",
    "/nodes/{node}/wakeonlan",
    parameters=_NODE,
    permissions=perm("/nodes/{node}", "Sys.PowerMgmt"),
    proxy=None,
    writes=False,
)
def wake(call: Call) -> Any:
    """Switch another node on over the network."""
    name = call.values["node"]
    if name == call.node.name:
        raise ClusterError(f"'{name}' is local node, cannot wake my self!", status=400)
    call.node.peer(name)
    if call.node.rack is None:
        raise ClusterError(f"No wake on LAN MAC address defined for '{name}'!")
    call.node.rack.power(name, on=True)
    return host_address(name)


@endpoint("GET", "/nodes/{node}/time", parameters=_NODE, permissions=AUDIT, inline=True)
def clock(call: Call) -> Any:
    """Return a node's time."""
    now = int(time.time())
    return {"time": now, "localtime": now + time.localtime(now).tm_gmtoff, "timezone": host.timezone()}


@endpoint("GET", "/nodes/{node}/dns", parameters=_NODE, permissions=AUDIT)
def dns(call: Call) -> Any:
    """Return how a node resolves names."""
    found: dict[str, str] = {"search": "lab"}
    words = [line.split() for line in host.read("/etc/resolv.conf").splitlines()]
    servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    search = [line[1] for line in words if len(line) > 1 and line[0] in ("search", "domain")]
    found |= {f"dns{number}": server for number, server in enumerate(servers[:3], 1)}
    return found | ({"search": search[0]} if search else {})


@endpoint("GET", "/nodes/{node}/hosts", parameters=_NODE, permissions=perm("/", "Sys.Audit"))
def hosts(call: Call) -> Any:
    """Return a node's table of names."""
    from ..config.files import digest  # noqa: PLC0415 - with its only use

    lines = ["127.0.0.1 localhost.localdomain localhost"]
    lines += [f"{address_of(name)} {name}.lab {name}" for name in call.node.state.nodes]
    data = "\n".join([*lines, ""])
    return {"data": data, "digest": digest(data)}


@endpoint("GET", "/nodes/{node}/services", parameters=_NODE, permissions=AUDIT)
def services(call: Call) -> Any:
    """List a node's services."""
    return [_service(name) for name in SERVICES]


def _service(name: str) -> dict[str, str]:
    lives = name in LIVING
    return {
        "service": name,
        "name": name,
        "desc": SERVICES[name],
        "state": "running" if lives else "dead",
        "active-state": "active" if lives else "inactive",
        "unit-state": "enabled" if lives else "not-found",
    }


@endpoint("GET", "/nodes/{node}/services/{service}", parameters=_SERVICE, permissions=AUDIT)
def service(call: Call) -> Any:
    """List what can be asked about a service."""
    return [{"subdir": word} for word in ("state", "start", "stop", "restart", "reload")]


@endpoint("GET", "/nodes/{node}/services/{service}/state", parameters=_SERVICE, permissions=AUDIT)
def service_state(call: Call) -> Any:
    """Return how a service does."""
    return _service(call.values["service"])


@endpoint("POST", "/nodes/{node}/services/{service}/restart", parameters=_SERVICE, permissions=MODIFY, writes=False)
@endpoint("POST", "/nodes/{node}/services/{service}/reload", parameters=_SERVICE, permissions=MODIFY, writes=False)
def restart_service(call: Call) -> Any:
    """Restart a service; all are parts of one process here, so there is nothing to restart."""
    name = call.values["service"]
    if name not in LIVING:
        raise ClusterError(f"service '{name}' is not installed on node '{call.node.name}'")

    def work(task: Task) -> None:
        task.log(f"{name} is a part of the lab node's process: it goes on")

    return call.task("srvrestart", name, work)


@endpoint(
    "GET",
    "/nodes/{node}/syslog",
    parameters={
        **_NODE,
        "start": number(0),
        "limit": number(0),
        "since": _MOMENT,
        "until": _MOMENT,
        "service": text(longest=128),
    },
    permissions=perm("/nodes/{node}", "Sys.Syslog"),
)
def syslog(call: Call) -> Any:
    """Return lines of a node's log."""
    values = call.values
    lines = [line for line in call.node.syslog() if f" {values.get('service', '')}" in line]
    call.total = len(lines)
    start, limit = values.get("start", 0), values.get("limit", 50)
    shown = lines[start : start + limit] if limit else lines[start:]
    return [{"n": start + count, "t": line} for count, line in enumerate(shown, 1)] or [{"n": 1, "t": "no content"}]


@endpoint(
    "GET",
    "/nodes/{node}/journal",
    parameters={
        **_NODE,
        "since": number(0),
        "until": number(0),
        "lastentries": number(0),
        "startcursor": text(),
        "endcursor": text(),
    },
    permissions=perm("/nodes/{node}", "Sys.Syslog"),
)
def journal(call: Call) -> Any:
    """Return a node's log between two marks, which are numbers of lines."""
    lines = call.node.syslog()
    first = int(call.values.get("startcursor", "0") or 0) if call.values.get("startcursor", "0").isdecimal() else 0
    last = call.values.get("endcursor", "")
    end = int(last) if last.isdecimal() else len(lines)
    shown = lines[first:end][-call.values.get("lastentries", len(lines)) or len(lines) :]
    return [str(end - len(shown)), *shown, str(end)]


@endpoint(
    "GET",
    "/nodes/{node}/rrddata",
    parameters={
        **_NODE,
        "timeframe": Parameter(enum=("hour", "day", "week", "month", "year")),
        "cf": choice("AVERAGE MAX"),
    },
    permissions=AUDIT,
    proxy=None,
)
def rrddata(call: Call) -> Any:
    """Return what was measured of a node."""
    call.node.peer(call.values["node"])
    return call.node.statistics.rrd.data(
        f"node/{call.values['node']}", call.values["timeframe"], call.values.get("cf", "AVERAGE")
    )


@endpoint("GET", "/nodes/{node}/report", parameters=_NODE, permissions=AUDIT)
def report(call: Call) -> Any:
    """Return what one would send to whoever is asked for help."""
    return _report(call.node)


def _report(node: Node) -> str:
    parts = [
        ("general system info", f"hostname: {node.name}\ndate: {time.ctime()}\npveversion: {host.VERSION['version']}"),
        ("storage", node.state.read("storage.cfg")),
        ("user", node.state.read("user.cfg")),
        ("cluster", node.state.read("corosync.conf")),
        ("cpu", f"{host.processor()['model']}, {host.processor()['cpus']} CPUs"),
        ("guests", "\n".join(f"{place.vmid} {place.kind} {place.node}" for place in node.state.guests().values())),
        ("state", str(Path(node.disk))),
    ]
    return "\n".join(f"==== {title} ====\n\n{words.strip()}\n" for title, words in parts)


_PROPERTIES = (
    "acme acmedomain0 acmedomain1 acmedomain2 acmedomain3 acmedomain4 acmedomain5 description startall-onboot-delay "
    "wakeonlan"
)


@endpoint(
    "GET",
    "/nodes/{node}/config",
    parameters={**_NODE, "property": choice(_PROPERTIES, "all")},
    permissions=perm("/", "Sys.Audit"),
)
def config(call: Call) -> Any:
    """Return a node's own settings: nobody has set any."""
    return {"wakeonlan": host_address(call.node.name)} if call.values.get("property") in (None, "wakeonlan") else {}
