"""What a machine finds on its node: block trees from the storages, ports of the switch, an accelerator."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..storage import of_volume
from . import hardware
from .commandline import Surroundings, Tree
from .hardware import Drive, Nic

if TYPE_CHECKING:
    from ..node import Node

NO_KVM = "KVM virtualisation configured, but not available. Either disable in VM configuration or enable in BIOS."
_FIRMWARE = ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd")
TCG = "tcg,tb-size=64"


def of(node: Node, vmid: int, *, kvm: bool, machine: str | None = None) -> Surroundings:
    """Return what a machine finds here."""
    return Surroundings(
        run=node.guests.run,
        medium=functools.partial(medium, node),
        port=functools.partial(port, node, vmid),
        kvm=kvm,
        firmware=next((Path(path) for path in _FIRMWARE if Path(path).is_file()), None),
        machine=machine,
    )


def medium(node: Node, drive: Drive) -> Tree:
    """Return the block tree of a drive that is not empty; its root is named ``drive-<key>``.

    Raises:
        ClusterError: there is no such volume, or its storage is not there.
    """
    name = f"drive-{drive.key}"
    read_only = drive.is_cdrom or drive.flag("ro")
    options: Tree = {"read-only": True} if read_only else {}
    if drive.options.get("discard") == "on" and not read_only:
        options["discard"] = "unmap"
    if not read_only and drive.bus in hardware.BUSES:
        zeroes = drive.flag("detect_zeroes", True)
        options["detect-zeroes"] = ("unmap" if "discard" in options else "on") if zeroes else "off"
    if drive.options.get("cache") == "unsafe":
        options["cache"] = {"no-flush": True}
    if not drive.has_volume:
        raise ClusterError(f"volume '{drive.volume}' is no volume of a storage of this cluster")
    storage = of_volume(node, drive.volume)
    path = storage.path(drive.volume)
    if not path.exists():
        raise ClusterError(f"volume '{drive.volume}' does not exist")
    if drive.is_cdrom and not drive.is_cloudinit:
        return {"driver": "raw", "node-name": name, **options, "file": _file(path, read_only=True)}
    return storage.layers(drive.volume, name, **options)


def _file(path: Path, *, read_only: bool) -> Tree:
    return {"driver": "file", "filename": str(path), "read-only": read_only}


def card_options(card: Nic) -> dict[str, Any]:
    """Return a network card's setting as the fabric takes it."""
    rate, tag = card.options.get("rate"), card.options.get("tag")
    return {
        "bridge": card.bridge,
        "mac": card.mac,
        "firewall": card.flag("firewall"),
        "tag": int(tag) if tag else None,
        "trunks": card.options.get("trunks", ""),
        "rate": float(rate) if rate else None,
        "link_down": card.flag("link_down"),
    }


def port(node: Node, vmid: int, card: Nic) -> list[str]:
    """Return the ``-netdev`` of a network card.

    Raises:
        ClusterError: its bridge does not exist.
    """
    if not card.bridge:
        return ["-netdev", f"user,id={card.key},restrict=on"]
    if node.fabric is None:
        return ["-netdev", f"hubport,id={card.key},hubid={1000 + card.number}"]
    found: list[str] = node.fabric.port(vmid, card.number, **card_options(card))
    return found


def netdev(node: Node, vmid: int, card: Nic) -> dict[str, Any]:
    """Return the arguments of ``netdev_add`` for a network card.

    Raises:
        ClusterError: its bridge does not exist.
    """
    if not card.bridge:
        return {"type": "user", "id": card.key, "restrict": True}
    if node.fabric is None:
        return {"type": "hubport", "id": card.key, "hubid": 1000 + card.number}
    found: dict[str, Any] = node.fabric.netdev(vmid, card.number, **card_options(card))
    return found


@functools.cache
def kvm_works() -> bool:
    """Say whether this computer's processor really runs guests; found out once."""
    from ...capability import probe  # noqa: PLC0415 - it starts programs

    if not Path("/dev/kvm").exists():
        return False
    return bool(probe()["T3"])


def accelerator(values: dict[str, str]) -> tuple[str, bool]:
    """Return QEMU's accelerator for a machine, and whether it is KVM.

    Raises:
        ClusterError: the configuration insists on KVM, which is not there; the words are Proxmox VE's.
    """
    wanted = values.get("kvm")
    if wanted is not None and not hardware.flag(values, "kvm"):
        return TCG, False
    if kvm_works():
        return "kvm", True
    if wanted is not None:
        raise ClusterError(NO_KVM)
    return TCG, False
