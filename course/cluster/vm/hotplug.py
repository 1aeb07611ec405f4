"""Plugging and unplugging what a running machine allows, through QMP.

A setting that cannot change while the machine runs raises `NotNow`: it waits for the next start.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from . import cloudinit, commandline, hardware, surroundings
from .hardware import Drive, Nic
from .lifecycle import throttle
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node

AT_ONCE = frozenset(
    (
        *("lock", "name", "onboot", "shares", "startup", "description", "protection", "vmstatestorage", "hookscript"),
        *("tags", "migrate_downtime", "migrate_speed", "cpuunits", "cpulimit", "template", "parent", "hotplug"),
    )
)
"""Settings that the running QEMU does not know of."""

_LIVE_DRIVE = frozenset(["backup", "replicate", "shared", "size"])
_THROTTLES = re.compile(r"(m?bps|iops)(_|$)")


class NotNow(ClusterError):  # noqa: N818 - a state
    """The setting waits for the machine's next start."""


def features(values: dict[str, str]) -> set[str]:
    """Return what may be plugged into a running machine."""
    said = values.get("hotplug", "network,disk,usb")
    if said == "0":
        return set()
    return {"network", "disk", "usb"} if said == "1" else set(re.split(r"[,;\s]+", said))


class Plugger:
    """Changes one running machine.

    Args:
        node: that it runs on.
        running: the machine.
        values: its configuration as it is.
    """

    def __init__(self, node: Node, running: RunningVm, values: dict[str, str]) -> None:
        self.node = node
        self.running = running
        self.values = values
        self.features = features(values)

    def change(self, key: str, value: str) -> None:
        """Let a setting come into force.

        Raises:
            NotNow: it waits for the next start.
            ClusterError: it should have worked, and QEMU or the guest refuses.
        """
        before = self.values.get(key)
        if key in AT_ONCE or cloudinit.concerns_only(key):
            pass
        elif key == "balloon":
            self._balloon(int(value))
        elif hardware.is_drive_key(key):
            self._change_drive(hardware.drive(key, value), before)
        elif key.rstrip("0123456789") == "net" and key != "net":
            self._change_card(hardware.nic(key, value), before)
        else:
            raise NotNow("skip")
        self.running.values[key] = value

    def remove(self, key: str) -> None:
        """Take something away.

        Raises:
            NotNow: it waits for the next start.
            ClusterError: QEMU or the guest refuses.
        """
        if key in AT_ONCE or key.startswith("unused") or cloudinit.concerns_only(key):
            pass
        elif key == "balloon":
            self._balloon(hardware.memory_mib(self.values))
        elif hardware.is_drive_key(key):
            self._remove_drive(hardware.drive(key, self.values[key]))
        elif key.rstrip("0123456789") == "net" and key != "net":
            if "network" not in self.features:
                raise NotNow("skip")
            self.unplug(key)
            self._drop_netdev(hardware.nic(key, self.values[key]))
        else:
            raise NotNow("skip")
        self.running.values.pop(key, None)

    # Memory

    def _balloon(self, mib: int) -> None:
        if self.running.values.get("balloon") == "0" or mib == 0:
            raise NotNow("skip")
        self.running.execute("balloon", value=mib << 20)

    # Drives

    def _change_drive(self, drive: Drive, before: str | None) -> None:
        if before is None:
            self._plug_drive(drive)
            return
        old = hardware.drive(drive.key, before)
        if drive.is_cdrom and old.is_cdrom:
            if drive.volume != old.volume:
                self.change_medium(drive)
            return
        if drive.volume != old.volume or drive.is_cdrom != old.is_cdrom:
            self._remove_drive(old)
            self._plug_drive(drive)
            return
        changed = {key for key in drive.options.keys() | old.options.keys()
                   if drive.options.get(key) != old.options.get(key)}  # fmt: skip
        if any(key not in _LIVE_DRIVE and not _THROTTLES.match(key) for key in changed):
            raise NotNow("skip")
        if any(_THROTTLES.match(key) for key in changed):
            limits = throttle(drive) or dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
            self.running.execute("block_set_io_throttle", {"id": drive.key, **limits})

    def _plug_drive(self, drive: Drive) -> None:
        if "disk" not in self.features or drive.bus not in ("scsi", "virtio"):
            raise NotNow("skip")
        controller = commandline.controller_of(self.values, drive)
        added: list[str] = []
        try:
            if drive.flag("iothread"):
                self.running.execute("object-add", {"qom-type": "iothread", "id": f"iothread-{drive.key}"})
            if controller and not self._exists(commandline.qmp_arguments(controller)["id"]):
                self.running.execute("device_add", commandline.qmp_arguments(controller))
            if not drive.is_empty:
                tree = surroundings.medium(self.node, drive)
                self.running.execute("blockdev-add", tree)
                added.append(str(tree["node-name"]))
            device = commandline.drive_device(self.values, drive)
            self.running.execute("device_add", commandline.qmp_arguments(device))
        except ClusterError:
            for name in added:
                with contextlib.suppress(ClusterError):
                    self.running.execute("blockdev-del", node_name=name)
            raise
        if limits := throttle(drive):
            self.running.execute("block_set_io_throttle", {"id": drive.key, **limits})

    def _remove_drive(self, drive: Drive) -> None:
        if "disk" not in self.features or drive.bus not in ("scsi", "virtio"):
            raise NotNow("skip")
        self.unplug(drive.key)
        if not drive.is_empty:
            self._drop_node(self.running.node_of(drive.key))
            self.running.nodes.pop(drive.key, None)
        if drive.flag("iothread"):
            with contextlib.suppress(ClusterError):
                self.running.execute("object-del", id=f"iothread-{drive.key}")

    def _drop_node(self, name: str) -> None:
        """Close a block device; the device that used it lets go a moment after it is gone."""
        end = time.monotonic() + self.node.settings.unplug_s
        while True:
            try:
                self.running.execute("blockdev-del", node_name=name)
                return
            except ClusterError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)

    def change_medium(self, drive: Drive) -> None:
        """Put something else into a CD drive, or nothing."""
        name = f"drive-{drive.key}"
        self.running.execute("blockdev-open-tray", id=drive.key, force=True)
        with contextlib.suppress(ClusterError):
            self.running.execute("blockdev-remove-medium", id=drive.key)
            self.running.execute("blockdev-del", node_name=name)
        if not drive.is_empty:
            self.running.execute("blockdev-add", surroundings.medium(self.node, drive))
            self.running.execute("blockdev-insert-medium", id=drive.key, node_name=name)
        self.running.execute("blockdev-close-tray", id=drive.key)

    # Network cards

    def _change_card(self, card: Nic, before: str | None) -> None:
        old = hardware.nic(card.key, before) if before else None
        if old is not None and (old.model, old.mac, old.options.get("mtu")) == (
            card.model,
            card.mac,
            card.options.get("mtu"),
        ):
            self._rewire(card, old)
            return
        if "network" not in self.features:
            raise NotNow("skip")
        if old is not None:
            self.unplug(card.key)
            self._drop_netdev(old)
        self.running.execute("netdev_add", surroundings.netdev(self.node, self.running.vmid, card))
        try:
            self.running.execute("device_add", commandline.qmp_arguments(commandline.nic_device(card)))
        except ClusterError:
            self._drop_netdev(card)
            raise
        if card.flag("link_down"):
            self.running.execute("set_link", name=card.key, up=False)

    def _rewire(self, card: Nic, old: Nic) -> None:
        """Put a card's cable elsewhere: the guest sees at most that there is no link for a while."""
        if bool(card.bridge) != bool(old.bridge):
            raise NotNow("skip")
        if self.node.fabric is not None and card.bridge:
            self.node.fabric.change(self.running.vmid, card.number, **surroundings.card_options(card))
        self.running.execute("set_link", name=card.key, up=not card.flag("link_down"))

    def _drop_netdev(self, card: Nic) -> None:
        with contextlib.suppress(ClusterError):
            self.running.execute("netdev_del", id=card.key)
        if self.node.fabric is not None:
            self.node.fabric.unplug(self.running.vmid, card.number)

    # Devices

    def unplug(self, device: str) -> None:
        """Take a device away; the guest has to agree.

        Raises:
            ClusterError: it did not, in time.
        """
        self.running.execute("device_del", id=device)
        end = time.monotonic() + self.node.settings.unplug_s
        while self._exists(device):
            if time.monotonic() > end:
                raise ClusterError(f"error unplugging device '{device}' - the guest did not let go of it")
            time.sleep(0.02)

    def _exists(self, device: str) -> bool:
        found: list[dict[str, Any]] = self.running.execute("qom-list", path="/machine/peripheral")
        return any(each["name"] == device for each in found)
