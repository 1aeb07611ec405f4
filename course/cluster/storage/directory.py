"""A storage that keeps files in a directory: disks, ISO images, templates of containers, backups, snippets.

A raw disk's file and a qcow2 disk's file are named for what they are. A backup's notes and its protection are files
beside it: ``….vma.zst.notes`` and ``….vma.zst.protected``, and ``….log`` says how it was made.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ...error import ClusterError
from ..config import files
from ..volume import FOLDERS, Volume, parse_directory_name
from . import images
from .base import Storage

ALL = frozenset({"raw", "qcow2"})
QCOW2 = frozenset({"qcow2"})
SUBVOL = frozenset({"subvol"})
_ENDING = re.compile(r"\.(?P<ending>tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2|xz))?|iso|img|ova|ovf|raw|qcow2|vmdk)$", re.I)
_TIME = re.compile(r"-(\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d)\.")


class DirectoryStorage(Storage):
    """A directory of a node, or one that several nodes see."""

    formats = ("raw", "qcow2", "subvol")
    features: ClassVar = {
        "snapshot": {"current": QCOW2 | SUBVOL, "snap": QCOW2 | SUBVOL},
        "clone": {"base": ALL},
        "template": {"current": ALL | SUBVOL},
        "copy": {"base": ALL | SUBVOL, "current": ALL | SUBVOL, "snap": QCOW2 | SUBVOL},
        "sparseinit": {"base": ALL, "current": ALL},
        "rename": {"current": ALL | SUBVOL},
    }

    def parse(self, name: str) -> Volume:
        """Read a volume's name."""
        return parse_directory_name(name)

    def place(self, volume: Volume) -> Path:
        """Return where a volume is."""
        return volume.path(self.root)

    def name_for(self, vmid: int, word: str, format: str, base: Volume | None = None) -> str:
        """Return the name of a disk."""
        kind = "subvol" if format == "subvol" else "vm"
        own = f"{vmid}/{kind}-{vmid}-{word}.{format}"
        return f"{base.vmid}/{base.name}/{own}" if base else own

    def _name(self, volume: Volume) -> str:
        if volume.content != "images":
            return f"{volume.content}/{volume.name}"
        below = f"{volume.basevmid}/{volume.basename}/" if volume.basename else ""
        return f"{below}{volume.vmid}/{volume.name}"

    def _renamed(self, volume: Volume, name: str) -> str:
        return self._name(volume).rpartition("/")[0] + f"/{name}"

    def _base(self, vmid: int, name: str) -> Volume:
        return parse_directory_name(f"{vmid}/{name}")

    def driver_of(self, volume: Volume, path: Path) -> str:
        """Return the format of the volume's file."""
        return volume.format if volume.content == "images" else "raw"

    def format(self, volid: str) -> str:
        """Return a volume's format, as lists show it."""
        volume = self.volume(volid)
        return volume.format if volume.content == "images" else _format_of(volume)

    def disks(self, vmid: int | None = None) -> list[Volume]:
        """Return the disks that are there."""
        folder = self.root / FOLDERS["images"]
        found = []
        for name in [str(vmid)] if vmid is not None else _names(folder):
            for file in _names(folder / name) if name.isdigit() else []:
                with contextlib.suppress(ClusterError, OSError):
                    found.append(self._found(int(name), file, folder / name / file))
        return found

    def _found(self, vmid: int, name: str, path: Path) -> Volume:
        """Return the disk that a file is; a clone's own header says what it reads from."""
        plain = parse_directory_name(f"{vmid}/{name}")
        below = Path(images.backing_of(path)) if plain.format == "qcow2" else Path()
        if below.name.startswith("base-") and below.parent.name.isdigit():
            return parse_directory_name(f"{below.parent.name}/{below.name}/{vmid}/{name}")
        return plain

    def _check_name(self, name: str, vmid: int, format: str) -> None:
        ending = name.rpartition(".")[2]
        if "/" in name or not re.fullmatch(rf"(?:vm|subvol)-{vmid}-[^\s/]+", name):
            raise ClusterError(f"illegal name '{name}' - should be 'vm-{vmid}-*'")
        if ending != format:
            raise ClusterError(f"illegal name '{name}' - wrong extension for format ('{ending}' != '{format}')")

    def _check_room(self, volume: Volume, format: str, size: int, written: int = 0) -> None:
        left = self.status().avail
        needed = size if format == "raw" else images_overhead(size) + written if format == "qcow2" else written
        if needed > left:
            raise ClusterError(f"unable to create image: qemu-img: {self.place(volume)}: No space left on device")

    def _made(self, volume: Volume, size: int) -> str:
        if volume.format == "subvol":
            return f"created subvolume '{self.place(volume)}'"
        return f"Formatting '{self.place(volume)}', fmt={volume.format} size={size}"

    def _removed(self, volume: Volume) -> str | None:
        return None

    def _taken(self, volume: Volume) -> ClusterError:
        return ClusterError(f"disk image '{self.place(volume)}' already exists")

    def _belongings(self, path: Path) -> list[Path]:
        rest = super()._belongings(path)
        if path.parent.name != FOLDERS["backup"]:
            return rest
        stem = _ENDING.sub("", path.name)
        return [*rest, notes_of(path), protection_of(path), path.parent / f"{stem}.log"]

    def free(self, volid: str, log: Any = None) -> None:
        """Remove a volume and all that belongs to it; a protected backup is refused."""
        volume = self.volume(volid)
        if volume.content == "backup" and protection_of(self.place(volume)).exists():
            raise ClusterError(f"can't remove protected archive '{volid}'")
        super().free(volid, log)

    def _entries(self, content: str, vmid: int | None) -> Iterator[dict[str, Any]]:
        if content in ("images", "rootdir"):
            yield from super()._entries(content, vmid)
            return
        folder = self.root / FOLDERS.get(content, "nothing")
        for name in _names(folder):
            with contextlib.suppress(ClusterError, OSError):
                volume = parse_directory_name(f"{content}/{name}")
                path = self.place(volume)
                if path.is_file() and vmid in (None, volume.vmid):
                    yield self._file_entry(volume, path)

    def _file_entry(self, volume: Volume, path: Path) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "volid": self.volid(volume),
            "content": volume.content,
            "format": _format_of(volume),
            "size": path.stat().st_size,
            "ctime": int(path.stat().st_ctime),
        }
        if volume.vmid is not None:
            entry["vmid"] = volume.vmid
        if volume.content == "backup":
            entry.update(_of_backup(path))
        return entry


def images_overhead(size: int) -> int:
    """Return about how many bytes an empty qcow2 image of a size takes, itself and its directory."""
    return 4 * 65536 + size // 65536 * 8 // 65536


def notes_of(path: Path) -> Path:
    """Return the file with a backup's notes."""
    return path.with_name(f"{path.name}.notes")


def protection_of(path: Path) -> Path:
    """Return the file that is there while a backup is protected."""
    return path.with_name(f"{path.name}.protected")


def _of_backup(path: Path) -> dict[str, Any]:
    """Return what lists say of a backup beyond its file."""
    entry: dict[str, Any] = {}
    kind = re.match(r"vzdump-(lxc|openvz|qemu)-", path.name)
    if kind:
        entry["subtype"] = kind[1]
    taken = _time_of(path.name)
    if taken is not None:
        entry["ctime"] = taken
    notes = files.read(notes_of(path))
    if notes:
        entry["notes"] = notes.split("\n")[0]
    entry["protected"] = int(protection_of(path).exists())
    return entry


def _time_of(name: str) -> int | None:
    """Return the time in a backup's name, which is the node's local time, in seconds since 1970."""
    found = _TIME.search(name)
    try:
        return int(time.mktime(time.strptime(found[1], "%Y_%m_%d-%H_%M_%S"))) if found else None
    except (ValueError, OverflowError):
        return None


def _format_of(volume: Volume) -> str:
    """Return the format of a file that is no disk."""
    found = _ENDING.search(volume.name)
    ending = found["ending"].lower() if found else ""
    match volume.content:
        case "iso":
            return "iso"
        case "vztmpl":
            return f"t{ending.rpartition('.')[2]}"
        case "snippets":
            return "snippet"
        case "rootdir":
            return "subvol"
        case _:
            return ending


def _names(folder: Path) -> list[str]:
    """Return the names in a directory that lists show."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
