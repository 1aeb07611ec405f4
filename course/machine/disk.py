"""Disk images, through qemu-img: the program that knows all their formats.

A new image appears under its name when it is complete; a failure leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..error import MachineError, UsageError
from . import launch, qemu


def create(
    path: str | Path,
    size_mib: int | None = None,
    format: str = "qcow2",
    backing: str | Path | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Make an empty image.

    Args:
        path: file to make.
        size_mib: size that the guest sees, in MiB; None takes the backing image's.
        format: ``"qcow2"``, ``"raw"``, ``"vmdk"``, …
        backing: image to read from where the new one has not been written (an overlay; the format is detected).
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        UsageError: when the file exists, or a size is missing or not positive.
        MachineError: when qemu-img fails, for want of disk space for example; no file is left.
        CapabilityError: when qemu-img is missing.
    """
    if size_mib is None and backing is None:
        raise UsageError("an image needs a size: create(path, size_mib=64), or a backing image to take it from")
    if size_mib is not None and size_mib <= 0:
        raise UsageError(f"size_mib is {size_mib}; expected a positive number of MiB")
    with _new_file(Path(path), overwrite=overwrite) as fresh:
        line = ["create", "-q", "-f", format]
        if backing is not None:
            below = Path(backing).resolve()
            line += ["-b", str(below), "-F", str(info(below)["format"])]
        _run(*line, str(fresh), *([f"{size_mib}M"] if size_mib is not None else []))
    return Path(path)


def convert(
    source: str | Path,
    target: str | Path,
    format: str = "qcow2",
    *,
    source_format: str | None = None,
    compress: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write an image's contents to a new image, without backing image.

    Args:
        source: image to read.
        target: file to make.
        format: its format.
        source_format: the source's format; None detects it (never for an image from a stranger: a raw one can pretend
            to be qcow2 and name any file as its backing image).
        compress: compress the data (qcow2, vmdk).
        overwrite: replace an existing file.

    Raises:
        UsageError, MachineError, CapabilityError: as `create`.
    """
    with _new_file(Path(target), overwrite=overwrite) as fresh:
        line = ["convert", "-q", "-O", format, *(["-c"] if compress else [])]
        line += ["-f", source_format] if source_format else []
        _run(*line, str(source), str(fresh))
    return Path(target)


def info(path: str | Path) -> dict[str, Any]:
    """Return what ``qemu-img info`` knows: ``format``, ``virtual-size`` and ``actual-size`` in bytes, and so on.

    An image in use by a machine is read as it is (``--force-share``): numbers can be a moment old.

    Raises:
        MachineError: when it cannot be read.
    """
    result: dict[str, Any] = json.loads(_run("info", "--force-share", "--output=json", str(path)).stdout)
    return result


def compare(a: str | Path, b: str | Path) -> bool:
    """Tell whether a guest would read the same from both images (formats may differ).

    Raises:
        MachineError: when one cannot be read or is in use.
    """
    return _run("compare", "-q", str(a), str(b), accepted=(0, 1)).returncode == 0


def check(path: str | Path) -> dict[str, Any]:
    """Return what ``qemu-img check`` finds in an image that no machine uses: ``corruptions``, ``leaks`` and so on.

    Raises:
        MachineError: when it cannot be read, or its format has nothing to check.
    """
    result: dict[str, Any] = json.loads(_run("check", "--output=json", str(path), accepted=(0, 2, 3)).stdout)
    return result


@contextlib.contextmanager
def _new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Hand out a name in a fresh directory beside `path`; when the block succeeds, that file becomes `path`."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; it was left as it is. Choose another name, or say overwrite=True.")
    try:
        directory = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"no file can be made at {path}: {error.strerror}. Choose another directory.") from error
    with directory as name:
        fresh = Path(name) / path.name
        yield fresh
        fresh.replace(path)


def _run(*arguments: str, accepted: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    line = [str(qemu.find("qemu-img")), *arguments]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in accepted:
        what = f"qemu-img {arguments[0]} failed"
        advice = launch.hint(done.stderr) or launch.end_of(done.returncode)
        raise MachineError(f"{what}: {advice}", command=line, exitcode=done.returncode, output=done.stderr)
    return done
