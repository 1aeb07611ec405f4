"""Making containers, copying them, and removing them with all that belongs to them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...error import ClusterError
from .. import userfile
from ..config.guest import GuestConfig, Section
from ..ha import hooks
from ..properties import parse, render
from ..storage import of_volume, storage_of, storages
from ..vm import creation as machines
from . import options, settings, tree
from .status import size_bytes

if TYPE_CHECKING:
    from ..node import Node
    from ..storage import Storage

DEFAULT_GIB = 4.0
DEFAULT_STORAGE = "local"

Log = Callable[[str], None]


def reserve(node: Node, vmid: int) -> None:
    """Take a number for a container that is being made.

    Raises:
        ClusterError: it is taken.
    """
    node.state.create_guest(node.name, "lxc", vmid, GuestConfig(Section({"lock": "create"})))


def archive_path(node: Node, template: str) -> Path:
    """Return where a template's archive is.

    Raises:
        ClusterError: there is no such template.
    """
    storage = of_volume(node, template)
    storage.require("vztmpl")
    if not storage.exists(template):
        raise ClusterError(f"volume '{template}' does not exist")
    return storage.path(template)


def create(
    node: Node,
    vmid: int,
    values: Mapping[str, str],
    archive: Path,
    log: Log,
    *,
    storage: str | None = None,
    pool: str | None = None,
) -> None:
    """Make a container whose file `reserve` made.

    Args:
        node: where.
        vmid: its number.
        values: its settings; ``rootfs`` may be ``storage:GiB``.
        archive: what its disk is filled with.
        log: of the task.
        storage: of a disk whose settings name none.
        pool: that it belongs to.

    Raises:
        ClusterError: it could not be made; nothing is left of it.
    """
    complete = {"arch": "amd64", "ostype": "unmanaged", "memory": "512", "swap": "512", **values}
    complete.pop("lock", None)
    description = complete.pop("description", None)
    made: tuple[Storage, str] | None = None
    try:
        made = _make_disk(node, vmid, complete, storage, log)
        log(f"extracting archive '{archive}'")
        root, begin = made[0].path(made[1]), time.monotonic()
        total = tree.unpack(archive, root)
        seconds = max(1e-3, time.monotonic() - begin)
        log(f"Total bytes read: {total} ({_short(total)}, {_short(total / seconds)}/s)")
        log(f"Detected container architecture: {complete['arch']}")
        section = Section(settings.with_addresses(complete), description and description + "\n")
        with node.state.guest_lock(vmid, node.name, "lxc") as config:
            config.current = section
    except BaseException:
        if made:
            with contextlib.suppress(ClusterError, OSError):
                made[0].free(made[1])
        with contextlib.suppress(ClusterError):
            node.state.delete_guest(vmid)
        raise
    if pool:
        userfile.join_pool(node.state, vmid, pool)
    node.statistics.changed()


def _short(size: float) -> str:
    return f"{size / (1 << 20):.1f}MiB"


def _make_disk(node: Node, vmid: int, values: dict[str, str], default: str | None, log: Log) -> tuple[Storage, str]:
    """Allocate a container's disk and put it into its settings."""
    asked = parse(values.get("rootfs", f"{default or DEFAULT_STORAGE}:{DEFAULT_GIB:g}"), options.ROOT_DISK)
    name, _, rest = asked["volume"].partition(":")
    try:
        gib = float(rest)
    except ValueError:
        raise ClusterError(f"unable to create CT {vmid} - cannot use existing volume '{asked['volume']}'") from None
    storage = storage_of(node, name)
    storage.require("rootdir")
    size = int(gib * (1 << 30))
    volume = storage.alloc(vmid, "subvol", size, log=log)
    values["rootfs"] = render({**asked, "volume": volume, "size": size_text(size)}, options.ROOT_DISK)
    return storage, volume


def size_text(size: int) -> str:
    """Write a size as it stands in a configuration."""
    for unit, power in (("T", 40), ("G", 30), ("M", 20), ("K", 10)):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)


def clone(
    node: Node,
    vmid: int,
    new: int,
    log: Log,
    *,
    name: str | None = None,
    description: str | None = None,
    snapshot: str | None = None,
    storage: str | None = None,
    pool: str | None = None,
) -> None:
    """Copy a container into one whose file `reserve` made.

    Raises:
        ClusterError: it could not be copied; nothing is left of the copy.
    """
    source = node.state.load_guest(vmid, node.name, "lxc")
    section = source.snapshots[snapshot] if snapshot else source.current
    values = {key: value for key, value in section.values.items() if key not in _OF_SNAPSHOT}
    held, volume = settings.storage_of_root(node, values)
    target = storage_of(node, storage) if storage else held
    target.require("rootdir")
    copied = ""
    try:
        log(f"create full clone of mountpoint rootfs ({volume})")
        copied = held.copy(volume, target, new, format="subvol", snapshot=snapshot)
        disk = {**parse(values["rootfs"], options.ROOT_DISK), "volume": copied}
        values["rootfs"] = render(disk, options.ROOT_DISK)
        values["hostname"] = name or f"Copy-of-CT-{settings.hostname(vmid, values)}"
        for interface in settings.interfaces(values):
            fresh = {"name": interface.name, **interface.values, "hwaddr": settings.random_address()}
            values[f"net{interface.index}"] = render(fresh, options.NETWORK)
        with node.state.guest_lock(new, node.name, "lxc") as config:
            config.current = Section(values, description and description + "\n")
    except BaseException:
        if copied:
            with contextlib.suppress(ClusterError, OSError):
                target.free(copied)
        with contextlib.suppress(ClusterError):
            node.state.delete_guest(new)
        raise
    if pool:
        userfile.join_pool(node.state, new, pool)
    node.statistics.changed()


_OF_SNAPSHOT = ("lock", "template", "parent", "snaptime", "snapstate", "protection")


def make_template(node: Node, vmid: int) -> None:
    """Make a container one that others are made of, and that never runs again.

    Raises:
        ClusterError: it runs, has snapshots, or is one already.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        settings.assert_unlocked(config)
        if config.snapshots:
            raise ClusterError("unable to create template, because CT contains snapshots")
        if settings.flag(config.current.values, "template"):
            raise ClusterError("you can't convert a CT to template twice")
        if node.containers.is_running(vmid):
            raise ClusterError("you can't convert a CT to template if the CT is running")
        values = config.current.values
        storage, volume = settings.storage_of_root(node, values)
        disk = {**parse(values["rootfs"], options.ROOT_DISK), "volume": storage.create_base(volume)}
        values["rootfs"] = render(disk, options.ROOT_DISK)
        values["template"] = "1"
    node.statistics.changed()


def assert_removable(node: Node, vmid: int, config: GuestConfig, *, purge: bool, force: bool) -> None:
    """Refuse to remove a container that is in use.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    if settings.flag(config.current.values, "protection"):
        raise ClusterError(f"can't remove CT {vmid} - protection mode enabled")
    hooks.refuse_destroy(node, vmid, purge=purge)
    if not force:
        settings.assert_unlocked(config)
        if node.containers.is_running(vmid):
            raise ClusterError(f"unable to destroy CT {vmid} - container is running")


def destroy(
    node: Node, vmid: int, log: Log, *, purge: bool = False, force: bool = False, unreferenced: bool = False
) -> None:
    """Remove a container, its volumes, and what names it.

    Raises:
        ClusterError: it is in use.
    """
    with node.state.lock(f"lock-{vmid}.conf"):
        config = node.state.load_guest(vmid, node.name, "lxc")
        assert_removable(node, vmid, config, purge=purge, force=force)
        running = node.containers.get(vmid)
        if running is not None:
            running.kill()
        config.current.values["lock"] = "destroyed"
        node.state.save_guest(node.name, "lxc", vmid, config)
        for volume in volumes_of(config):
            machines.remove_volume(node, vmid, volume, log)
        if unreferenced:
            for storage in storages(node, "rootdir").values():
                for found in storage.volumes("rootdir", vmid):
                    machines.remove_volume(node, vmid, found["volid"], log)
        if purge:
            log(f"purging CT {vmid} from related configurations..")
            hooks.purge(node, vmid)
        node.state.delete_guest(vmid)
        node.state.delete(f"firewall/{vmid}.fw")
    userfile.forget_guest(node.state, vmid)
    node.statistics.changed()


def volumes_of(config: GuestConfig) -> list[str]:
    """Return the volumes of a container, its snapshots' and unused ones included."""
    found: dict[str, None] = {}
    for section in (config.current, config.pending, *config.snapshots.values()):
        for key, value in section.values.items():
            bare = key.rstrip("0123456789")
            if bare in ("rootfs", "mp", "unused"):
                volume = parse(value, options.MOUNT_POINT).get("volume", "")
                if ":" in volume and not volume.startswith("/"):
                    found[volume] = None
    return list(found)


def grow(node: Node, vmid: int, size: str) -> None:
    """Give a container's disk another size: ``+1G`` or ``8G``.

    Raises:
        ClusterError: it would become smaller.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        settings.assert_unlocked(config)
        values = config.current.values
        disk = parse(values["rootfs"], options.ROOT_DISK)
        old = size_bytes(disk.get("size", "0"))
        new = size_bytes(size.removeprefix("+")) + (old if size.startswith("+") else 0)
        if new < old:
            raise ClusterError("unable to shrink disk size")
        storage, volume = settings.storage_of_root(node, values)
        storage.resize(volume, new)
        values["rootfs"] = render({**disk, "size": size_text(new)}, options.ROOT_DISK)
