"""What is on a storage, and how a volume gets its name.

A volume appears under its name when it is whole: it is made under a hidden name that says which node makes it, brought
to the disk and then named in one step. Lists never show hidden names. A node that comes back sweeps its own, so a
storage that nodes share is never swept under another node's hands.

Two makers of volumes on one storage wait for each other only while a number is chosen and a name is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...error import ClusterError
from ..config import files
from ..config.sections import TypedSection
from ..volume import Volume, parse_volume_id
from . import images, room, trees
from .room import Status

LOCK_TIMEOUT_S = 60.0

Log = Callable[[str], None]


@dataclass(slots=True)
class Draft:
    """A volume that is being made.

    Attributes:
        volume: its name; without a given one it is chosen anew when it is finished.
        path: the hidden name under which it is made.
    """

    volume: Volume
    path: Path


class Catalogue(ABC):
    """One storage as one node sees it.

    Args:
        section: its section of ``storage.cfg``.
        root: the directory that stands for its disk.
        owner: the node's name, for what it leaves unfinished.

    Attributes:
        name: its id.
        kind: its type, such as ``dir``.
        root: the directory.
    """

    features: ClassVar[Mapping[str, Mapping[str, frozenset[str]]]] = {}
    formats: tuple[str, ...] = ()

    def __init__(self, section: TypedSection, root: Path, owner: str) -> None:
        self.section = section
        self.name = section.name
        self.kind = section.kind
        self.root = root
        self.owner = owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.root}>"

    # ── what the configuration says ─────────────────────────────────────────────────────────────────────────────────

    @property
    def content(self) -> set[str]:
        """The kinds of content that it may hold."""
        return set(self.section.words("content")) - {"none"}

    @property
    def shared(self) -> bool:
        """Whether all nodes see the same volumes."""
        return self.section.flag("shared")

    @property
    def enabled(self) -> bool:
        """Whether it is in use."""
        return not self.section.flag("disable")

    @property
    def default_format(self) -> str:
        """The format of a disk that nobody chose one for."""
        return "raw"

    def require(self, content: str) -> None:
        """Refuse content that the storage may not hold.

        Raises:
            ClusterError: it may not.
        """
        if content not in self.content:
            raise ClusterError(f"storage '{self.name}' does not support '{content}' content type")

    def status(self, *, fresh: bool = True) -> Status:
        """Return its room."""
        return room.status(self.root, self.kind, fresh=fresh)

    # ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def parse(self, name: str) -> Volume:
        """Read a volume's name.

        Raises:
            ClusterError: it is no name of this storage.
        """

    @abstractmethod
    def place(self, volume: Volume) -> Path:
        """Return where a volume is, inside the storage."""

    @abstractmethod
    def name_for(self, vmid: int, word: str, format: str, base: Volume | None = None) -> str:
        """Return the name of a disk.

        Args:
            vmid: its owner.
            word: such as ``disk-0``.
            format: raw, qcow2 or subvol.
            base: the template's disk that it is a linked clone of.
        """

    @abstractmethod
    def driver_of(self, volume: Volume, path: Path) -> str:
        """Return the format that the volume's file really has: raw, qcow2 or subvol."""

    @abstractmethod
    def disks(self, vmid: int | None = None) -> list[Volume]:
        """Return the disks that are there, of all guests or of one."""

    def volume(self, volid: str) -> Volume:
        """Read a volume id of this storage.

        Raises:
            ClusterError: it is none.
        """
        storage, name = parse_volume_id(volid)
        if storage != self.name:
            raise ClusterError(f"volume '{volid}' is not on storage '{self.name}'")
        return self.parse(name)

    def path(self, volid: str) -> Path:
        """Return where a volume's file is, whether it exists or not.

        Raises:
            ClusterError: the name is none of this storage's, or would lead out of it.
        """
        return self.place(self.volume(volid))

    def existing(self, volid: str) -> tuple[Volume, Path]:
        """Return a volume that is there, and its path.

        Raises:
            ClusterError: it is not there.
        """
        volume = self.volume(volid)
        path = self.place(volume)
        if not os.path.lexists(path):
            raise ClusterError(f"volume '{volid}' does not exist")
        return volume, path

    def exists(self, volid: str) -> bool:
        """Say whether a volume is there."""
        with contextlib.suppress(ClusterError):
            return os.path.lexists(self.path(volid))
        return False

    def volid(self, volume: Volume) -> str:
        """Return a disk's volume id."""
        return f"{self.name}:{self._name(volume)}"

    @abstractmethod
    def _name(self, volume: Volume) -> str:
        """Return a disk's name as it follows the colon."""

    def driver(self, volid: str) -> str:
        """Return QEMU's name of the format of a volume's file."""
        return self.driver_of(*self.existing(volid))

    @abstractmethod
    def format(self, volid: str) -> str:
        """Return a volume's format as Proxmox VE calls it."""

    def size(self, volid: str) -> int:
        """Return the size that a guest sees, in bytes.

        Raises:
            ClusterError: there is no such volume, or it cannot be read.
        """
        return self._size(*self.existing(volid))

    def _size(self, volume: Volume, path: Path) -> int:
        driver = self.driver_of(volume, path)
        if driver == "subvol":
            return trees.size(path)
        return images.virtual_size(path, driver) if volume.content == "images" else path.stat().st_size

    # ── what each kind says in its own way ──────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _check_name(self, name: str, vmid: int, format: str) -> None:
        """Refuse a name that is not one of this guest's volumes."""

    @abstractmethod
    def _check_room(self, volume: Volume, format: str, size: int, written: int = 0) -> None:
        """Refuse a volume that there is no room for, in the words of what would make it.

        Args:
            volume: its name.
            format: its format.
            size: that a guest sees, in bytes.
            written: bytes that will be written to it at once.
        """

    @abstractmethod
    def _made(self, volume: Volume, size: int) -> str:
        """Say that a volume was made, as the program that makes it does."""

    @abstractmethod
    def _removed(self, volume: Volume) -> str | None:
        """Say that a volume was removed, as the program that removes it does."""

    def _driver_for(self, format: str) -> str:
        """Return the format of the file that a new volume of a format is kept in."""
        return format

    @abstractmethod
    def _renamed(self, volume: Volume, name: str) -> str:
        """Return a disk's whole name with another last part; a clone's base goes with it."""

    def _base_of(self, volume: Volume) -> Volume | None:
        """Return the template's disk that a linked clone reads from."""
        if volume.basename is None or volume.basevmid is None:
            return None
        return self._base(volume.basevmid, volume.basename)

    @abstractmethod
    def _base(self, vmid: int, name: str) -> Volume:
        """Return the disk with a name that a clone's name tells."""

    def _clone_format(self) -> str:
        """Return the format of a linked clone."""
        return "qcow2"

    # ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def volumes(self, content: str | None = None, vmid: int | None = None) -> list[dict[str, Any]]:
        """Return what is there, as entries of the API's answer.

        Args:
            content: of this kind only.
            vmid: of this guest only.
        """
        if not self.root.is_dir():
            return []
        entries = [
            entry
            for kind in sorted(self.content if content is None else self.content & {content})
            for entry in self._entries(kind, vmid)
        ]
        return sorted(entries, key=lambda entry: str(entry["volid"]))

    def _entries(self, content: str, vmid: int | None) -> Iterator[dict[str, Any]]:
        """Yield the entries of one kind of content."""
        if content not in ("images", "rootdir"):
            return
        for volume in self.disks(vmid):
            with contextlib.suppress(OSError, ClusterError):  # it may go while we look
                path = self.place(volume)
                if (self.driver_of(volume, path) == "subvol") == (content == "rootdir"):
                    yield self._disk_entry(volume, path, content)

    def _disk_entry(self, volume: Volume, path: Path, content: str) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "volid": self.volid(volume),
            "content": content,
            "format": self.format(self.volid(volume)),
            "size": self._size(volume, path),
            "vmid": volume.vmid,
            "ctime": int(path.stat().st_mtime if path.is_dir() else path.stat().st_ctime),
        }
        if not path.is_dir():
            entry["used"] = images.allocated(path)
        base = self._base_of(volume)
        if base is not None:
            entry["parent"] = self._name(base)
        return entry

    # ── whole or not at all ─────────────────────────────────────────────────────────────────────────────────────────

    def _free_word(self, vmid: int) -> str:
        """Return ``disk-N`` with the first number that no disk of the guest has."""
        used = {number for volume in self.disks(vmid) if (number := _number(volume.name)) is not None}
        return f"disk-{next(n for n in range(len(used) + 1) if n not in used)}"

    @contextlib.contextmanager
    def _new(
        self, vmid: int, format: str, name: str | None, purpose: str, base: Volume | None = None
    ) -> Iterator[Draft]:
        """Hand out a hidden name; what the block makes there gets a volume's name when it has succeeded.

        Without a given name the number is chosen last, so that long work holds no lock.
        """
        volume = self._planned(vmid, format, name, purpose, base)
        place = self.place(volume)
        if os.path.lexists(place) and (name is not None or purpose != "disk"):
            raise self._taken(volume)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Draft(volume, place.parent / f"{self._prefix()}{secrets.token_hex(6)}")
        try:
            yield draft
            images.bring_to_disk(draft.path)
            with self.lock():
                draft.volume = self._planned(vmid, format, name, purpose, base)
                target = self.place(draft.volume)
                if os.path.lexists(target):
                    raise self._taken(draft.volume)
                draft.path.rename(target)
                files.sync_directory(target.parent)
        finally:
            if draft.path.is_dir():
                shutil.rmtree(draft.path, ignore_errors=True)
            draft.path.unlink(missing_ok=True)
            room.forget(self.root)

    def _planned(self, vmid: int, format: str, name: str | None, purpose: str, base: Volume | None) -> Volume:
        word = self._free_word(vmid) if purpose == "disk" else purpose
        whole = self.name_for(vmid, word, format, base)
        return self.parse(self._renamed(self.parse(whole), name) if name is not None else whole)

    @abstractmethod
    def _taken(self, volume: Volume) -> ClusterError:
        """Return the error for a name that is taken."""

    def _prefix(self) -> str:
        return f"{files.UNFINISHED}{self.owner}-"

    @contextlib.contextmanager
    def lock(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep others from taking names on this storage, on whatever node they are.

        Raises:
            ClusterError: somebody held it for too long.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _flock(
                handle, timeout_s, f"error during cfs-locked 'storage-{self.name}' operation: got lock request timeout"
            )
            yield
        finally:
            os.close(handle)

    def sweep(self) -> list[Path]:
        """Remove what this node left unfinished when it last ended; call it before anything is made.

        Returns:
            What was removed.
        """
        found = [path for path in self.root.rglob(f"{self._prefix()}*") if os.path.lexists(path)]
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return found


def _flock(handle: int, timeout_s: float, words: str) -> None:
    """Lock a file, waiting for others."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise ClusterError(words) from None
            time.sleep(0.01)
        else:
            return


def _number(name: str) -> int | None:
    """Return the number in ``vm-169-disk-3.raw``."""
    _, found, tail = name.partition("-disk-")
    digits = tail.partition(".")[0]
    return int(digits) if found and digits.isdigit() else None
