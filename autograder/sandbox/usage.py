"""What a box uses at this moment, read from /proc: processor time and memory of a process and all below it."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from pathlib import Path

from . import linux

_RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)

_THREADS = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a tree of processes uses.

    Attributes:
        cpu_s: seconds of processor time, of ended children too.
        memory: bytes of their own; a page that a fork shares with its parent counts for both.
        processes: how many they are.
    """

    cpu_s: float
    memory: int
    processes: int


def usage(pid: int) -> Usage:
    """Add up what a process and all below it use; those that end meanwhile count or not."""
    ticks = kib = count = 0
    for one in linux.descendants(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(field) for field in fields[11:15])
            kib += sum(int(size) for size in _RESIDENT.findall(Path(f"/proc/{one}/status").read_text()))
            count += 1
        except (OSError, IndexError):
            continue
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), kib << 10, count)


def threads_of(uid: int) -> int:
    """Return how many threads a user has."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if re.search(rf"^Uid:\s+{uid}\s", text, re.MULTILINE) and (found := _THREADS.search(text)):
            count += int(found[1])
    return count


def memory_files(pid: int) -> int:
    """Return the bytes of files in memory (memfd) that a tree of processes has open."""
    sizes: dict[tuple[int, int], int] = {}
    for one in linux.descendants(pid):
        try:
            for entry in os.scandir(f"/proc/{one}/fd"):
                if os.readlink(entry.path).startswith("/memfd:"):  # noqa: PTH115 - there are many
                    state = entry.stat()
                    sizes[state.st_dev, state.st_ino] = state.st_blocks * 512
        except OSError:
            continue
    return sum(sizes.values())


def disk_usage(folder: str, *, limit: int) -> tuple[int, int]:
    """Return the bytes on disk and the number of files below a folder; stops at `limit` files. Follows no links.

    What cannot be looked into counts as `limit` files: a path too long for anybody to name, a folder that is closed.
    """
    size = files = 0

    def refuse(error: OSError) -> None:
        nonlocal files
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            files = limit

    for place, folders, names in os.walk(folder, onerror=refuse):
        for name in (*folders, *names):
            try:
                size += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118 - there may be many
            except OSError as error:
                refuse(error)
            files += 1
        if files >= limit:
            break
    return size, files
