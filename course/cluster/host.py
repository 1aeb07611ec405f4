"""What the machine under a node is like: processors, memory, disk, load, versions.

The three nodes share one host, so each says the same about it; the guests' share is their own.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Any

VERSION = {"version": "8.1.4", "release": "8.1", "repoid": "ec5affc9e41f1d79"}
"""The Proxmox VE whose API this is; the id of its repository names the package that was published as 8.1.4."""


class Meter:
    """Measures the host between one look and the next."""

    def __init__(self) -> None:
        self._before = _cpu_times()

    def measure(self, disk: Path) -> dict[str, Any]:
        """Return ``cpu`` (0 to 1, since the last look), memory, disk and load, in bytes.

        Args:
            disk: a folder on the file system that counts as the node's disk.
        """
        now = _cpu_times()
        total = sum(now) - sum(self._before)
        idle = sum(now[3:5]) - sum(self._before[3:5])
        wait = now[4] - self._before[4] if len(now) > 4 else 0
        self._before = now
        memory = meminfo()
        space = shutil.disk_usage(disk if disk.exists() else "/")
        total_memory = memory.get("MemTotal", 0)
        return {
            "cpu": max(0.0, 1 - idle / total) if total else 0.0,
            "wait": max(0.0, wait / total) if total else 0.0,
            "maxcpu": os.cpu_count() or 1,
            "mem": total_memory - memory.get("MemAvailable", 0),
            "maxmem": total_memory,
            "disk": space.used,
            "maxdisk": space.total,
            "loadavg": os.getloadavg()[0],
            "swapused": memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
            "swaptotal": memory.get("SwapTotal", 0),
        }


def meminfo() -> dict[str, int]:
    """Return the host's memory, in bytes, by the kernel's names."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return {"MemTotal": pages * size, "MemAvailable": pages * size // 2}
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def _cpu_times() -> list[int]:
    """Return the ticks of all processors: user, nice, system, idle, iowait, ..."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return [0, 0, 0, 1, 0]
    return [int(word) for word in first.split()[1:9]]


@functools.cache
def processor() -> dict[str, Any]:
    """Return the processor as ``/nodes/{node}/status`` shows it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""

    def first(name: str, default: str) -> str:
        found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
        return found[1].strip() if found else default

    cpus = os.cpu_count() or 1
    sockets = len(set(re.findall(r"^physical id\s*:\s*(\d+)", text, re.MULTILINE))) or 1
    flags = first("flags", "")
    return {
        "model": first("model name", platform.processor() or platform.machine()),
        "mhz": first("cpu MHz", "0"),
        "cores": int(first("cpu cores", str(cpus))),
        "sockets": sockets,
        "cpus": cpus,
        "flags": flags,
        "hvm": "1" if re.search(r"\b(vmx|svm)\b", flags) else "0",
        "user_hz": os.sysconf("SC_CLK_TCK"),
    }


@functools.cache
def kernel() -> dict[str, str]:
    """Return the kernel's names."""
    found = os.uname()
    return {"sysname": found.sysname, "release": found.release, "version": found.version, "machine": found.machine}


def timezone() -> str:
    """Return the host's time zone, such as Europe/Zurich."""
    try:
        target = str(Path("/etc/localtime").resolve())
    except OSError:
        return time.tzname[0]
    return target.partition("zoneinfo/")[2] or "UTC"


def loads() -> tuple[float, float, float]:
    """Return the host's load of the last 1, 5 and 15 minutes."""
    return os.getloadavg()


def read(path: str | Path) -> str:
    """Return a file of the host; nothing where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
