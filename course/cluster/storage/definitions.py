"""What may stand in ``storage.cfg``, and changing it.

Every property of the API is known here, so that a call is checked as on a real cluster; the lab has three kinds of
storages to put behind them (`seen`), and refuses the others when they are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, ParameterError
from .. import formats
from ..config import files, sections
from ..config.sections import TypedSection
from ..declaration import Parameter
from ..options import choice, flag, number, text
from . import seen

if TYPE_CHECKING:
    from ..state import State

TYPES = "btrfs cephfs cifs dir glusterfs iscsi iscsidirect lvm lvmthin nfs pbs rbd zfs zfspool"
FLAGS = ("shared", "disable", "nocow", "krbd", "sparse", "nowritecache", "saferemove", "tagged_only", "fuse")
_LIMIT = number(0, kind="number")
_LIMITS = dict.fromkeys(("clone", "default", "migration", "move", "restore"), _LIMIT)

CHANGEABLE: dict[str, Parameter] = {
    "blocksize": text(),
    "bwlimit": text(_LIMITS),
    "comstar_hg": text(),
    "comstar_tg": text(),
    "content": text("pve-storage-content-list"),
    "content-dirs": text("pve-dir-override-list"),
    "create-base-path": Parameter(type="boolean", optional=True, default="yes"),
    "create-subdirs": Parameter(type="boolean", optional=True, default="yes"),
    "data-pool": text(),
    "disable": flag(),
    "domain": text(longest=256),
    "encryption-key": text(),
    "fingerprint": text(pattern="([A-Fa-f0-9]{2}:){31}[A-Fa-f0-9]{2}"),
    "format": text("pve-storage-format"),
    "fs-name": text("pve-configid"),
    "fuse": flag(),
    "is_mountpoint": text(default="no"),
    "keyring": text(),
    "krbd": flag(),
    "lio_tpg": text(),
    "master-pubkey": text(),
    "max-protected-backups": number(
        -1, default="Unlimited for users with Datastore.Allocate privilege, 5 for other users"
    ),
    "maxfiles": number(0),
    "mkdir": Parameter(type="boolean", optional=True, default="yes"),
    "monhost": text("pve-storage-portal-dns-list"),
    "mountpoint": text("pve-storage-path"),
    "namespace": text(),
    "nocow": flag(0),
    "nodes": text("pve-node-list"),
    "nowritecache": flag(),
    "options": text("pve-storage-options"),
    "password": text(longest=256),
    "pool": text(),
    "port": number(1, 65535, 8007),
    "preallocation": choice("off metadata falloc full", "metadata"),
    "prune-backups": text("prune-backups"),
    "saferemove": flag(),
    "saferemove_throughput": text(),
    "server": text("pve-storage-server"),
    "server2": Parameter(format="pve-storage-server", optional=True, requires="server"),
    "shared": flag(),
    "smbversion": choice("default 2.0 2.1 3 3.0 3.11", "default"),
    "sparse": flag(),
    "subdir": text("pve-storage-path"),
    "tagged_only": flag(),
    "transport": choice("tcp rdma unix"),
    "username": text(),
}
FIXED: dict[str, Parameter] = {
    "authsupported": text(),
    "base": text("pve-volume-id"),
    "datastore": text(),
    "export": text("pve-storage-path"),
    "iscsiprovider": text(),
    "path": text("pve-storage-path"),
    "portal": text("pve-storage-portal-dns"),
    "share": text(),
    "target": text(),
    "thinpool": text("pve-storage-vgname"),
    "vgname": text("pve-storage-vgname"),
    "volume": text(),
}
NEEDED = {
    "dir": ("path",),
    "nfs": ("server", "export"),
    "cifs": ("server", "share"),
    "lvmthin": ("vgname", "thinpool"),
}
_COMMON = {"content", "disable", "nodes", "bwlimit"}
_OF_FILES = {
    "content-dirs", "create-base-path", "create-subdirs", "format", "max-protected-backups", "maxfiles", "mkdir",
    "preallocation", "prune-backups", "shared",
}  # fmt: skip
ALLOWED = {
    "dir": _COMMON | _OF_FILES | {"path", "is_mountpoint"},
    "nfs": _COMMON | _OF_FILES | {"path", "server", "export", "options"},
    "cifs": _COMMON | _OF_FILES | {"path", "server", "share", "subdir", "domain", "username", "password", "smbversion"},
    "lvmthin": _COMMON | {"vgname", "thinpool"},
}
CONTENT = {
    "dir": {"images", "rootdir", "iso", "vztmpl", "backup", "snippets", "none"},
    "lvmthin": {"images", "rootdir"},
}
_DEFAULT_CONTENT = {"dir": "images,rootdir,vztmpl,iso,backup,snippets", "lvmthin": "images,rootdir"}


@contextlib.contextmanager
def changing(state: State, action: str, digest: str | None = None) -> Iterator[dict[str, TypedSection]]:
    """Change ``storage.cfg``: what the block leaves in the sections is written.

    Args:
        state: the cluster's files.
        action: begins an error: create, update or delete.
        digest: of the file that the caller saw.

    Raises:
        ClusterError: somebody else changed the file, or the block raised.
    """
    try:
        with state.lock("file-storage_cfg"):
            before = state.read("storage.cfg")
            files.assert_unchanged(files.digest(before), digest)
            found = sections.parse(before, whose="storage.cfg")
            yield found
            state.write("storage.cfg", sections.render(found.values(), flags=FLAGS))
    except ParameterError:
        raise
    except ClusterError as error:
        raise ClusterError(f"{action} storage failed: {error.message}") from error


def new_section(kind: str, name: str, values: Mapping[str, Any]) -> TypedSection:
    """Return the section of a new storage.

    Raises:
        ParameterError: something is missing, or does not belong to this kind.
        ClusterError: the lab has no such kind.
    """
    if kind not in ALLOWED:
        raise ClusterError(f"storage type '{kind}' is not supported by this lab")
    errors = {key: "property is missing and it is not optional" for key in NEEDED[kind] if key not in values}
    errors |= {key: f"unexpected property '{key}'" for key in values if key not in ALLOWED[kind]}
    if errors:
        raise ParameterError(errors)
    section = TypedSection(kind, name)
    for key in NEEDED[kind]:
        section.values[key] = str(values[key])
    kept = _DEFAULT_CONTENT.get(kind, _DEFAULT_CONTENT["dir"])
    section.values["content"] = _content(kind, str(values.get("content", kept)))
    if kind in ("nfs", "cifs"):
        section.values["path"] = f"{seen.MOUNTS}/{name}"
    _take(section, {key: value for key, value in values.items() if key not in section.values})
    return section


def change_section(section: TypedSection, values: Mapping[str, Any], deleted: str = "") -> None:
    """Change a storage's section.

    Raises:
        ParameterError: a property does not belong to this kind, or cannot be removed.
    """
    allowed = ALLOWED.get(section.kind, set())
    errors = {key: f"unexpected property '{key}'" for key in values if key not in allowed}
    removed = formats.split_list(deleted)
    for key in removed:
        if key in NEEDED[section.kind] or key not in CHANGEABLE:
            errors["delete"] = f"unable to delete required option '{key}'"
    if errors:
        raise ParameterError(errors)
    for key in removed:
        section.values.pop(key, None)
    if "content" in values:
        section.values["content"] = _content(section.kind, str(values["content"]))
    _take(section, {key: value for key, value in values.items() if key != "content"})


def _take(section: TypedSection, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key in FLAGS and not value:
            section.values.pop(key, None)
        elif key == "nodes":
            section.values[key] = ",".join(formats.split_list(str(value)))
        elif key != "password":
            section.values[key] = str(value)


def _content(kind: str, asked: str) -> str:
    """Return a list of contents as the file has it.

    Raises:
        ParameterError: a storage of this kind cannot hold it.
    """
    words = formats.split_list(asked)
    known = CONTENT.get(kind, CONTENT["dir"])
    for word in words:
        if word not in known:
            raise ParameterError({"content": f"storage does not support content type '{word}'"})
    return ",".join(dict.fromkeys(words))


def record(section: TypedSection, digest: str) -> dict[str, Any]:
    """Return a storage's section as the API answers it."""
    entry: dict[str, Any] = {"storage": section.name, "type": section.kind, "digest": digest}
    for key, value in section.values.items():
        entry[key] = int(value) if key in _NUMBERS and value.lstrip("-").isdigit() else value
    entry["content"] = ",".join(sorted(section.words("content")))
    return entry


_NUMBERS = {name for name, declared in CHANGEABLE.items() if declared.type in ("integer", "boolean")}
