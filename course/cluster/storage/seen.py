"""Which storages a node sees, and where the disks behind them are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from ...error import ClusterError
from ..config.sections import TypedSection
from ..volume import parse_volume_id
from .base import Storage
from .directory import DirectoryStorage
from .thin import ThinStorage

LOCAL_PATH = "/var/lib/vz"
MOUNTS = "/mnt/pve"
SHARED_PATH = "/mnt/pve/shared"
POOL = ("pve", "data")
FILES = ("dir", "nfs", "cifs")


class State(Protocol):
    """What is needed of `course.cluster.state.State`."""

    @property
    def root(self) -> Path:
        """The state directory."""

    def storages(self) -> Mapping[str, TypedSection]:
        """The sections of ``storage.cfg``."""


class Sees(Protocol):
    """What is needed of a node."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def state(self) -> State:
        """The cluster's files."""


def storages(node: Sees, content: str | None = None) -> dict[str, Storage]:
    """Return the storages that are in use on a node, by name.

    Args:
        node: the node.
        content: only those that may hold this.
    """
    found = {}
    for section in node.state.storages().values():
        if is_on(section, node.name) and section.kind in (*FILES, "lvmthin"):
            storage = make(section, node.state.root, node.name)
            if storage.enabled and (content is None or content in storage.content):
                found[storage.name] = storage
    return found


def storage_of(node: Sees, name: str) -> Storage:
    """Return a storage as a node sees it.

    Raises:
        ClusterError: there is none of that name, it is disabled, or not for this node.
    """
    section = configured(node.state.storages(), name)
    if section.flag("disable"):
        raise ClusterError(f"storage '{name}' is disabled")
    if not is_on(section, node.name):
        raise ClusterError(f"storage '{name}' is not available on node '{node.name}'")
    return make(section, node.state.root, node.name)


def of_volume(node: Sees, volid: str) -> Storage:
    """Return the storage that a volume id names.

    Raises:
        ClusterError: it is no volume id, or the storage is not there.
    """
    return storage_of(node, parse_volume_id(volid)[0])


def configured(sections: Mapping[str, TypedSection], name: str) -> TypedSection:
    """Return a storage's section.

    Raises:
        ClusterError: there is none.
    """
    if name not in sections:
        raise ClusterError(f"storage '{name}' does not exist")
    return sections[name]


def is_on(section: TypedSection, node: str) -> bool:
    """Say whether a storage is meant for a node."""
    return "nodes" not in section.values or node in section.words("nodes")


def make(section: TypedSection, state: Path, node: str) -> Storage:
    """Return the storage of a section.

    Raises:
        ClusterError: the lab has no such kind.
    """
    root = place(section, state, node)
    if section.kind == "lvmthin":
        return ThinStorage(section, root, node)
    return DirectoryStorage(section, root, node)


def place(section: TypedSection, state: Path, node: str) -> Path:
    """Return the directory that stands for a storage's disk.

    Raises:
        ClusterError: the lab has nothing that would stand for it.
    """
    own = state / "nodes" / node
    if section.kind == "lvmthin":
        group, pool = section.values.get("vgname", ""), section.values.get("thinpool", "")
        if (group, pool) != POOL:
            raise ClusterError(f"no such logical volume {group}/{pool}")
        return own / "lvm"
    if section.kind not in FILES:
        raise ClusterError(f"storage type '{section.kind}' is not supported by this lab")
    path = section.values.get("path") or f"{MOUNTS}/{section.name}"
    parts = _parts(path)
    if Path(path).is_relative_to(state / "shared"):
        return Path(path)
    if section.flag("shared") or section.kind != "dir":
        return state / "shared" if path.rstrip("/") == SHARED_PATH else state.joinpath("mounts", *parts)
    if path.rstrip("/") == LOCAL_PATH:
        return own / "vz"
    return own.joinpath("disks", *parts)


def _parts(path: str) -> tuple[str, ...]:
    """Return the parts of an absolute path.

    Raises:
        ClusterError: it is none, or leads up.
    """
    parts = PurePosixPath(path).parts
    if not parts or parts[0] != "/" or ".." in parts or "\0" in path:
        raise ClusterError(f"value '{path}' does not look like a valid storage path")
    return parts[1:]
