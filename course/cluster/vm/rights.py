"""Who may change which setting of a machine.

Source: the permissions that the API's documentation of Proxmox VE 8.1 names for each kind of setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ...error import ClusterError, PermissionRefused
from ..config.users import ROOT
from ..route import Call
from . import hardware

_CPU = "affinity cores cpu cpulimit cpuunits numa smp sockets vcpus"
_MEMORY = "balloon hugepages keephugepages memory shares"
_OPTIONS = (
    "agent autostart bios description keyboard localtime migrate_downtime migrate_speed name onboot ostype protection "
    "reboot startdate startup tags tdf template"
)
_HARDWARE = (
    "acpi arch audio0 hotplug ivshmem kvm machine rng0 scsihw smbios1 spice_enhancements tablet vga vmgenid watchdog"
)
_DISK = "boot bootdisk vmstatestorage"
_CLOUD_INIT = "cicustom cipassword citype ciupgrade ciuser nameserver searchdomain sshkeys"
_PRIVILEGES = {
    **dict.fromkeys(_CPU.split(), "VM.Config.CPU"),
    **dict.fromkeys(_MEMORY.split(), "VM.Config.Memory"),
    **dict.fromkeys(_OPTIONS.split(), "VM.Config.Options"),
    **dict.fromkeys(_HARDWARE.split(), "VM.Config.HWType"),
    **dict.fromkeys(_DISK.split(), "VM.Config.Disk"),
    "freeze": "VM.PowerMgmt",
}
_NUMBERED = {
    "net": "VM.Config.Network",
    "numa": "VM.Config.CPU",
    "serial": "VM.Config.HWType",
    "usb": "VM.Config.HWType",
}


def privilege(key: str, value: str | None, before: str | None) -> list[str] | None:
    """Return the privileges of which one is needed to change a setting, None when only root may.

    Args:
        key: the setting.
        value: its new value, None when it is removed.
        before: its value before.
    """
    bare = key.rstrip("0123456789")
    texts = [text for text in (value, before) if text]
    if hardware.is_drive_key(key) or key == "cdrom":
        cd = bool(texts) and all("media=cdrom" in text or key == "cdrom" for text in texts)
        return ["VM.Config.CDROM" if cd else "VM.Config.Disk"]
    if key in _CLOUD_INIT.split() or bare == "ipconfig":
        return ["VM.Config.Cloudinit", "VM.Config.Network"]
    if bare == "serial" and any("/dev/" in text for text in texts):
        return None
    if bare == "usb" and not any(text.startswith("spice") for text in texts):
        return None
    found = _PRIVILEGES.get(key) or _NUMBERED.get(bare)
    return [found] if found else None


def check_settings(
    call: Call, vmid: int, changes: Mapping[str, str | None], before: Mapping[str, str], pool: str | None = None
) -> None:
    """Refuse a caller who may not change these settings.

    Raises:
        PermissionRefused: a privilege is missing.
        ClusterError: only root may.
    """
    if call.user == ROOT:
        return
    for key, value in changes.items():
        needed = privilege(key, value, before.get(key))
        if needed is None:
            raise ClusterError(f"only root can set '{key}' config")
        if pool and call.may(f"/pool/{pool}", needed, any_of=True):
            continue
        call.check(f"/vms/{vmid}", needed, any_of=True)


def check_storages(call: Call, settings: Mapping[str, str], default: str | None = None) -> None:
    """Refuse a caller who may not make or use the volumes that settings name.

    Raises:
        PermissionRefused: a privilege is missing.
    """
    if call.user == ROOT:
        return
    for key, text in settings.items():
        if not hardware.is_drive_key(key):
            continue
        drive = hardware.drive(key, text)
        if drive.is_empty:
            continue
        if not drive.has_volume:
            if default and re.fullmatch(r"\d+(\.\d+)?", drive.volume):
                call.check(f"/storage/{default}", ["Datastore.AllocateSpace"])
                continue
            raise PermissionRefused("Permission check failed (only root can use physical devices)")
        storage = drive.volume.partition(":")[0]
        if ":iso/" in drive.volume:
            call.check(f"/storage/{storage}", ["Datastore.AllocateSpace", "Datastore.Audit"], any_of=True)
        else:
            call.check(f"/storage/{storage}", ["Datastore.AllocateSpace"])


def check_bridges(call: Call, settings: Mapping[str, str]) -> None:
    """Refuse a caller who may not use a bridge.

    Raises:
        PermissionRefused: a privilege is missing.
    """
    for card in hardware.nics(settings):
        if card.bridge:
            call.check(f"/sdn/zones/localnetwork/{card.bridge}", ["SDN.Use"])


def root_only(call: Call, names: Iterable[str]) -> None:
    """Refuse parameters that only root may give.

    Raises:
        ParameterError: in Proxmox VE's words.
    """
    from ...error import ParameterError  # noqa: PLC0415 - only when somebody tries

    if call.user == ROOT:
        return
    for name in names:
        if call.values.get(name) not in (None, "", 0, False):
            raise ParameterError({name: "Only root may use this option."})


def text_of(values: Mapping[str, object]) -> dict[str, str]:
    """Return typed parameters as the configuration holds them."""
    return {
        key: str(int(value)) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
        for key, value in values.items()
    }
