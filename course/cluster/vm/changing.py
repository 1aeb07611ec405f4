"""Changing a machine's configuration: at once where that is possible, else with its next start.

Every change goes to ``[PENDING]`` first. Then a stopped machine takes all of it; a running one takes what can be
plugged, and the rest waits. What fails on the way stays in ``[PENDING]`` and is reported by its setting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...error import ClusterError, ParameterError
from ..config.guest import GuestConfig
from ..storage import of_volume
from . import allocation, creation, hardware
from .hotplug import NotNow, Plugger

if TYPE_CHECKING:
    from ..node import Node

Log = Callable[[str], None]
_NEVER = ("parent", "lock", "digest", "snapstate", "vmstate", "meta")


@dataclass(slots=True)
class Wish:
    """What a client wants changed.

    Attributes:
        settings: normalized new values.
        delete: settings that go.
        revert: pending changes that are dropped.
        digest: of the configuration that the client saw.
        force: remove the volumes of deleted drives.
        skiplock: whether a lock does not matter.
    """

    settings: dict[str, str] = field(default_factory=dict)
    delete: list[str] = field(default_factory=list)
    revert: list[str] = field(default_factory=list)
    digest: str | None = None
    force: bool = False
    skiplock: bool = False

    def check(self) -> None:
        """Refuse wishes that contradict themselves.

        Raises:
            ParameterError: in Proxmox VE's words.
        """
        for key in self.delete:
            if key in self.settings:
                raise ParameterError({"delete": f"you can't use '-{key}' and -delete {key}' at the same time"})
            if key in self.revert:
                raise ParameterError({"revert": f"you can't use '-delete {key}' and '-revert {key}' at the same time"})
        for key in self.revert:
            if key in self.settings:
                raise ParameterError({"revert": f"you can't use '-{key}' and '-revert {key}' at the same time"})


def words(text: str | None) -> list[str]:
    """Read a list of settings."""
    return [word for word in re.split(r"[,;\s\0]+", text or "") if word]


def change(node: Node, vmid: int, wish: Wish, log: Log) -> None:
    """Change a machine's configuration.

    Raises:
        ClusterError: it is locked, changed meanwhile, or a drive cannot be made; nothing was changed.
        ParameterError: some of the changes wait, because plugging them failed.
    """
    wish.check()
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        config.assert_unchanged(wish.digest)
        if not wish.skiplock:
            config.assert_unlocked()
        Changer(node, vmid, config, log).change(wish)
    node.statistics.changed()


class Changer:
    """Changes one configuration, whose lock the caller holds."""

    def __init__(self, node: Node, vmid: int, config: GuestConfig, log: Log) -> None:
        self.node = node
        self.vmid = vmid
        self.config = config
        self.log = log
        self.errors: dict[str, str] = {}

    @property
    def _values(self) -> dict[str, str]:
        return self.config.current.values

    def change(self, wish: Wish) -> None:
        """Do what is wished."""
        self._check(wish)
        made = allocation.make(self.node, self.vmid, wish.settings, self.log)
        settings = wish.settings | made.settings
        creation.give_macs(settings)
        self._to_pending(settings, wish)
        try:
            hardware.assert_boot_order(self.config.merged())
        except ClusterError:
            made.undo(self.node, self.log)
            raise
        running = self.node.guests.get(self.vmid)
        if running is None:
            self.apply_all()
        else:
            self.hotplug(Plugger(self.node, running, self._values))
        if self.errors:
            self.node.state.save_guest(self.node.name, "qemu", self.vmid, self.config)
            raise ParameterError(self.errors)

    def _check(self, wish: Wish) -> None:
        merged = self.config.merged() | wish.settings
        memory, balloon = hardware.memory_mib(merged), int(merged.get("balloon") or 0)
        if {"memory", "balloon"} & wish.settings.keys() and balloon > memory:
            raise ClusterError("balloon value too large (must be smaller than assigned memory)")
        for key in wish.delete:
            if key in _NEVER and key != "lock":
                raise ParameterError({"delete": f"unable to delete '{key}'"})
        if hardware.flag(self._values, "protection"):
            for key in (*wish.delete, *wish.settings):
                old = self._values.get(key)
                if old and hardware.is_drive_key(key) and hardware.drive(key, old).is_disk and (
                    key in wish.delete or hardware.drive(key, wish.settings[key]).volume
                    != hardware.drive(key, old).volume
                ):  # fmt: skip
                    raise ClusterError(f"can't remove drive '{key}' - protection mode enabled")
        if hardware.flag(self._values, "template"):
            for key in (*wish.delete, *wish.settings):
                old = self._values.get(key)
                if old and hardware.is_drive_key(key) and hardware.drive(key, old).is_disk:
                    raise ClusterError(f"unable to modify drive '{key}' - it is part of a template")

    def _to_pending(self, settings: Mapping[str, str], wish: Wish) -> None:
        gone = self.config.pending_deletes()
        pending = self.config.pending.values
        for key in wish.revert:
            self._drop_pending(key)
            gone.pop(key, None)
        for key in wish.delete:
            self._drop_pending(key)
            if key == "description":
                self.config.current.description = None
            elif key in self._values:
                gone[key] = wish.force
            elif not key.startswith("unused"):
                self.log(f"cannot delete '{key}' - not set in current configuration!")
        for key, value in settings.items():
            gone.pop(key, None)
            if key == "description":
                self.config.current.description = value + "\n" if value else None
            elif self._values.get(key) == value:
                self._drop_pending(key)
            else:
                self._drop_pending(key)
                pending[key] = value
        self._set_deletes(gone)

    def _drop_pending(self, key: str) -> None:
        """Forget a pending value; a volume that was made for it is kept as an unused one."""
        text = self.config.pending.values.pop(key, None)
        if text is not None and hardware.is_drive_key(key):
            self._detach(hardware.drive(key, text), force=False)

    def _set_deletes(self, gone: Mapping[str, bool]) -> None:
        text = ",".join(f"!{key}" if force else key for key, force in sorted(gone.items()))
        if text:
            self.config.pending.values["delete"] = text
        else:
            self.config.pending.values.pop("delete", None)

    def apply_all(self) -> None:
        """Let all that is pending come into force; the machine is stopped."""
        for key, force in self.config.pending_deletes().items():
            self._try(key, lambda key=key, force=force: self._remove(key, force=force))  # type: ignore[misc]
        for key in [key for key in self.config.pending.values if key != "delete"]:
            self._try(key, lambda key=key: self._set(key, self.config.pending.values[key]))  # type: ignore[misc]

    def hotplug(self, plugger: Plugger) -> None:
        """Let come into force what a running machine allows."""
        for key, force in self.config.pending_deletes().items():

            def remove(key: str = key, force: bool = force) -> None:
                if key in self._values:
                    plugger.remove(key)
                self._remove(key, force=force)

            self._try(key, remove, "hotplug problem - ")
        for key in [key for key in self.config.pending.values if key != "delete"]:

            def put(key: str = key) -> None:
                plugger.change(key, self.config.pending.values[key])
                self._set(key, self.config.pending.values[key])

            self._try(key, put, "hotplug problem - ")

    def _try(self, key: str, work: Callable[[], None], prefix: str = "") -> None:
        """Do one change and take it out of what is pending; an error leaves it there."""
        try:
            work()
        except NotNow:
            return
        except ClusterError as error:
            self.errors[key] = f"{prefix}{error.message}"
            return
        self.config.pending.values.pop(key, None)
        self._set_deletes({other: force for other, force in self.config.pending_deletes().items() if other != key})

    def _set(self, key: str, value: str) -> None:
        old = self._values.get(key)
        self._values[key] = value
        if hardware.is_drive_key(key) and not key.startswith("unused"):
            self._no_longer_unused(hardware.drive(key, value).volume)
        if old is not None and hardware.is_drive_key(key) and not key.startswith("unused"):
            before, now = hardware.drive(key, old), hardware.drive(key, value)
            if before.volume != now.volume:
                self._detach(before, force=before.is_cloudinit)

    def _no_longer_unused(self, volume: str) -> None:
        for key in [key for key, value in self._values.items() if key.startswith("unused") and value == volume]:
            del self._values[key]

    def _remove(self, key: str, *, force: bool) -> None:
        old = self._values.pop(key, None)
        if old is not None and hardware.is_drive_key(key):
            drive = hardware.drive(key, old)
            self._detach(drive, force=force or drive.bus == "unused" or drive.is_cloudinit)

    def _detach(self, drive: hardware.Drive, *, force: bool) -> None:
        """Keep a volume that a drive no longer uses, or remove it."""
        if not drive.has_volume or (drive.is_cdrom and not drive.is_cloudinit):
            return
        if drive.volume in _used(self._values) or not self._owns(drive.volume):
            return
        if any(drive.volume in _used(snapshot.values) for snapshot in self.config.snapshots.values()):
            if force:
                raise ClusterError(f"can't remove '{drive.volume}' - it is used by a snapshot")
            self._keep(drive.volume)
        elif force:
            creation.remove_volume(self.node, self.vmid, drive.volume, self.log)
        else:
            self._keep(drive.volume)

    def _owns(self, volume: str) -> bool:
        try:
            return of_volume(self.node, volume).volume(volume).vmid == self.vmid
        except ClusterError:
            return False

    def _keep(self, volume: str) -> None:
        keep_unused(self._values, volume)


def keep_unused(values: dict[str, str], volume: str) -> str | None:
    """Keep a volume as ``unusedN``; returns the key, None when it is kept already."""
    if volume in (values[key].split(",")[0] for key in values if key.startswith("unused")):
        return None
    free = next(number for number in range(256) if f"unused{number}" not in values)
    values[f"unused{free}"] = volume
    return f"unused{free}"


def _used(values: Mapping[str, str]) -> Iterable[str]:
    return [drive.volume for drive in hardware.drives(values)]
