"""Names of volumes: ``storage:name``, and what a name means on each kind of storage.

On a storage that keeps files the name is a path of two to four parts that also says what the volume is::

    local:100/vm-100-disk-0.qcow2                         a disk of VM 100
    local:900/base-900-disk-0.raw/100/vm-100-disk-0.raw   a linked clone of template 900's disk
    local:iso/debian-12.iso    local:vztmpl/alpine.tar.zst    local:snippets/user.yaml    local:import/box.ova
    local:backup/vzdump-qemu-100-2026_11_23-10_00_00.vma.zst

On a thin pool there are only disks: ``local-lvm:vm-100-disk-0``. No name may leave its storage: a part of it is never
``..``, empty or hidden, and `Volume.path` is checked once more after it was put together.

Source: volume names in Proxmox VE's storage documentation and pve-storage's regression vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..error import ClusterError, ParameterError

STORAGE = re.compile(r"[a-z][a-z0-9\-_.]*[a-z0-9]", re.IGNORECASE)
DISK_FORMATS = "raw|qcow2|vmdk|subvol"
SAFE = r"[^/\0\s]+"

_DISK = re.compile(rf"(?P<basis>base-)?(?:vm-|subvol-)?{SAFE}?\.(?P<format>{DISK_FORMATS})")
_OWNED = re.compile(r"(?P<vmid>\d+)/(?P<name>\S+)")
_LINKED = re.compile(rf"(?P<basevmid>\d+)/(?P<basename>{SAFE})/(?P<vmid>\d+)/(?P<name>{SAFE})")
_ISO = re.compile(r"iso/(?P<name>[^/\0]+\.(?:iso|img))", re.IGNORECASE)
_TEMPLATE = re.compile(r"vztmpl/(?P<name>[^/\0]+\.tar\.(?:gz|xz|zst|bz2))")
_ROOTDIR = re.compile(r"rootdir/(?P<name>\d+)")
_BACKUP = re.compile(r"backup/(?P<name>[^/\0]+?\.(?:tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?))")
_SNIPPET = re.compile(r"snippets/(?P<name>[^/\0]+)")
_IMPORT = re.compile(r"import/(?P<name>[^/\0]+\.(?P<format>ova|ovf|raw|qcow2|vmdk))")
_IMPORT_INSIDE = re.compile(r"import/(?P<name>[^/\0]+\.ova/[^/\0]+\.(?P<format>raw|qcow2|vmdk))")
_THIN = re.compile(r"(?:(?P<basename>base-(?P<basevmid>\d+)-[^/\s]+)/)?(?P<name>(?:vm|base)-(?P<vmid>\d+)-[^/\s]+)")
_OF_BACKUP = re.compile(r"vzdump-(?:openvz|lxc|qemu)-(?P<vmid>\d+)-")

FOLDERS = {
    "images": "images",
    "rootdir": "private",
    "iso": "template/iso",
    "vztmpl": "template/cache",
    "backup": "dump",
    "snippets": "snippets",
    "import": "import",
}
"""Where a directory storage keeps each kind of content, below its own path."""


@dataclass(frozen=True, slots=True)
class Volume:
    """What the name of a volume says.

    Attributes:
        content: images, rootdir, iso, vztmpl, backup, snippets or import.
        name: the last part, a file's or a logical volume's name.
        vmid: whose it is; None where nobody owns it.
        basename: of a linked clone, the disk that it was cloned from.
        basevmid: that disk's owner.
        is_base: whether it is a template's own disk.
        format: raw, qcow2, vmdk, subvol, or of imports ova, ovf, ova+vmdk ...
    """

    content: str
    name: str
    vmid: int | None = None
    basename: str | None = None
    basevmid: int | None = None
    is_base: bool = False
    format: str = "raw"

    def path(self, root: Path) -> Path:
        """Return where a directory storage keeps it.

        Args:
            root: the storage's own directory.

        Raises:
            ClusterError: the name would lead out of the storage.
        """
        folder = root / FOLDERS[self.content]
        if self.content == "images":
            folder /= str(self.vmid)
        place = folder / self.name
        # Lexically first, then with links followed: neither may lead out.
        if ".." in place.relative_to(root).parts or not place.resolve().is_relative_to(root.resolve()):
            raise ClusterError(f"unable to parse directory volume name '{self.content}/{self.name}'")
        return place


def parse_volume_id(text: str) -> tuple[str, str]:
    """Split ``storage:name``.

    Raises:
        ClusterError: it is no volume id; the words are Proxmox VE's.
    """
    storage, colon, name = text.partition(":")
    if not colon or not name or not STORAGE.fullmatch(storage):
        raise ClusterError(f"unable to parse volume ID '{text}'")
    return storage, name


def parse_directory_name(name: str) -> Volume:
    """Read a volume's name on a storage that keeps files (dir, nfs, cifs).

    Args:
        name: what follows the colon of a volume id.

    Raises:
        ClusterError: it is no such name, or a part of it would lead out of the storage.
    """
    if not _stays_inside(name):
        raise _not_of_a_directory(name)
    if found := _LINKED.fullmatch(name):
        return _linked(found)
    if found := _OWNED.fullmatch(name):
        disk = _disk(found["name"])
        return Volume("images", found["name"], int(found["vmid"]), is_base=bool(disk["basis"]), format=disk["format"])
    return _of_a_folder(name)


def parse_thin_name(name: str) -> Volume:
    """Read a volume's name on a thin pool, or on another storage that keeps block devices.

    Raises:
        ClusterError: it is no such name.
    """
    found = _THIN.fullmatch(name) if _stays_inside(name) else None
    if found is None:
        raise ClusterError(f"unable to parse lvm volume name '{name}'")
    return Volume(
        "images",
        found["name"],
        int(found["vmid"]),
        basename=found["basename"],
        basevmid=int(found["basevmid"]) if found["basevmid"] else None,
        is_base=found["name"].startswith("base-"),
    )


def check_file_name(name: str, content: str) -> str:
    """Return the name that an uploaded file is kept under.

    Blanks become underscores, as Proxmox VE does; the last part of a path is taken, whatever the client sent before.

    Args:
        name: what the client calls it.
        content: iso, vztmpl or import.

    Raises:
        ParameterError: the name's end does not fit the content, or nothing is left of the name.
    """
    kept = re.sub(r"[^-a-zA-Z0-9_.]", "_", re.split(r"[/\\]", name)[-1])
    kinds = {"iso": _ISO, "vztmpl": _TEMPLATE, "import": _IMPORT}
    if content not in kinds:
        raise ParameterError({"content": f"upload content type '{content}' not allowed"})
    if kept.startswith(".") or not kinds[content].fullmatch(f"{content}/{kept}"):
        raise ParameterError({"filename": "wrong file extension"})
    return kept


def _stays_inside(name: str) -> bool:
    """Say whether no part of the name is empty, hidden or a way up."""
    return "\0" not in name and all(part and not part.startswith(".") for part in name.split("/"))


def _disk(name: str) -> re.Match[str]:
    """Read the file name of a disk."""
    found = _DISK.fullmatch(name)
    if found is None:
        raise ClusterError(f"unable to parse volume filename '{name}'")
    return found


def _linked(found: re.Match[str]) -> Volume:
    """Read a linked clone."""
    _disk(found["basename"])
    disk = _disk(found["name"])
    return Volume(
        "images",
        found["name"],
        int(found["vmid"]),
        basename=found["basename"],
        basevmid=int(found["basevmid"]),
        is_base=bool(disk["basis"]),
        format=disk["format"],
    )


def _of_a_folder(name: str) -> Volume:
    """Read a name whose first part says what kind of content it is."""
    for content, pattern in (("iso", _ISO), ("vztmpl", _TEMPLATE), ("snippets", _SNIPPET)):
        if found := pattern.fullmatch(name):
            return Volume(content, found["name"])
    if found := _ROOTDIR.fullmatch(name):
        return Volume("rootdir", found["name"], int(found["name"]))
    if found := _BACKUP.fullmatch(name):
        owner = _OF_BACKUP.match(found["name"])
        return Volume("backup", found["name"], int(owner["vmid"]) if owner else None)
    if found := _IMPORT.fullmatch(name):
        return Volume("import", found["name"], format=found["format"])
    if found := _IMPORT_INSIDE.fullmatch(name):
        return Volume("import", found["name"], format=f"ova+{found['format']}")
    raise _not_of_a_directory(name)


def _not_of_a_directory(name: str) -> ClusterError:
    return ClusterError(f"unable to parse directory volume name '{name}'")
