"""Which namespaces a process is in: links such as ``/proc/PID/ns/net`` → ``net:[4026531840]``.

Two processes see the same network exactly when these links are the same. The links ``pid_for_children`` and
``time_for_children`` tell where *children* will be: a process that has called unshare(CLONE_NEWPID) is not in the new
namespace itself.

Source: namespaces(7).
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from .laboratory import Laboratory

_LIST = r"""
for process in /proc/[0-9]*; do
  [ "$(head -c 1 $process/cmdline 2>/dev/null)" ] || continue  # a kernel thread has no arguments
  echo "process ${process#/proc/} $(cat $process/comm)"
  echo "cgroup $(cut -d: -f3 $process/cgroup)"
  ls -l $process/ns
  echo "hostname $(nsenter -t ${process#/proc/} -u hostname)"
done 2>/dev/null
"""
_LINK = re.compile(r" (\w+) -> (\w+:\[\d+\])$")
_OWN = ("timeout",)


def of(pid: int | str = "self") -> dict[str, str]:
    """Return the namespaces of a process on this machine: name of the link → kind and number."""
    found = {}
    for link in Path(f"/proc/{pid}/ns").iterdir():
        with contextlib.suppress(OSError):
            found[link.name] = str(link.readlink())
    return found


def listing(lab: Laboratory) -> list[dict[str, Any]]:
    """Return the processes of a guest: dicts with pid, comm, cgroup, hostname and namespaces."""
    processes: list[dict[str, Any]] = []
    for line in lab.run(_LIST, timeout_s=30).lines:
        word, _, rest = line.partition(" ")
        if word == "process":
            pid, _, comm = rest.partition(" ")
            processes.append({"pid": int(pid), "comm": comm, "cgroup": "", "hostname": "", "namespaces": {}})
        elif word in ("cgroup", "hostname"):
            processes[-1][word] = rest
        elif found := _LINK.search(line):
            processes[-1]["namespaces"][found[1]] = found[2]
    # without those that run the laboratory's scripts, and those that have ended meanwhile
    return [p for p in processes if p["comm"] not in _OWN and p["hostname"] and len(p["namespaces"]) > 7]
