"""Archives of machines: raw disks and a configuration into one file, and out of it again.

An archive has its name when it is whole. Until then it is hidden on the backup storage, with the copies of the disks.

The configuration in it is the machine's own, without changes that wait and without snapshots, and a line for each disk
that tells where the disk was: ``#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...error import ClusterError
from ..config.guest import GuestConfig
from . import packing, vma
from .copying import Disk

CONFIG = "qemu-server.conf"
FIREWALL = "qemu-server.fw"
NAME = re.compile(
    r"vzdump-(?P<type>qemu|lxc)-(?P<vmid>\d+)-(?P<time>\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d)\.(?P<ending>(?:vma|tar)(?:\.\w+)?|tgz)"
)
_MAP = re.compile(r"#qmdump#map:(?P<key>\S+):(?P<device>\S+):(?P<storage>\S*):(?P<format>\S*):\s*")
_LEFT_OUT = re.compile(r"#vzdump#|#qmdump#|lock:|parent:|vmstate:|running(?:machine|cpu):|snaptime:")
_SCAN = 64 * vma.CLUSTER


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where a disk of an archive was.

    Attributes:
        key: such as ``scsi0``.
        device: its name in the archive.
        storage: the storage that it was on.
        format: that it had there.
    """

    key: str
    device: str
    storage: str
    format: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the disks.

    Attributes:
        total: bytes that guests see.
        stored: bytes that are in the archive.
    """

    total: int
    stored: int


def name_of(kind: str, vmid: int, moment: float, ending: str) -> str:
    """Return the file name of a backup: its time is the node's local time."""
    stamp = time.strftime("%Y_%m_%d-%H_%M_%S", time.localtime(moment))
    return f"vzdump-{kind}-{vmid}-{stamp}.{ending}"


def configuration(config: GuestConfig, disks: Sequence[Disk]) -> str:
    """Return the configuration that goes into an archive."""
    section = config.current.copy()
    for key in ("lock", "parent"):
        section.values.pop(key, None)
    maps = [f"#qmdump#map:{disk.key}:{disk.name}:{disk.volid.partition(':')[0]}:{disk.format}:\n" for disk in disks]
    return section.text() + "".join(maps)


def write(
    path: Path,
    disks: Sequence[Disk],
    folder: Path,
    *,
    ending: str,
    config: str,
    firewall: str,
    moment: float,
    check_stop: Callable[[], None],
) -> Written:
    """Write an archive.

    Args:
        path: the file to make.
        disks: which.
        folder: where their raw copies are.
        ending: of its compression.
        config: the machine's configuration.
        firewall: its firewall's file; empty for none.
        moment: that the backup shows.
        check_stop: raises when it is to stop.
    """
    configs = {CONFIG: config.encode("utf-8", "surrogateescape")}
    if firewall:
        configs[FIREWALL] = firewall.encode("utf-8", "surrogateescape")
    with packing.writing(path, ending) as file:
        devices = [(disk.name, disk.size) for disk in disks]
        writer = vma.Writer(file, configs, devices, ctime=int(moment))
        for number, disk in enumerate(disks, 1):
            for cluster, data in _clusters(folder / f"{disk.key}.copy", disk.size):
                if cluster % 64 == 0:
                    check_stop()
                writer.write(number, cluster, data)
        writer.close()
    return Written(sum(disk.size for disk in disks), writer.stored)


def _clusters(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield each cluster of a raw file; holes are not read."""
    with path.open("rb") as file:
        for begin in range(0, size, _SCAN):
            length = min(_SCAN, size - begin)
            data = b""
            if not _is_hole(file.fileno(), begin, length):
                file.seek(begin)
                data = file.read(length)
            for at in range(0, length, vma.CLUSTER):
                yield (begin + at) // vma.CLUSTER, data[at : at + vma.CLUSTER]


def _is_hole(handle: int, begin: int, length: int) -> bool:
    """Say whether a file has nothing in a range."""
    try:
        return os.lseek(handle, begin, os.SEEK_DATA) >= begin + length
    except OSError:  # nothing but a hole is left
        return True


def maps_of(config: str) -> dict[str, Mapping]:
    """Return where the disks of an archive were, by their names in it."""
    found = {}
    for line in config.splitlines():
        if match := _MAP.fullmatch(line):
            found[match["device"]] = Mapping(match["key"], match["device"], match["storage"], match["format"])
    return found


def restored(config: str, volumes: dict[str, str], rename: dict[str, str] | None = None) -> str:
    """Return an archive's configuration with the disks that were made of it.

    A disk that is not in the archive stays as a comment: nobody made it, and its old volume belongs to the old machine.

    Args:
        config: from the archive.
        volumes: new volume ids by drive.
        rename: other values by key, such as a new ``net0``.
    """
    lines = []
    for line in config.splitlines():
        key, colon, rest = line.partition(":")
        if _LEFT_OUT.match(line) or re.fullmatch(r"unused\d+", key):
            continue
        if rename and colon and key in rename:
            lines.append(f"{key}: {rename[key]}")
        elif re.fullmatch(r"(?:ide|sata|scsi|virtio|efidisk|tpmstate)\d+", key) and colon:
            lines.append(_drive_line(key, rest.strip(), volumes, line))
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _drive_line(key: str, value: str, volumes: dict[str, str], line: str) -> str:
    volume, comma, options = value.partition(",")
    if key in volumes:
        return f"{key}: {volumes[key]}{comma}{options}"
    is_cd = "media=cdrom" in options.split(",")
    return line if is_cd or volume in ("none", "cdrom") else f"#{line}"


def read_config(path: Path) -> str:
    """Return the configuration in an archive of a machine.

    Raises:
        ClusterError: there is none, or it is no archive.
    """
    with packing.reading(path) as file:
        configs = vma.Reader(file).header.configs
    if CONFIG not in configs:
        raise ClusterError("unable to find configuration file in vma archive")
    return configs[CONFIG].decode("utf-8", "surrogateescape")
