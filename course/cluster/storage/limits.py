"""A storage that is full is full for running machines too.

A disk's qcow2 file grows as its guest writes. Between the format and the file stands a layer that ends where the
storage's room ends now::

    drive-scsi0          qcow2     what the guest sees
    drive-scsi0-limit    raw,size  ends at: data that the file has + room that the storage has left
    drive-scsi0-file     file      as long as the whole storage, a hole behind its data

A write that would need another cluster behind the end fails with ENOSPC, and QEMU pauses the machine with
``io-error``. The file itself is that long (a hole takes no room) because QEMU wants the layer to be no longer than the
file. When room was freed, `widen` moves the end while the machine is there, and it can go on.

The end is moved by `layers`, by `widen` when a machine is resumed, and every few seconds by its node: two machines that
fill one storage within those seconds could together write a little more than it has.

Source: QEMU's QAPI schema, BlockdevOptionsRaw and blockdev-reopen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import images
from .room import Status

Execute = Callable[[str, dict[str, Any]], Any]
CLUSTER = 65536


def limit(path: Path, status: Status) -> int:
    """Return where a growing file ends when the storage is full, in bytes.

    Args:
        path: the disk's file.
        status: its storage's room.
    """
    end = max(images.end_of_data(path), images.allocated(path) + status.avail)
    return (end + CLUSTER - 1) // CLUSTER * CLUSTER


def layers(path: Path, driver: str, status: Status, node_name: str, **options: Any) -> dict[str, Any]:
    """Return the options of ``-blockdev`` for a disk.

    Args:
        path: its file; it is made as long as the storage is large.
        driver: raw or qcow2.
        status: its storage's room.
        node_name: the name of the upper node; those below have it with ``-limit`` and ``-file`` behind it.
        **options: for all layers, such as ``cache`` or ``read-only``.
    """
    file = {"driver": "file", "node-name": f"{node_name}-file", "filename": str(path), **options}
    if driver != "qcow2":
        return {"driver": driver, "node-name": node_name, "file": file, **options}
    end = limit(path, status)
    if options.get("read-only") or not _lengthen(path, max(end, status.total)):
        return {"driver": driver, "node-name": node_name, "file": file, **options}
    middle = {"driver": "raw", "node-name": f"{node_name}-limit", "size": end, "file": file, **options}
    return {"driver": driver, "node-name": node_name, "file": middle, **options}


def widen(path: Path, status: Status, node_name: str, execute: Execute) -> None:
    """Move the end of a running machine's layer to where the storage ends now.

    Args:
        path: the disk's file.
        status: its storage's room.
        node_name: as given to `layers`.
        execute: executes a QMP command with its arguments.
    """
    name = f"{node_name}-limit"
    nodes = {node["node-name"]: node for node in execute("query-named-block-nodes", {"flat": True})}
    if name not in nodes:
        return
    below = nodes.get(f"{node_name}-file")
    end = min(limit(path, status), path.stat().st_size)
    if below is None or nodes[name].get("image", {}).get("virtual-size") == end:
        return
    options: dict[str, Any] = {"driver": "raw", "node-name": name, "size": end, "file": f"{node_name}-file"}
    cache = nodes[name].get("cache")
    if cache:
        options["cache"] = {"direct": cache["direct"], "no-flush": cache["no-flush"]}
    execute("blockdev-reopen", {"options": [options]})


def _lengthen(path: Path, length: int) -> bool:
    """Make a file longer with a hole; returns whether it is that long."""
    try:
        if path.stat().st_size < length:
            with path.open("r+b") as file:
                file.truncate(length)
    except OSError:  # the file system or a limit of the process does not want files of that length
        return False
    return True
