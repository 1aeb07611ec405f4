"""Disk images of a storage, through qemu-img: every format is named, none is guessed.

A raw disk belongs to its guest, which may write a qcow2 header into it that names any file of the host as its backing
image. So each call says which format a file has; the storage knows it from the volume's name.

Long work is done by a child that dies with the node, as a real node's work does when it loses power. What it leaves has
a hidden name and is swept when the node comes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...error import ClusterError
from ...machine import process, qemu

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and those that there are."""

CheckStop = Callable[[], None]
"""Raises when the work is to stop."""

_QCOW2 = struct.Struct(">4sIQIIQ")
_PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")
_POLL_S = 0.05


def create(path: Path, format: str, size: int, *, backing: Path | None = None, backing_format: str = "") -> None:
    """Make an empty image.

    Args:
        path: the file.
        format: raw or qcow2.
        size: in bytes, as the guest sees it.
        backing: the image below; named in the file as seen from the file's own directory, so that a storage can move.
        backing_format: its format.

    Raises:
        ClusterError: qemu-img fails, for want of space for example.
    """
    line = ["create", "-q", "-f", format]
    if backing is not None:
        line += ["-b", os.path.relpath(backing, path.parent), "-F", backing_format]
    _run("unable to create image", *line, str(path), str(size))


def resize(path: Path, format: str, size: int) -> None:
    """Give an image that no machine uses another size, in bytes.

    Raises:
        ClusterError: it would shrink, or qemu-img fails.
    """
    _run("unable to resize image", "resize", "-q", "-f", format, str(path), str(size))


def snapshot(path: Path, action: str, name: str) -> None:
    """Keep (``-c``), go back to (``-a``) or remove (``-d``) a snapshot inside an image that no machine uses.

    Raises:
        ClusterError: qemu-img fails.
    """
    _run("qemu-img snapshot failed", "snapshot", action, name, "--image-opts", _options(path, "qcow2"))


def info(path: Path, format: str) -> dict[str, Any]:
    """Return what ``qemu-img info`` knows of an image, also of one that a machine uses.

    Raises:
        ClusterError: it cannot be read.
    """
    words = _run(f"could not read '{path}'", "info", "-U", "--output=json", "-f", format, str(path))
    result: dict[str, Any] = json.loads(words)
    return result


def virtual_size(path: Path, format: str) -> int:
    """Return the size that a guest sees, in bytes, from the image's own header: lists ask for it often.

    Raises:
        ClusterError: the file is not of its format.
    """
    if format == "raw":
        return path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_QCOW2.size)
    if len(head) < _QCOW2.size or not head.startswith(b"QFI\xfb"):
        raise ClusterError(f"could not read '{path}': Image is not in {format} format")
    return 0 if len(head) < 32 else int(_QCOW2.unpack(head)[5])


def backing_of(path: Path) -> str:
    """Return the name of the image below as it stands in a qcow2 file; empty when there is none."""
    with path.open("rb") as file:
        head = file.read(_QCOW2.size)
        magic, _, offset, length, *_ = _QCOW2.unpack(head) if len(head) == _QCOW2.size else (b"", 0, 0, 0)
        if magic != b"QFI\xfb" or not offset or length > 1023:
            return ""
        file.seek(offset)
        return file.read(length).decode(errors="replace")


def allocated(path: Path) -> int:
    """Return how many bytes of its file system a file takes."""
    return path.stat().st_blocks * 512


def end_of_data(path: Path) -> int:
    """Return the offset behind the last bytes that a file really has; holes after it do not count."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        position = last = 0
        while position < end:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            position = last = os.lseek(file.fileno(), position, os.SEEK_HOLE)
        return last


def convert(
    source: Path,
    source_format: str,
    target: Path,
    target_format: str,
    *,
    snapshot: str | None = None,
    progress: Progress | None = None,
    check_stop: CheckStop | None = None,
) -> None:
    """Write all that a guest would read from an image into a new one.

    Args:
        source: image to read; no machine may be writing to it.
        source_format: its format.
        target: file to make.
        target_format: its format.
        snapshot: read this snapshot of the source instead.
        progress: is told about how far it is.
        check_stop: raises when it is to stop; the child is ended then.

    Raises:
        ClusterError: qemu-img fails.
    """
    size = virtual_size(source, source_format)
    line = [str(qemu.find("qemu-img")), "convert", "-p", "-O", target_format]
    if snapshot is not None:
        line += ["-l", f"snapshot.name={snapshot}"]
    line += ["--image-opts", _options(source, source_format), str(target)]
    if progress:
        progress(0, size)
    child = process.spawn(line)
    try:
        _follow(child, size, progress, check_stop)
    finally:
        child.close()
    if child.exitcode:
        raise ClusterError(f"copy failed: {last_words(child.output)}")
    if progress:
        progress(size, size)


def _follow(child: process.Process, size: int, progress: Progress | None, check_stop: CheckStop | None) -> None:
    """Wait for the end of a child that writes how far it is."""
    shown = 0.0
    while child.wait(_POLL_S) is None:
        if check_stop:
            check_stop()
        found = _PERCENT.findall(child.output[-200:])
        if progress and found and float(found[-1]) > shown:
            shown = float(found[-1])
            progress(int(size * shown / 100), size)


def _options(path: Path, format: str) -> str:
    """Name a file and its format as ``--image-opts`` wants it."""
    escaped = str(path).replace(",", ",,")
    return f"driver={format},file.driver=file,file.filename={escaped}"


def _run(what: str, *arguments: str) -> str:
    line = [str(qemu.find("qemu-img")), *arguments]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ClusterError(f"{what}: {last_words(done.stderr)}")
    return done.stdout


def last_words(output: str) -> str:
    """Return the last line that a program wrote."""
    lines = [line for line in re.split(r"[\r\n]+", output) if line.strip()]
    return lines[-1].strip() if lines else "qemu-img ended without a word"


def bring_to_disk(path: Path) -> None:
    """Return when a file, or all files of a directory, are on the disk."""
    for folder, _, names in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
        for name in names:
            file = Path(folder) / name
            if not file.is_symlink() and file.is_file():
                with contextlib.suppress(PermissionError), file.open("rb") as opened:
                    os.fsync(opened.fileno())
