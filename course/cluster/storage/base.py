"""A storage of a node: volumes that are allocated, copied, snapshotted and removed.

::

    storage.cfg section ──▶ Storage ──▶ DirectoryStorage   files below images/, template/, dump/, …   (dir, nfs, cifs)
                                    └─▶ ThinStorage        volumes of a thin pool, disks only          (lvmthin)

Source: chapter "Proxmox VE Storage" of the administration guide; words of errors as administrators quote them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from ...error import ClusterError
from ..config import files
from ..volume import Volume
from . import images, limits, room, trees
from .catalogue import Catalogue, Log
from .images import CheckStop, Progress


class Storage(Catalogue):
    """One storage as one node sees it."""

    # ── making and removing ─────────────────────────────────────────────────────────────────────────────────────────

    def alloc(
        self,
        vmid: int,
        format: str,
        size_bytes: int,
        name: str | None = None,
        *,
        purpose: str = "disk",
        log: Log | None = None,
    ) -> str:
        """Make an empty volume.

        Args:
            vmid: whose.
            format: one of `formats`.
            size_bytes: the size that a guest sees.
            name: the volume's own name, such as ``vm-169-disk-3.raw``; None for the first free number.
            purpose: of a volume without a number, such as ``state-before``; ``disk`` for a numbered one.
            log: is told what was made, as the program that makes it would say.

        Returns:
            Its volume id.

        Raises:
            ClusterError: the name is taken or wrong, the format is not supported, or there is no room.
        """
        if format not in self.formats:
            raise ClusterError(f"unsupported format '{format}'")
        if name is not None:
            self._check_name(name, vmid, format)
        with self._new(vmid, format, name, purpose) as draft:
            self._check_room(draft.volume, format, size_bytes)
            self._make(draft.path, format, size_bytes)
        if format == "subvol" and size_bytes:
            trees.set_size(self.place(draft.volume), size_bytes)
        if log:
            log(self._made(draft.volume, size_bytes))
        return self.volid(draft.volume)

    def _make(self, fresh: Path, format: str, size: int) -> None:
        """Make an empty volume under a hidden name."""
        if format == "subvol":
            fresh.mkdir(mode=0o755)
        else:
            images.create(fresh, self._driver_for(format), size)

    def free(self, volid: str, log: Log | None = None) -> None:
        """Remove a volume and all that belongs to it.

        Raises:
            ClusterError: it is not there, or linked clones need it.
        """
        with self.lock():
            volume, path = self.existing(volid)
            if volume.is_base:
                self._check_unused(volume)
            if path.is_dir() and not path.is_symlink():
                trees.remove(path, self._prefix())
            else:
                path.unlink()
        for rest in self._belongings(path):
            rest.unlink(missing_ok=True)
        shutil.rmtree(trees.kept(path), ignore_errors=True)
        self._tidy(path.parent)
        room.forget(self.root)
        words = self._removed(volume)
        if log and words:
            log(words)

    def _belongings(self, path: Path) -> list[Path]:
        """Return the files that go with a volume."""
        return [trees.sidecar(path)]

    def _tidy(self, folder: Path) -> None:
        """Remove a guest's directory that has become empty."""
        for empty in (folder / trees.SNAPSHOTS, folder):
            if folder.parent.name == "images":
                with contextlib.suppress(OSError):
                    empty.rmdir()

    def _check_unused(self, base: Volume) -> None:
        """Refuse to remove a template's disk while a linked clone reads from it."""
        for other in self.disks():
            if other.basename == base.name and other.basevmid == base.vmid:
                raise ClusterError(f"base volume '{self._name(base)}' is still in use (use by '{self._name(other)}')")

    def create_base(self, volid: str) -> str:
        """Make a disk a template's, which is never written again; returns its new id.

        Raises:
            ClusterError: it is one already, or its name is taken.
        """
        with self.lock():
            volume, path = self.existing(volid)
            if volume.is_base:
                raise ClusterError(f"create_base not possible with base image '{self._name(volume)}'")
            name = self._renamed(volume, volume.name.replace("vm-", "base-", 1).replace("subvol-", "basevol-", 1))
            return self._rename(volume, path, self.parse(name))

    def rename(self, volid: str, vmid: int, name: str | None = None) -> str:
        """Give a disk to another guest, under the first free number or a given name; returns its new id.

        Raises:
            ClusterError: it is a template's, or the name is taken.
        """
        with self.lock():
            volume, path = self.existing(volid)
            if volume.is_base:
                raise ClusterError(f"cannot rename base volume '{volid}'")
            format = self.format(volid)
            base = self._base_of(volume)
            whole = self.name_for(vmid, self._free_word(vmid), format, base)
            if name is not None:
                self._check_name(name, vmid, format)
                whole = self._renamed(self.parse(whole), name)
            return self._rename(volume, path, self.parse(whole))

    def _rename(self, volume: Volume, path: Path, new: Volume) -> str:
        target = self.place(new)
        if os.path.lexists(target):
            raise ClusterError(f"target volume '{self.volid(new)}' already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        trees.kept(target).parent.mkdir(exist_ok=True)
        for part in (trees.sidecar, trees.kept, lambda whole: whole):
            if os.path.lexists(part(path)):
                part(path).rename(part(target))
        files.sync_directory(target.parent)
        self._tidy(path.parent)
        return self.volid(new)

    def clone_linked(self, volid: str, vmid: int, log: Log | None = None) -> str:
        """Make a disk that reads from a template's disk what it has not been written itself.

        Raises:
            ClusterError: the disk is no template's.
        """
        volume, path = self.existing(volid)
        if not self.has_feature("clone", volid):
            raise ClusterError(f"clone_image only works on base images ('{volid}' is none)")
        driver = self.driver_of(volume, path)
        with self._new(vmid, self._clone_format(), None, "disk", base=volume) as draft:
            # The hidden file is in the clone's own directory, so the base's relative name stays right.
            images.create(draft.path, "qcow2", images.virtual_size(path, driver), backing=path, backing_format=driver)
        if log:
            log(f"clone {volume.name}: vm-{vmid}-disk as {self.volid(draft.volume)}")
        return self.volid(draft.volume)

    def copy(
        self,
        volid: str,
        target: Storage,
        vmid: int,
        *,
        format: str | None = None,
        name: str | None = None,
        snapshot: str | None = None,
        progress: Progress | None = None,
        check_stop: CheckStop | None = None,
    ) -> str:
        """Write a disk's content to a new volume; no machine may be writing to the disk.

        Args:
            volid: the disk.
            target: the storage of the new one.
            vmid: the new one's owner.
            format: of the new one; None for the same where the target can, else the target's usual one.
            name: as in `alloc`.
            snapshot: copy the disk as it was then.
            progress: is told how far it is, in bytes.
            check_stop: raises when it is to stop; nothing of the new one stays then.

        Raises:
            ClusterError: it is not there, or there is no room.
        """
        volume, path = self.existing(volid)
        driver = self.driver_of(volume, path)
        wanted = format or self.format(volid)
        chosen = wanted if wanted in target.formats else target.default_format
        if name is not None:
            target._check_name(name, vmid, chosen)
        with target._new(vmid, chosen, name, "disk") as draft:
            if driver == "subvol":
                trees.copy(trees.at(path, snapshot), draft.path)
            else:
                size = images.virtual_size(path, driver)
                target._check_room(draft.volume, chosen, size, written=images.allocated(path))
                images.convert(
                    path, driver, draft.path, target._driver_for(chosen),
                    snapshot=snapshot, progress=progress, check_stop=check_stop,
                )  # fmt: skip
        if driver == "subvol" and trees.size(path):
            trees.set_size(target.place(draft.volume), trees.size(path))
        return target.volid(draft.volume)

    def import_image(
        self,
        source: Path,
        driver: str,
        vmid: int,
        *,
        format: str | None = None,
        name: str | None = None,
        progress: Progress | None = None,
        check_stop: CheckStop | None = None,
    ) -> str:
        """Make a disk with the content of an image that is on no storage.

        Args:
            source: the image.
            driver: its format, raw or qcow2.
            vmid: the disk's owner.
            format: the disk's format; None for the storage's usual one.
            name: as in `alloc`.
            progress: is told how far it is.
            check_stop: raises when it is to stop.
        """
        chosen = format if format in self.formats else self.default_format
        if name is not None:
            self._check_name(name, vmid, chosen)
        with self._new(vmid, chosen, name, "disk") as draft:
            size = images.virtual_size(source, driver)
            self._check_room(draft.volume, chosen, size, written=images.allocated(source))
            kind = self._driver_for(chosen)
            images.convert(source, driver, draft.path, kind, progress=progress, check_stop=check_stop)
        return self.volid(draft.volume)

    # ── snapshots and sizes of disks that no machine uses ───────────────────────────────────────────────────────────

    def snapshot(self, volid: str, name: str) -> None:
        """Keep a disk as it is now.

        Raises:
            ClusterError: its format keeps none.
        """
        volume, path = self.existing(volid)
        match self.driver_of(volume, path):
            case "qcow2":
                images.snapshot(path, "-c", name)
            case "subvol":
                trees.snapshot(path, name, self._prefix())
            case _:
                raise ClusterError(f"can't snapshot this image format ({self.format(volid)})")

    def rollback(self, volid: str, name: str) -> None:
        """Bring a disk back to a snapshot."""
        volume, path = self.existing(volid)
        if self.driver_of(volume, path) == "subvol":
            trees.rollback(path, name, self._prefix())
        else:
            images.snapshot(path, "-a", name)

    def delete_snapshot(self, volid: str, name: str) -> None:
        """Remove a snapshot of a disk."""
        volume, path = self.existing(volid)
        if self.driver_of(volume, path) == "subvol":
            trees.delete(path, name)
        else:
            images.snapshot(path, "-d", name)
        room.forget(self.root)

    def snapshots(self, volid: str) -> list[str]:
        """Return the names of a disk's snapshots, in the order in which they were made."""
        volume, path = self.existing(volid)
        driver = self.driver_of(volume, path)
        if driver == "subvol":
            return trees.names(path)
        return [str(entry["name"]) for entry in images.info(path, driver).get("snapshots", [])]

    def resize(self, volid: str, size_bytes: int) -> None:
        """Give a disk that no machine uses another size.

        Raises:
            ClusterError: it is a snapshotted image's smaller size, or there is no room.
        """
        volume, path = self.existing(volid)
        driver = self.driver_of(volume, path)
        if driver == "subvol":
            trees.set_size(path, size_bytes)
            return
        self._check_room(volume, driver, size_bytes - self._size(volume, path))
        images.resize(path, driver, size_bytes)
        room.forget(self.root)

    def has_feature(self, feature: str, volid: str, snapshot: str | None = None, running: bool = False) -> bool:
        """Say whether something can be done with a disk.

        Args:
            feature: snapshot, clone, template, copy, sparseinit or rename.
            volid: the disk.
            snapshot: with this snapshot of it.
            running: while a machine uses it.
        """
        volume = self.volume(volid)
        if feature == "rename" and running:
            return False
        state = "snap" if snapshot else "base" if volume.is_base else "current"
        return self.format(volid) in self.features.get(feature, {}).get(state, frozenset())

    # ── how far a running machine may write ─────────────────────────────────────────────────────────────────────────

    def limit_of(self, volid: str) -> int | None:
        """Return how many bytes long a disk's file may become now; None when its file does not grow.

        See `limits`.
        """
        volume, path = self.existing(volid)
        return limits.limit(path, self.status()) if self.driver_of(volume, path) == "qcow2" else None

    def layers(self, volid: str, node_name: str, **options: Any) -> dict[str, Any]:
        """Return the block device that a machine opens, with the layer that ends where the storage does.

        See `limits.layers`.
        """
        volume, path = self.existing(volid)
        return limits.layers(path, self.driver_of(volume, path), self.status(), node_name, **options)

    def widen(self, volid: str, node_name: str, execute: limits.Execute) -> None:
        """Tell a running machine how far it may write now, after room was freed or taken.

        Args:
            volid: the disk.
            node_name: as given to `layers`.
            execute: executes a QMP command with its arguments.
        """
        volume, path = self.existing(volid)
        if self.driver_of(volume, path) == "qcow2":
            limits.widen(path, self.status(), node_name, execute)
