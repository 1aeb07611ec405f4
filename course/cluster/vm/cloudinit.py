"""What cloud-init is told: three texts on a CD that is written at each start and on request.

Kinds of CD: ``nocloud`` (files meta-data, network-config, user-data; label ``cidata``) and ``configdrive2`` (an
OpenStack tree; label ``config-2``). What a machine was last told is kept in ``[special:cloudinit]``.

Source: cloud-init's documentation of the NoCloud and ConfigDrive data sources, and of network configuration 1.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ...error import ClusterError
from ..config.guest import GuestConfig, Section
from ..storage import of_volume
from . import hardware

if TYPE_CHECKING:
    from ..node import Node

SECTION = "special:cloudinit"
KEYS = (
    "cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys",
)  # fmt: skip


def concerns_only(key: str) -> bool:
    """Say whether a setting is for cloud-init alone: QEMU need not know."""
    return key in KEYS or (key.startswith("ipconfig") and key[8:].isdigit())


def concerns(key: str) -> bool:
    """Say whether a setting is one that cloud-init is told of."""
    return concerns_only(key) or key == "name" or _is_card(key)


def _is_card(key: str) -> bool:
    return key.startswith("net") and key[3:].isdigit()


def crypted(password: str) -> str:
    """Return a password as ``/etc/shadow`` would have it, unless it is so already."""
    if password.startswith("$"):
        return password
    # crypt(3) is leaving Python; cloud-init hands this to the guest's shadow file as it is.
    salt = secrets.token_hex(8)
    return f"$6${salt}${hashlib.sha512((salt + password).encode()).hexdigest()}"


def drive_of(values: Mapping[str, str]) -> hardware.Drive | None:
    """Return the drive that holds cloud-init's CD, or None."""
    return next((drive for drive in hardware.drives(values) if drive.is_cloudinit), None)


def texts(values: Mapping[str, str], vmid: int) -> dict[str, str]:
    """Return the three texts: user, network and meta."""
    user, network = _user(values, vmid), _network(values)
    instance = hashlib.sha1((user + network).encode(), usedforsecurity=False).hexdigest()
    meta = f"instance-id: {instance}\n"
    if values.get("citype") == "configdrive2":
        meta = json.dumps({"uuid": instance, "network_config": {"content_path": "/content/0000"}}, indent=5)
    return {"user": user, "network": network, "meta": meta}


def _user(values: Mapping[str, str], vmid: int) -> str:
    name = values.get("name", f"VM{vmid}")
    lines = ["#cloud-config", f"hostname: {name.partition('.')[0]}", "manage_etc_hosts: true"]
    lines.append(f"fqdn: {name}")
    if values.get("ciuser"):
        lines.append(f"user: {values['ciuser']}")
    lines.append("disable_root: False")
    if values.get("cipassword"):
        lines.append(f"password: {values['cipassword']}")
    keys = [key for key in unquote(values.get("sshkeys", "")).split("\n") if key.strip()]
    if keys:
        lines += ["ssh_authorized_keys:", *(f"  - {key.strip()}" for key in keys)]
    lines += ["chpasswd:", "  expire: False"]
    if not values.get("ciuser"):
        lines += ["users:", "  - default"]
    if values.get("ciupgrade", "1") == "1":
        lines.append("package_upgrade: true")
    return "\n".join(lines) + "\n"


def _network(values: Mapping[str, str]) -> str:
    lines = ["version: 1", "config:"]
    for card in hardware.nics(values):
        lines += ["    - type: physical", f"      name: eth{card.number}", f"      mac_address: '{card.mac.lower()}'"]
        lines += _subnets(
            dict(part.partition("=")[::2] for part in values.get(f"ipconfig{card.number}", "").split(","))
        )
    servers, domains = values.get("nameserver", "").split(), values.get("searchdomain", "").split()
    if servers or domains:
        lines.append("    - type: nameserver")
        if servers:
            lines += ["      address:", *(f"      - '{server}'" for server in servers)]
        if domains:
            lines += ["      search:", *(f"      - '{domain}'" for domain in domains)]
    return "\n".join(lines) + "\n"


def _subnets(given: Mapping[str, str]) -> list[str]:
    lines = ["      subnets:"]
    for key, gateway, suffix, auto in (("ip", "gw", "", "dhcp4"), ("ip6", "gw6", "6", "dhcp6")):
        address = given.get(key)
        if address == "dhcp":
            lines.append(f"      - type: {auto}")
        elif address == "auto":
            lines.append("      - type: ipv6_slaac")
        elif address:
            lines += [f"      - type: static{suffix}", f"        address: '{address.partition('/')[0]}'"]
            prefix = address.partition("/")[2]
            lines.append(f"        netmask: '{_mask(prefix) if not suffix else prefix}'")
            if given.get(gateway):
                lines.append(f"        gateway: '{given[gateway]}'")
    return lines if len(lines) > 1 else []


def _mask(prefix: str) -> str:
    bits = (0xFFFFFFFF << (32 - int(prefix or 24))) & 0xFFFFFFFF
    return ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))


def write(node: Node, vmid: int, config: GuestConfig) -> None:
    """Write the CD, and remember what it says.

    Raises:
        ClusterError: the machine has no such drive.
    """
    values = config.merged()
    drive = drive_of(values)
    if drive is None:
        raise ClusterError(f"VM {vmid} has no cloudinit drive")
    content = image(texts(values, vmid), values.get("citype", "nocloud"))
    storage = of_volume(node, drive.volume)
    running = node.guests.get(vmid)
    storage_write(node, storage, drive, content, running)
    config.special[SECTION] = Section({key: value for key, value in values.items() if concerns(key)})


def storage_write(node: Node, storage: Any, drive: hardware.Drive, content: bytes, running: Any) -> None:
    """Replace the content of a volume; a running machine gets its CD out and in again."""
    from .hotplug import Plugger  # noqa: PLC0415 - it knows of this module's neighbours

    empty = drive.but(file="none")
    if running is not None:
        Plugger(node, running, running.values).change_medium(empty)
    try:
        _convert(content, storage.path(drive.volume), storage.driver(drive.volume))
    finally:
        if running is not None:
            Plugger(node, running, running.values).change_medium(drive)


def _convert(content: bytes, path: Any, driver: str) -> None:
    """Write an image into a volume of 4 MiB in its own format."""
    import subprocess  # noqa: PLC0415 - rare
    import tempfile  # noqa: PLC0415 - rare

    from ...machine import qemu  # noqa: PLC0415 - rare

    with tempfile.NamedTemporaryFile(suffix=".iso") as file:
        file.write(content.ljust(4 << 20, b"\0"))
        file.flush()
        subprocess.run(
            [str(qemu.find("qemu-img")), "convert", "-n", "-f", "raw", "-O", driver, file.name, str(path)],
            check=True,
            capture_output=True,
        )


def image(parts: Mapping[str, str], kind: str) -> bytes:
    """Return the CD as an ISO 9660 image."""
    import pycdlib  # noqa: PLC0415 - 0.1 s, only to write images

    config_drive = kind == "configdrive2"
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident="config-2" if config_drive else "cidata")
    files = (
        {
            "openstack/latest/user_data": parts["user"],
            "openstack/latest/meta_data.json": parts["meta"],
            "openstack/content/0000": parts["network"],
        }
        if config_drive
        else {"user-data": parts["user"], "meta-data": parts["meta"], "network-config": parts["network"]}
    )
    made: set[str] = set()
    for name, text in files.items():
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/" + "/".join(folders[:depth])
            if folder not in made:
                made.add(folder)
                iso.add_directory(folder, rr_name=folders[depth - 1], joliet_path=folder)
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), "/" + name, rr_name=name.rpartition("/")[2], joliet_path="/" + name)
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def pending(config: GuestConfig) -> list[dict[str, Any]]:
    """Return each setting of cloud-init: what it was told, and what it will be told."""
    told = config.special.get(SECTION, Section()).values
    wanted = {key: value for key, value in config.merged().items() if concerns(key)}
    entries = []
    for key in sorted(told.keys() | wanted.keys()):
        entry: dict[str, Any] = {"key": key}
        hidden = key == "cipassword"
        if key in told:
            entry["value"] = "**********" if hidden else told[key]
        if key in wanted and wanted[key] != told.get(key):
            entry["pending"] = "**********" if hidden else wanted[key]
        if key in told and key not in wanted:
            entry["delete"] = 1
        entries.append(entry)
    return entries
