"""What a machine is doing: the answers of ``status/current`` and of the lists."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from qemu.qmp import QMPError

from ...error import ClusterError, CourseError
from .. import options, properties
from ..config.guest import GuestConfig
from ..state import GuestPlace
from . import hardware
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node

_COUNTERS = {
    "rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations", "rd_total_time_ns",
    "wr_total_time_ns", "flush_total_time_ns", "rd_merged", "wr_merged", "failed_rd_operations",
    "failed_wr_operations", "failed_flush_operations", "invalid_rd_operations", "invalid_wr_operations",
    "invalid_flush_operations", "wr_highest_offset", "idle_time_ns", "account_failed", "account_invalid",
    "timed_stats", "unmap_bytes", "unmap_operations", "unmap_merged", "unmap_total_time_ns",
    "failed_unmap_operations", "invalid_unmap_operations",
}  # fmt: skip


def brief(node: Node, place: GuestPlace) -> dict[str, Any]:
    """Return a machine as the lists show it; nothing is asked of QEMU but what /proc tells."""
    config = node.state.view_guest(place)
    values = config.current.values
    running: RunningVm | None = node.guests.get(place.vmid) if node.guests is not None else None
    cpus = hardware.vcpus(values)
    memory = hardware.memory_mib(values) << 20
    found: dict[str, Any] = {
        "vmid": place.vmid,
        "name": values.get("name", f"VM {place.vmid}"),
        "status": "running" if running else "stopped",
        "cpus": cpus,
        "maxmem": memory,
        "maxdisk": boot_disk_size(values),
        "disk": 0,
        "diskread": 0,
        "diskwrite": 0,
        "netin": 0,
        "netout": 0,
        "cpu": 0,
        "mem": 0,
        "uptime": 0,
    }
    for key in ("lock", "tags"):
        if key in values:
            found[key] = values[key]
    if hardware.flag(values, "template"):
        found["template"] = 1
    if "serial0" in values:
        found["serial"] = 1
    if running:
        network = counters(node, place.vmid)
        found |= {
            "pid": running.pid,
            "uptime": running.uptime,
            "cpu": running.sample_cpu(cpus),
            "mem": min(memory, running.resident_bytes()),
            "netin": sum(each["netin"] for each in network.values()),
            "netout": sum(each["netout"] for each in network.values()),
        }
    return found


def counters(node: Node, vmid: int) -> dict[str, dict[str, int]]:
    """Return what went through each network card, as the guest sees it."""
    if node.fabric is None:
        return {}
    with contextlib.suppress(CourseError, KeyError):
        found: dict[str, dict[str, int]] = node.fabric.counters(vmid)
        return found
    return {}


def boot_disk_size(values: dict[str, str]) -> int:
    """Return the size of the disk that a machine boots from, 0 for none."""
    order = [key for key in hardware.boot_order(values) if key in values and hardware.is_drive_key(key)]
    disks = [drive.key for drive in hardware.drives(values) if drive.is_disk and drive.bus in hardware.BUSES]
    for key in [*(key for key in order if key in disks), *disks]:
        size = hardware.drive(key, values[key]).options.get("size")
        if size:
            return hardware.size_bytes(size)
    return 0


def with_qmp(node: Node, place: GuestPlace) -> dict[str, Any]:
    """Return all that can be said of a machine, asking its QEMU."""
    found = brief(node, place)
    running: RunningVm | None = node.guests.get(place.vmid)
    found["qmpstatus"] = "stopped"
    if running is not None:
        try:
            found |= _asked(node, running, found)
        except (ClusterError, QMPError):  # it ended while it was asked
            if running.machine.running:
                found["qmpstatus"] = "running"
            else:
                found = brief(node, place) | {"qmpstatus": "stopped"}
    return found


def _asked(node: Node, running: RunningVm, found: dict[str, Any]) -> dict[str, Any]:
    """Return what QEMU knows."""
    version = running.execute("query-version")["qemu"]
    more: dict[str, Any] = {
        "qmpstatus": running.qmpstatus,
        "running-qemu": f"{version['major']}.{version['minor']}.{version['micro']}",
        "running-machine": _machine(running),
        "proxmox-support": {},
        "blockstat": block_statistics(running),
        "nics": {
            f"tap{running.vmid}i{key.removeprefix('net')}": each for key, each in counters(node, running.vmid).items()
        },
    }
    more["diskread"] = sum(each.get("rd_bytes", 0) for each in more["blockstat"].values())
    more["diskwrite"] = sum(each.get("wr_bytes", 0) for each in more["blockstat"].values())
    with contextlib.suppress(ClusterError):
        more |= _balloon(running, found["maxmem"])
    return more


def _machine(running: RunningVm) -> str:
    from .lifecycle import running_machine  # noqa: PLC0415 - it knows of this module's neighbours

    if running.machine_name is None:
        running.machine_name = running_machine(running)
    return running.machine_name


def _balloon(running: RunningVm, most: int) -> dict[str, Any]:
    """Return what the balloon says of the guest's memory."""
    if running.values.get("balloon") == "0":
        return {}
    actual = int(running.execute("query-balloon")["actual"])
    stats = running.execute("qom-get", path="/machine/peripheral/balloon0", property="guest-stats")
    known = {key.removeprefix("stat-"): value for key, value in stats.get("stats", {}).items()}
    info: dict[str, Any] = {"actual": actual, "max_mem": most, "last_update": stats.get("last-update", 0)}
    names = {"free-memory": "free_mem", "total-memory": "total_mem", "swap-in": "mem_swapped_in",
             "swap-out": "mem_swapped_out", "major-faults": "major_page_faults",
             "minor-faults": "minor_page_faults"}  # fmt: skip
    unknown = (1 << 64) - 1
    for key, name in names.items():
        if 0 <= known.get(key, -1) < unknown:
            info[name] = known[key]
    found: dict[str, Any] = {"balloon": actual, "ballooninfo": info}
    if info.get("last_update") and "total_mem" in info and "free_mem" in info:
        found |= {"mem": info["total_mem"] - info["free_mem"], "freemem": info["free_mem"]}
    return found


def block_statistics(running: RunningVm) -> dict[str, dict[str, Any]]:
    """Return the counters of each drive."""
    found = {}
    for each in running.execute("query-blockstats"):
        name = str(each.get("qdev") or each.get("device") or "").removeprefix("/machine/peripheral/").split("/")[0]
        if hardware.is_drive_key(name):
            found[name] = {key: value for key, value in each["stats"].items() if key in _COUNTERS}
    return found


def current(node: Node, place: GuestPlace) -> dict[str, Any]:
    """Return the answer of ``status/current``."""
    values = node.state.view_guest(place).current.values
    found = with_qmp(node, place)
    found["ha"] = ha_state(node, place.vmid)
    if hardware.has_agent(values):
        found["agent"] = 1
    shown = properties.parse(values.get("vga", ""), options.VGA)
    if shown.get("type", "").startswith("qxl"):
        found["spice"] = 1
    if shown.get("clipboard"):
        found["clipboard"] = shown["clipboard"]
    return found


def ha_state(node: Node, vmid: int) -> dict[str, Any]:
    """Return what high availability has to do with a machine."""
    from ..config import sections  # noqa: PLC0415 - only here

    with contextlib.suppress(ClusterError):
        found = node.state.parsed("ha/resources.cfg", sections.parse).get(str(vmid))
        if found is not None and found.kind == "vm":
            state = found.values.get("state", "started")
            group = {"group": found.values["group"]} if "group" in found.values else {}
            return {"managed": 1, "state": state, **group}
    return {"managed": 0}


def resources(node: Node) -> list[dict[str, Any]]:
    """Return this node's machines for the lists of the whole cluster and for their history."""
    entries = []
    for place in node.state.guests().values():
        if place.kind != "qemu" or place.node != node.name:
            continue
        found = brief(node, place)
        running = node.guests.get(place.vmid)
        if running is not None:
            with contextlib.suppress(ClusterError):
                blocks = block_statistics(running)
                found["diskread"] = sum(each.get("rd_bytes", 0) for each in blocks.values())
                found["diskwrite"] = sum(each.get("wr_bytes", 0) for each in blocks.values())
                found |= {key: value for key, value in _balloon(running, found["maxmem"]).items() if key == "mem"}
        wanted = ("vmid", "name", "status", "cpu", "mem", "maxmem", "disk", "maxdisk", "netin", "netout", "diskread",
                  "diskwrite", "uptime", "lock", "tags")  # fmt: skip
        entries.append(
            {
                "type": "qemu",
                "id": f"qemu/{place.vmid}",
                "node": node.name,
                "maxcpu": found["cpus"],
                "template": found.get("template", 0),
                **{key: found[key] for key in wanted if key in found},
            }
        )
    return entries


def view(config: GuestConfig) -> dict[str, Any]:
    """Return a configuration as calls answer it: numbers as numbers."""
    values: dict[str, Any] = {key: typed(key, value) for key, value in config.current.values.items()}
    return values


def typed(key: str, value: str) -> Any:
    """Return a setting as the type that it is declared with."""
    declared = options.VM_OPTIONS.get(key)
    kind = declared.type if declared else "string"
    if kind in ("integer", "boolean") and value.lstrip("-").isdigit():
        return int(value)
    return value
