"""A thin pool: volumes of any size that take room as they are written.

Each logical volume is a qcow2 file without an ending, so that it is thin, keeps snapshots and can be cloned, as a
logical volume of a thin pool can; lists call it raw, as a real one's do. A container's volume is a directory.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import ClassVar

from ...error import ClusterError
from ..volume import Volume, parse_thin_name
from . import images
from .base import Storage

DISK = frozenset({"raw", "subvol"})
THRESHOLD = 1 << 20
"""With less room left than this, in bytes, the pool makes no further volume."""


class ThinStorage(Storage):
    """A thin pool of a node."""

    formats = ("raw", "subvol")
    features: ClassVar = {
        "snapshot": {"current": DISK},
        "clone": {"base": frozenset({"raw"})},
        "template": {"current": DISK},
        "copy": {"base": DISK, "current": DISK, "snap": DISK},
        "sparseinit": {"base": DISK, "current": DISK},
        "rename": {"current": DISK},
    }

    @property
    def pool(self) -> str:
        """The pool's name, with its volume group's."""
        return f"{self.section.values.get('vgname', 'pve')}/{self.section.values.get('thinpool', 'data')}"

    @property
    def group(self) -> str:
        """The volume group's name."""
        return self.pool.partition("/")[0]

    def parse(self, name: str) -> Volume:
        """Read a volume's name."""
        return parse_thin_name(name)

    def place(self, volume: Volume) -> Path:
        """Return where a volume is; its name has no part that leads elsewhere."""
        return self.root / volume.name

    def name_for(self, vmid: int, word: str, format: str, base: Volume | None = None) -> str:
        """Return the name of a disk."""
        return f"{base.name}/vm-{vmid}-{word}" if base else f"vm-{vmid}-{word}"

    def _name(self, volume: Volume) -> str:
        return f"{volume.basename}/{volume.name}" if volume.basename else volume.name

    def _renamed(self, volume: Volume, name: str) -> str:
        return f"{volume.basename}/{name}" if volume.basename else name

    def _base(self, vmid: int, name: str) -> Volume:
        return parse_thin_name(name)

    def driver_of(self, volume: Volume, path: Path) -> str:
        """Return the format of the volume's file."""
        return "subvol" if path.is_dir() else "qcow2"

    def format(self, volid: str) -> str:
        """Return a volume's format: a block device is raw."""
        return "subvol" if self.path(volid).is_dir() else "raw"

    def _driver_for(self, format: str) -> str:
        return "qcow2" if format == "raw" else format

    def _clone_format(self) -> str:
        return "raw"

    def disks(self, vmid: int | None = None) -> list[Volume]:
        """Return the disks that are there."""
        found = []
        names = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []
        for name in names:
            with contextlib.suppress(ClusterError, OSError):
                volume = self._found(name)
                if vmid in (None, volume.vmid):
                    found.append(volume)
        return found

    def _found(self, name: str) -> Volume:
        """Return the disk that a file is; a clone's own header says what it reads from."""
        plain = parse_thin_name(name)
        path = self.root / name
        below = images.backing_of(path) if path.is_file() else ""
        return parse_thin_name(f"{below}/{name}") if below.startswith("base-") else plain

    def _check_name(self, name: str, vmid: int, format: str) -> None:
        if not re.fullmatch(rf"vm-{vmid}-[^\s/]+", name):
            raise ClusterError(f"illegal name '{name}' - should be 'vm-{vmid}-*'")

    def _check_room(self, volume: Volume, format: str, size: int, written: int = 0) -> None:
        left = self.status().avail
        if left < written:
            raise ClusterError(f"copy failed: {self.group}/{volume.name}: No space left on device")
        if left < THRESHOLD:
            raise ClusterError(
                f"lvcreate '{self.group}/{volume.name}' error:   Cannot create new thin volume, "
                f"free space in thin pool {self.pool} reached threshold."
            )

    def _made(self, volume: Volume, size: int) -> str:
        return f'  Logical volume "{volume.name}" created.'

    def _removed(self, volume: Volume) -> str | None:
        return f'  Logical volume "{volume.name}" successfully removed.'

    def _taken(self, volume: Volume) -> ClusterError:
        return ClusterError(
            f"lvcreate '{self.group}/{volume.name}' error:   Logical Volume \"{volume.name}\" already exists in "
            f'volume group "{self.group}"'
        )
