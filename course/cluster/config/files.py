"""Files that are whole at any moment: a writer that is killed leaves the old content or the new one.

The new content goes to a hidden file in the same directory, is brought to the disk, and takes the old file's place in
one step; then the directory is brought to the disk too, so that what was acknowledged stays. What a killed writer left
has a name of its own and is swept by `sweep`.

A digest is the SHA-1 of a file's bytes. Who changes a file may send the digest of what they had read; a file that
changed meanwhile refuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from ...error import ClusterError

UNFINISHED = ".unfinished-"


def digest(content: bytes | str) -> str:
    """Return the digest of a file's content, 40 hexadecimal digits."""
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()


def assert_unchanged(current: str, seen: str | None) -> None:
    """Compare the digest that a client saw with the file's; guests' files have their own words for it.

    Args:
        current: the file's digest now.
        seen: what the client sent; None or empty when it does not care.

    Raises:
        ClusterError: somebody changed the file meanwhile.
    """
    if seen and seen != current:
        raise ClusterError("detected modified configuration - file changed by other user? Try again.")


def read(path: Path) -> str:
    """Return a file's text, empty when there is no such file; bytes that are no UTF-8 survive being written back."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def write(path: Path, text: str, *, mode: int = 0o640) -> str:
    """Replace a file's content in one step; it is on the disk when this returns.

    Args:
        path: the file; its directory is made when it is missing.
        text: the whole new content.
        mode: its permissions.

    Returns:
        The new digest.
    """
    content = text.encode("utf-8", "surrogateescape")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)
    return digest(content)


def move(source: Path, target: Path) -> None:
    """Move a file in one step, as a migrated guest's configuration moves between nodes: it is never in both places.

    Who calls this holds the cluster's lock, so that nobody creates the target meanwhile.

    Raises:
        ClusterError: there is a file in the target's place already; both stay.
    """
    if target.exists():
        raise ClusterError(f"unable to move '{source.name}': '{target}' exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    sync_directory(target.parent)
    sync_directory(source.parent)


def create(path: Path, text: str, *, mode: int = 0o640) -> str:
    """Write a file that must not exist yet.

    Returns:
        Its digest.

    Raises:
        FileExistsError: it exists; its content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=path.parent) as folder:
        written = Path(folder) / path.name
        result = write(written, text, mode=mode)
        os.link(written, path)
    sync_directory(path.parent)
    return result


def sweep(folder: Path) -> list[Path]:
    """Remove what killed writers left below a folder; call it while nobody writes there.

    Returns:
        What was removed.
    """
    removed = []
    for path in sorted(folder.rglob(f"{UNFINISHED}*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            for inside in path.iterdir():
                inside.unlink()
            path.rmdir()
        else:
            path.unlink()
        removed.append(path)
    return removed


def sync_directory(folder: Path) -> None:
    """Bring a directory's names to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
