"""What a container's settings mean: its disk, its network interfaces, its name."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...error import ClusterError
from ..config.guest import GuestConfig
from ..properties import parse, render
from . import options

if TYPE_CHECKING:
    from ..node import Node
    from ..storage import Storage

VENDOR = "BC:24:11"


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface.

    Attributes:
        index: 0 for ``net0``.
        name: inside the container, such as ``eth0``.
        values: its properties.
    """

    index: int
    name: str
    values: Mapping[str, str]


def interfaces(values: Mapping[str, str]) -> list[Interface]:
    """Return a container's network interfaces."""
    found = []
    for index in range(32):
        text = values.get(f"net{index}")
        if text is not None:
            properties = parse(text, options.NETWORK)
            found.append(Interface(index, properties.get("name", f"eth{index}"), properties))
    return found


def with_addresses(values: Mapping[str, str]) -> dict[str, str]:
    """Return settings in which each network interface has a hardware address."""
    complete = dict(values)
    for interface in interfaces(values):
        properties = {"name": interface.name, **interface.values}
        properties.setdefault("hwaddr", random_address())
        properties.setdefault("type", "veth")
        complete[f"net{interface.index}"] = render(properties, options.NETWORK)
    return complete


def random_address() -> str:
    """Return a hardware address as Proxmox VE gives them."""
    return VENDOR + "".join(f":{random.randrange(256):02X}" for _ in range(3))


def disk_volume(values: Mapping[str, str]) -> str:
    """Return the volume that is a container's root.

    Raises:
        ClusterError: it has none.
    """
    if "rootfs" not in values:
        raise ClusterError("missing 'rootfs' configuration")
    return parse(values["rootfs"], options.ROOT_DISK)["volume"]


def storage_of_root(node: Node, values: Mapping[str, str]) -> tuple[Storage, str]:
    """Return the storage and the volume of a container's root.

    Raises:
        ClusterError: there is no such storage here.
    """
    from ..storage import of_volume  # noqa: PLC0415 - both layers know of each other

    volume = disk_volume(values)
    return of_volume(node, volume), volume


def hostname(vmid: int, values: Mapping[str, str]) -> str:
    """Return a container's name."""
    return values.get("hostname", f"CT{vmid}")


def assert_one_disk(values: Mapping[str, str]) -> None:
    """Refuse what would be shown and not be there.

    Raises:
        ClusterError: there are mount points or devices.
    """
    for key in values:
        if key.rstrip("0123456789") in ("mp", "dev") and key[-1].isdigit():
            raise ClusterError(
                f"unable to use '{key}' - a container of the lab has one disk and no devices of its node"
            )


def flag(values: Mapping[str, str], key: str) -> bool:
    """Return a setting that is a boolean."""
    return values.get(key, "0") == "1"


def assert_unlocked(config: GuestConfig, *, unless: str | None = None) -> None:
    """Refuse while something works on a container.

    Raises:
        ClusterError: it is locked.
    """
    lock = config.current.values.get("lock")
    if lock and lock != unless:
        raise ClusterError(f"CT is locked ({lock})")
