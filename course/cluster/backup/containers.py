"""Restoring a container from the archive that a backup made of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...error import ClusterError
from .. import properties
from ..config import files
from ..config.guest import GuestConfig
from ..ct import creation, lifecycle, options, settings
from ..route import Call
from ..tasks import Task
from . import container as archives

_GONE = re.compile(r"lock|parent|snaptime|template|mp\d+|unused\d+")


def restore(call: Call, asked: Mapping[str, str], path: Path) -> str:
    """Answer ``POST /nodes/{node}/lxc`` with a backup archive.

    Args:
        call: its parameters `storage`, `force`, `unique`, `pool`, `start` are looked at.
        asked: settings of the container that were given too.
        path: the archive.

    Returns:
        The UPID of the task.

    Raises:
        ClusterError: it cannot be restored.
    """
    values, node, vmid = call.values, call.node, call.values["vmid"]
    place = node.state.guests().get(vmid)
    if place is not None and (not values.get("force") or place.kind != "lxc" or place.node != node.name):
        kind = "CT" if place.kind == "lxc" else "VM"
        raise ClusterError(f"unable to restore CT {vmid} - {kind} {vmid} already exists on node '{place.node}'")
    if values.get("storage"):
        call.check(f"/storage/{values['storage']}", ["Datastore.AllocateSpace"])
    told = read_values(path)
    if values.get("unique"):
        _other_addresses(told)
    told |= asked
    _disk(told, values.get("storage"))

    def work(task: Task) -> None:
        task.log(f"recovering backed-up configuration from '{values['ostemplate']}'")
        if place is not None:
            creation.destroy(node, vmid, task.log)
        creation.reserve(node, vmid)
        task.log(f"restoring '{path}' now..")
        prefix = f"{files.UNFINISHED}{node.name}-"  # swept, should the node die
        with (
            tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder,
            archives.plain_archive(path, Path(folder)) as plain,
        ):
            creation.create(node, vmid, told, plain, task.log, pool=values.get("pool"))
        if values.get("start"):
            lifecycle.start(node, vmid, task.log)

    return call.task("vzrestore", vmid, work)


def read_values(path: Path) -> dict[str, str]:
    """Return the settings in a container's archive, without what only its old place knew."""
    config = GuestConfig.parse(archives.read_config(path))
    values = {key: value for key, value in config.current.values.items() if not _GONE.fullmatch(key)}
    if config.current.description:
        values["description"] = config.current.description.removesuffix("\n")
    return values


def _other_addresses(values: dict[str, str]) -> None:
    for interface in settings.interfaces(values):
        fresh = {"name": interface.name, **interface.values, "hwaddr": settings.random_address()}
        values[f"net{interface.index}"] = properties.render(fresh, options.NETWORK)


def _disk(values: dict[str, str], storage: str | None) -> None:
    """Have the disk made anew: on the storage that it was on, or another, as large as it was."""
    disk = properties.parse(values.get("rootfs", "local:4"), options.ROOT_DISK)
    place, _, rest = disk["volume"].partition(":")
    if re.fullmatch(r"\d+(?:\.\d+)?", rest):
        return
    gib = _gib(disk.pop("size", "4G"))
    values["rootfs"] = properties.render({**disk, "volume": f"{storage or place}:{gib:g}"}, options.ROOT_DISK)


def _gib(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([KMGT]?)", text.strip()).groups()  # type: ignore[union-attr]
    return float(number) * {"K": 2.0**-20, "M": 2.0**-10, "G": 1.0, "T": 1024.0, "": 2.0**-30}[unit]
