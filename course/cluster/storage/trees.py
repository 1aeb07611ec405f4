"""Subvolumes: the directories that containers have for disks, and their snapshots.

A snapshot is a copy, beside the subvolume in a hidden directory::

    images/200/subvol-200-disk-0.subvol/
    images/200/.snapshots/subvol-200-disk-0.subvol/before/
    images/200/.subvol-200-disk-0.subvol.size         the size that was asked for; nothing enforces it

A copy has its name when it is whole.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from ...error import ClusterError
from ..config import files
from . import images

SNAPSHOTS = ".snapshots"


def sidecar(path: Path) -> Path:
    """Return the hidden file that keeps a subvolume's size."""
    return path.parent / f".{path.name}.size"


def size(path: Path) -> int:
    """Return the size that was asked for, in bytes; 0 for none."""
    with contextlib.suppress(ValueError):
        return int(files.read(sidecar(path)))
    return 0


def set_size(path: Path, size: int) -> None:
    """Remember the size of a subvolume, in bytes."""
    files.write(sidecar(path), f"{size}\n")


def kept(path: Path) -> Path:
    """Return the directory of a subvolume's snapshots."""
    return path.parent / SNAPSHOTS / path.name


def names(path: Path) -> list[str]:
    """Return the names of a subvolume's snapshots."""
    folder = kept(path)
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []


def at(path: Path, snapshot: str | None) -> Path:
    """Return a subvolume's directory, or a snapshot's.

    Raises:
        ClusterError: there is no such snapshot.
    """
    if snapshot is None:
        return path
    if snapshot not in names(path):
        raise ClusterError(f"snapshot '{snapshot}' does not exist")
    return kept(path) / snapshot


def snapshot(path: Path, name: str, prefix: str) -> None:
    """Keep a subvolume as it is now.

    Args:
        path: its directory.
        name: of the snapshot.
        prefix: begins hidden names of what is not whole yet.
    """
    if name in names(path):
        raise ClusterError(f"snapshot name '{name}' already used")
    kept(path).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=kept(path)) as hidden:
        copy(path, Path(hidden) / "tree")
        (Path(hidden) / "tree").rename(kept(path) / name)


def rollback(path: Path, name: str, prefix: str) -> None:
    """Bring a subvolume back to a snapshot, which stays."""
    source = at(path, name)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as hidden:
        copy(source, Path(hidden) / "new")
        path.rename(Path(hidden) / "old")
        (Path(hidden) / "new").rename(path)


def delete(path: Path, name: str) -> None:
    """Remove a snapshot."""
    shutil.rmtree(at(path, name))


def remove(path: Path, prefix: str) -> None:
    """Remove a subvolume: it loses its name in one step, then its content."""
    hidden = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    path.rename(hidden / path.name)
    shutil.rmtree(hidden, ignore_errors=True)


def copy(source: Path, target: Path) -> None:
    """Copy a directory as it is: owners, links, holes and devices.

    Raises:
        ClusterError: it cannot be copied.
    """
    line = ["cp", "-a", "--reflink=auto", "--", str(source), str(target)]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ClusterError(f"copy failed: {images.last_words(done.stderr)}")
