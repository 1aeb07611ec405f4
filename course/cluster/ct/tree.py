"""Files of a container, handled from outside: an archive or a container's own root may lie about every name.

Nothing here follows a symbolic link, whoever made it, and nothing leaves the container's directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ...error import ClusterError

Progress = Callable[[int], object]


def unpack(archive: Path, root: Path, progress: Progress = lambda done: None) -> int:
    """Unpack a container's archive into an empty directory.

    Devices are left out: a container gets its own. Owners are left out too: everything is the user's who runs the lab,
    which is root inside.

    Args:
        archive: a tar archive, compressed or not.
        root: the directory.
        progress: is told how many bytes came so far.

    Returns:
        How many bytes of content there were.

    Raises:
        ClusterError: it is no archive, or a name in it leads outside.
    """
    total, folders = 0, list[tuple[Path, int]]()
    try:
        with tarfile.open(archive) as content:
            for member in content:
                path = inside(root, member.name)
                if path == root:
                    continue
                _unpack_member(content, member, path, root)
                if member.isdir():
                    folders.append((path, member.mode & 0o7777))
                total += member.size
                progress(total)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ClusterError(f"unable to extract archive '{archive.name}': {error}") from error
    for path, mode in reversed(folders):
        path.chmod(mode)
    return total


def _unpack_member(content: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path) -> None:
    if member.isdir():
        if path.is_symlink() or not path.is_dir():
            remove(path)
            path.mkdir(mode=0o755)
        return
    if member.isdev():
        return
    remove(path)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        os.link(inside(root, member.linkname), path, follow_symlinks=False)
    elif member.isreg():
        source = content.extractfile(member)
        if source is None:
            raise ClusterError(f"archive entry '{member.name}' has no content")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(source, target)
            os.fchmod(target.fileno(), member.mode & 0o7777)


def inside(root: Path, name: str) -> Path:
    """Return where a name of an archive or a container is, below `root`, with every folder on the way made real.

    Raises:
        ClusterError: it leads outside, or through a symbolic link.
    """
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
    if ".." in parts:
        raise ClusterError(f"archive entry '{name}' leads out of the container")
    path = root
    for part in parts[:-1]:
        path /= part
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise ClusterError(f"archive entry '{name}' leads through '{part}', which is no folder")
            continue
        path.mkdir(mode=0o755)
    return path / parts[-1] if parts else root


def write(root: Path, name: str, text: str) -> None:
    """Write a file of a container; one that leads through a link of its own is left alone."""
    with contextlib.suppress(ClusterError, OSError):
        path = inside(root, name)
        if path.is_symlink() or path.is_dir():
            return
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "w") as file:
            file.write(text)


def remove(path: Path) -> None:
    """Remove whatever has a name; nothing is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def used_bytes(root: Path) -> int:
    """Return how much room a directory's content takes."""
    total, waiting = 0, [root]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
    return total
