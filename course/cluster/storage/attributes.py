"""What one volume is like: its path, sizes and, of a backup, notes and protection."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError
from ..config import files
from . import directory, images, room
from .base import Storage


def of(storage: Storage, volid: str) -> dict[str, Any]:
    """Return a volume as the API answers it.

    Raises:
        ClusterError: there is no such volume.
    """
    volume, path = storage.existing(volid)
    entry: dict[str, Any] = {
        "path": str(path),
        "size": storage.size(volid),
        "used": room.taken(path) if path.is_dir() else images.allocated(path),
        "format": storage.format(volid),
    }
    if volume.content == "backup":
        entry["protected"] = int(directory.protection_of(path).exists())
        notes = files.read(directory.notes_of(path))
        if notes:
            entry["notes"] = notes
    return entry


def annotate(storage: Storage, volid: str, notes: str) -> None:
    """Set a backup's notes; empty ones are removed.

    Raises:
        ClusterError: it is no backup.
    """
    path = _backup(storage, volid, "notes")
    place = directory.notes_of(path)
    if notes:
        files.write(place, notes, mode=0o644)
    else:
        place.unlink(missing_ok=True)


def protect(storage: Storage, volid: str, wanted: bool) -> None:
    """Protect a backup from being removed, or no longer.

    Raises:
        ClusterError: it is no backup.
    """
    place = directory.protection_of(_backup(storage, volid, "protected"))
    if wanted:
        files.write(place, "", mode=0o644)
    else:
        place.unlink(missing_ok=True)


def _backup(storage: Storage, volid: str, attribute: str) -> Any:
    volume, path = storage.existing(volid)
    if volume.content != "backup":
        raise ClusterError(f"attribute '{attribute}' is not supported for volume '{volid}'")
    return path
