"""Remember what became of a submission, so that nothing is executed twice.

The outcome of an execution depends on the cells (tests included), the instructor's notebook, the files handed in with
it, the course's own code, the Python packages, QEMU, the budgets, and how the answers were kept apart. All of it goes
into a SHA-256 key; the outputs and verdicts lie under that key below ``autograder/work/cache``. Change any of it and
the key changes: an entry is never out of date, it is only not found.

`remembering.CachedExecute` looks there before it executes. That is what joins ``course grade`` and plain nbgrader: the
first fills the cache with many workers, and whoever writes the gradebook, alone, finds every submission executed.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Node = Any

_FORMAT = 1
_ROOT = Path(__file__).parents[1]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file: the whole of it or, when the process is killed meanwhile, nothing.

    Raises:
        OSError: it cannot be written, such as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)  # noqa: PTH105 - a descriptor's own name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Cache:
    """Outcomes on disk; many processes may read and write it at once.

    Args:
        folder: made when the first outcome is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what was kept under a key, None when nothing was or it cannot be read."""
        try:
            outcome = json.loads(gzip.decompress(self._path(key).read_bytes()))
        except (OSError, EOFError, ValueError, zlib.error):
            return None
        return outcome if isinstance(outcome, dict) else None

    def put(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Keep an outcome: the whole of it or, when the process is killed meanwhile, nothing.

        Raises:
            OSError: it cannot be written, such as on a full disk.
        """
        write_whole(self._path(key), gzip.compress(json.dumps(outcome).encode(), 6, mtime=0))

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json.gz"


def key(
    nb: Node,
    source: Node | None,
    files: Path | None,
    level: str,
    *,
    seed: str = "",
    budgets: Mapping[str, float] | None = None,
) -> str:
    """Name an execution by all that it depends on.

    Args:
        nb: the notebook as it is executed, its locked cells the instructor's.
        source: the instructor's notebook.
        files: the folder handed in; its notebooks do not count.
        level: how answers are kept apart from the grader.
        seed: of the student's own variant.
        budgets: what was allowed, by name: more of it may end better.
    """
    parts = {
        "format": _FORMAT,
        "cells": [_cell(cell) for cell in nb.cells if cell.cell_type == "code"],
        "source": [_cell(cell) for cell in source.cells if cell.cell_type == "code"] if source else None,
        "files": _files(files) if files else [],
        "world": world(),
        "level": level,
        "seed": seed,
        "budgets": dict(budgets or {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _cell(cell: Node) -> list[Any]:
    grading = cell.metadata.get("nbgrader", {})
    points = grading.get("points")
    return [cell.source, grading.get("grade_id"), None if points is None else float(points)]


def _files(folder: Path) -> list[list[str]]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix != ".ipynb" and path.name != "timestamp.txt":
            found.append([str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()])
    return found


@functools.cache
def world() -> str:
    """A digest of the code and the packages that take part in grading, once per process."""
    digest = hashlib.sha256()
    for folder in ("course", "autograder"):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            if path.relative_to(_ROOT).parts[1] not in ("work", "zoo", "answers", "report"):
                digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    packages = sorted(f"{one.name}=={one.version}" for one in importlib.metadata.distributions())
    machine = [sys.version, platform.machine(), *packages, *_emulators()]
    digest.update("\0".join(machine).encode())
    return digest.hexdigest()


def _emulators() -> Iterable[str]:
    for name in ("qemu-system-x86_64", "qemu-system-riscv64", "qemu-system-ppc64", "qemu-x86_64", "qemu-img"):
        if found := shutil.which(name):
            status = Path(found).stat()
            yield f"{name} {status.st_size} {status.st_mtime_ns}"
