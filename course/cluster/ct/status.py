"""What a container is doing: the answers of ``status/current`` and of the lists, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..ha import hooks
from ..properties import parse
from . import options, settings, tree
from .registry import Running

if TYPE_CHECKING:
    from ..node import Node
    from ..state import GuestPlace

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DISK_EVERY_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")

_cpu: dict[int, tuple[float, float, float]] = {}
_disk: dict[Path, tuple[float, int]] = {}


def size_bytes(text: str) -> int:
    """Return the bytes of ``8G``."""
    unit = text[-1:].upper()
    return int(float(text[:-1]) * UNITS[unit]) if unit in UNITS else int(float(text or 0))


def brief(node: Node, place: GuestPlace) -> dict[str, Any]:
    """Return a container as the lists show it."""
    values = node.state.view_guest(place).current.values
    running: Running | None = node.containers.get(place.vmid) if place.node == node.name else None
    memory, swap = (int(values.get(key, 512)) << 20 for key in ("memory", "swap"))
    found: dict[str, Any] = {
        "vmid": place.vmid,
        "name": settings.hostname(place.vmid, values),
        "status": "running" if running else "stopped",
        "type": "lxc",
        "cpus": int(values.get("cores", os.cpu_count() or 1)),
        "maxmem": memory,
        "maxswap": swap,
        "maxdisk": _max_disk(values),
        **dict.fromkeys(("cpu", "mem", "swap", "disk", "diskread", "diskwrite", "netin", "netout", "uptime"), 0),
    }
    for key in ("lock", "tags"):
        if key in values:
            found[key] = values[key]
    if settings.flag(values, "template"):
        found["template"] = 1
    if running:
        found |= _measured(node, running, found["cpus"], memory)
    return found


def _max_disk(values: dict[str, str]) -> int:
    if "rootfs" not in values:
        return 0
    return size_bytes(parse(values["rootfs"], options.ROOT_DISK).get("size", "0"))


def _measured(node: Node, running: Running, cpus: int, memory: int) -> dict[str, Any]:
    pids = running.processes()
    network: dict[str, dict[str, int]] = {}
    if node.fabric is not None:
        with contextlib.suppress(ClusterError, KeyError):
            network = node.fabric.counters(running.vmid)
    return {
        "pid": running.pid,
        "uptime": int(time.time() - running.started),
        "mem": min(memory, sum(map(resident_bytes, pids))),
        "cpu": _cpu_share(running, sum(map(cpu_seconds, pids)), cpus),
        "disk": _disk_bytes(running.root),
        "netin": sum(each["netin"] for each in network.values()),
        "netout": sum(each["netout"] for each in network.values()),
    }


def _cpu_share(running: Running, used_s: float, cpus: int) -> float:
    """Return the part of its processors that a container used since somebody asked last."""
    now = time.monotonic()
    before, used_before, share = _cpu.get(running.pid, (0.0, used_s, 0.0))
    if now - before < 0.5:
        return share
    share = max(0.0, used_s - used_before) / (now - before) / cpus if before else 0.0
    _cpu[running.pid] = (now, used_s, share)
    return share


def _disk_bytes(root: Path) -> int:
    now = time.monotonic()
    when, size = _disk.get(root, (0.0, 0))
    if not when or now - when > DISK_EVERY_S:
        size = tree.used_bytes(root)
        _disk[root] = (now, size)
    return size


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process used."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has to itself or shares: its share of it where the kernel tells."""
    for name in ("smaps_rollup", "status"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(("Pss:", "VmRSS:")):
                    return int(line.split()[1]) << 10
    return 0


def current(node: Node, place: GuestPlace) -> dict[str, Any]:
    """Return what ``status/current`` says."""
    found = brief(node, place)
    sid = hooks.managed(node.state, place.vmid)
    found["ha"] = {"managed": int(sid is not None)}
    return found


def resources(node: Node) -> list[dict[str, Any]]:
    """Return the node's containers as ``/cluster/resources`` shows them."""
    found = []
    for place in node.state.guests().values():
        if place.kind == "lxc" and place.node == node.name:
            entry = brief(node, place)
            kept = {key: value for key, value in entry.items() if key not in ("cpus", "swap", "maxswap", "pid")}
            found.append({**kept, "id": f"lxc/{place.vmid}", "node": node.name, "maxcpu": entry["cpus"]})
    return found
