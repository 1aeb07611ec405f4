"""A control group for a box, where there is one to be had: the kernel then counts all memory, also what nobody maps.

Without one, the keeper's watch and the limits by process have to do; files in memory that are neither mapped nor in a
folder of the box are counted by nobody then.

* cgroup v2: a child of our group's parent, or of our own group, if that hands the memory controller on and is ours.
* cgroup v1: a child of our groups for memory and pids, which takes root.

Groups are named after the keeper that made them; those of dead keepers are removed by the next.

Source: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "course-box-"


def parents(groups: str, mounts: str) -> Iterator[tuple[Path, str]]:
    """Yield folders in which a group may be made, and what for: "memory", "pids" or "" for both (v2).

    Args:
        groups: /proc/self/cgroup.
        mounts: /proc/self/mounts.
    """
    places = {}
    for line in mounts.splitlines():
        _, target, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            places[""] = Path(target)
        elif kind == "cgroup":
            places.update(dict.fromkeys(set(options.split(",")) & {"memory", "pids"}, Path(target)))
    for line in groups.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in places:
                own = places[name] / path.lstrip("/")
                if name == "" and own != places[name]:
                    yield own.parent, name
                yield own, name


def make(pid: int, memory: int, processes: int) -> list[Path]:
    """Make groups with limits; return the files that a process writes "0" to in order to enter. Never raises.

    Args:
        pid: of the keeper, whose name they bear.
        memory: bytes.
        processes: and threads.
    """
    made: dict[str, Path] = {}
    with contextlib.suppress(OSError, ValueError):
        for parent, name in parents(_read("/proc/self/cgroup"), _read("/proc/self/mounts")):
            if name not in made and (name or _hands_on_memory(parent)):
                _sweep(parent)
                with contextlib.suppress(OSError):
                    made[name] = _made(parent / f"{_PREFIX}{pid}", name, memory, processes)
    return [group / "cgroup.procs" for group in made.values()]


def remove(entrances: list[Path]) -> None:
    """Remove groups whose processes have ended."""
    for entrance in entrances:
        with contextlib.suppress(OSError):
            entrance.parent.rmdir()


def _read(path: str) -> str:
    return Path(path).read_text()


def _hands_on_memory(parent: Path) -> bool:
    return "memory" in (parent / "cgroup.subtree_control").read_text().split()


def _made(group: Path, name: str, memory: int, processes: int) -> Path:
    group.mkdir()
    try:
        if name in ("", "memory"):
            (group / ("memory.max" if not name else "memory.limit_in_bytes")).write_text(str(memory))
        if not name:
            with contextlib.suppress(OSError):
                (group / "memory.swap.max").write_text("0")
            with contextlib.suppress(OSError):
                (group / "memory.oom.group").write_text("1")
        if name in ("", "pids"):
            with contextlib.suppress(OSError):  # v2 may hand on memory alone
                (group / "pids.max").write_text(str(processes))
    except OSError:
        group.rmdir()
        raise
    return group


def _sweep(parent: Path) -> None:
    """Remove groups of keepers that were killed."""
    for group in parent.glob(f"{_PREFIX}*"):
        if not Path("/proc", group.name.removeprefix(_PREFIX)).exists():
            with contextlib.suppress(OSError):
                group.rmdir()
