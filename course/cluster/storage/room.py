"""How much room a storage has: what is really taken, and where it ends.

::

    total      the capacity that was set for the storage, but never more than the host's file system could hold
    used       blocks of its files, and for raw disks their whole size
    available  what is left of both

A storage's capacity is a property of its disk, so it lies on that disk: the hidden file ``.capacity`` in its directory,
a number of bytes. A qcow2 file grows with what its guest writes, and `Storage.limit_of` says how far. Nothing could
stop a guest that fills a sparse raw file, so a raw disk takes its whole size from the beginning.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config import files

GIB = 1 << 30
DEFAULT_CAPACITY = {"dir": 32 * GIB, "lvmthin": 64 * GIB}
CAPACITY_FILE = ".capacity"
KEPT_S = 1.0
"""For how long lists may show a sum that was made before."""


@dataclass(frozen=True, slots=True)
class Status:
    """The room of a storage, in bytes.

    Attributes:
        total: its whole size.
        used: what is taken.
        avail: what is left.
        active: whether it can be reached.
    """

    total: int
    used: int
    avail: int
    active: bool = True

    def record(self) -> dict[str, int]:
        """Return the fields of the API's answer."""
        return {"total": self.total, "used": self.used, "avail": self.avail, "active": int(self.active)}


_sums: dict[Path, tuple[float, int]] = {}
_lock = threading.Lock()


def set_capacity(root: Path, size: int) -> None:
    """Say how large the disk under a storage is, in bytes; what is on it stays, even if it is more."""
    files.write(root / CAPACITY_FILE, f"{size}\n", mode=0o644)


def capacity(root: Path, kind: str) -> int:
    """Return how large the disk under a storage is, in bytes."""
    with contextlib.suppress(ValueError):
        return int(files.read(root / CAPACITY_FILE))
    return DEFAULT_CAPACITY.get(kind, DEFAULT_CAPACITY["dir"])


def status(root: Path, kind: str, *, fresh: bool = True) -> Status:
    """Return the room of the storage that has a directory.

    Args:
        root: the directory.
        kind: of the storage, for a capacity that nobody set.
        fresh: count now; otherwise a sum of a moment ago will do.
    """
    if not root.is_dir():
        return Status(0, 0, 0, active=False)
    used = _used(root, fresh)
    host = os.statvfs(root)
    left = host.f_bavail * host.f_frsize
    total = min(capacity(root, kind), used + left)
    return Status(max(total, used), used, max(0, min(total - used, left)))


def forget(root: Path) -> None:
    """Let the next status count anew."""
    with _lock:
        _sums.pop(root, None)


def _used(root: Path, fresh: bool) -> int:
    now = time.monotonic()
    with _lock:
        if not fresh and root in _sums and now - _sums[root][0] < KEPT_S:
            return _sums[root][1]
    total = sum(_charges(root))
    with _lock:
        _sums[root] = (now, total)
    return total


def taken(folder: Path) -> int:
    """Return how many bytes the files of a directory take."""
    return sum(_charges(folder))


def _charges(folder: Path) -> Iterator[int]:
    """Yield what each file of a directory takes."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it went while we looked, or belongs to a container's user
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from _charges(Path(entry.path))
                continue
            stat = entry.stat(follow_symlinks=False)
            whole = stat.st_size if entry.name.endswith(".raw") else 0
            yield max(stat.st_blocks * 512, whole)
