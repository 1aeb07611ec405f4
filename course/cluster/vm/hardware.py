"""What a virtual machine's settings say about its drives, network cards and processor, as objects.

A setting is text, ``scsi0: local-lvm:vm-169-disk-0,discard=on,size=4G``; all that reads it goes through here.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...error import ClusterError
from .. import options, properties
from ..declaration import Declarations

BUSES = ("ide", "scsi", "virtio", "sata")
"""Where disks and CD drives can be, in the order in which they are taken up."""

_DECLARATIONS: dict[str, Declarations] = {
    "ide": options.IDE,
    "sata": options.SATA,
    "scsi": options.SCSI,
    "virtio": options.VIRTIO,
    "efidisk": options.EFI_DISK,
    "tpmstate": options.TPM_STATE,
    "unused": options.UNUSED,
}
_DRIVE_KEY = re.compile(rf"({'|'.join(_DECLARATIONS)})(\d+)")
_NIC_KEY = re.compile(r"net(\d+)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MAC_PREFIX = "BC:24:11"


@dataclass(slots=True)
class Drive:
    """A disk, a CD drive or an unused volume.

    Attributes:
        key: such as ``scsi0``.
        bus: such as ``scsi``.
        number: such as 0.
        options: what is said about it; ``file`` is its volume, ``none`` or ``cdrom``.
    """

    key: str
    bus: str
    number: int
    options: dict[str, str] = field(default_factory=dict)

    @property
    def volume(self) -> str:
        """What is in it: a volume id, a path, ``none`` or ``cdrom``."""
        return self.options.get("file", "")

    @property
    def is_cdrom(self) -> bool:
        """Whether it is a CD drive."""
        return self.options.get("media") == "cdrom"

    @property
    def is_empty(self) -> bool:
        """Whether nothing of ours is in it."""
        return self.volume in ("none", "cdrom")

    @property
    def is_cloudinit(self) -> bool:
        """Whether it is the CD that cloud-init reads."""
        return is_cloudinit(self.volume)

    @property
    def is_disk(self) -> bool:
        """Whether it is a disk whose content belongs to the machine."""
        return not self.is_cdrom and not self.is_empty

    @property
    def has_volume(self) -> bool:
        """Whether a storage's volume is in it."""
        return ":" in self.volume and not self.volume.startswith("/")

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an option that is a boolean."""
        return self.options.get(name, str(int(default))) in ("1", "on", "yes", "true")

    def text(self) -> str:
        """Write it as it stands in the configuration."""
        return properties.render(self.options, _DECLARATIONS[self.bus])

    def but(self, **changes: str | None) -> Drive:
        """Return it with other options; None takes one away."""
        merged = {**self.options, **changes}
        return Drive(self.key, self.bus, self.number, {k: v for k, v in merged.items() if v is not None})


def is_cloudinit(volume: str) -> bool:
    """Say whether a volume is what cloud-init reads, or the wish for one."""
    return re.search(r"[:/](vm-\d+-)?cloudinit(\.qcow2|\.raw)?$", volume) is not None


def drive(key: str, text: str) -> Drive:
    """Read a drive's setting.

    Raises:
        ClusterError: it is no drive's key, or its value has no volume.
    """
    found = _DRIVE_KEY.fullmatch(key)
    if found is None:
        raise ClusterError(f"invalid drive key '{key}'")
    values = properties.parse(text, _DECLARATIONS[found[1]])
    if "file" not in values:
        raise ClusterError(f"unable to parse drive options of '{key}': '{text}'")
    return Drive(key, found[1], int(found[2]), values)


def is_drive_key(key: str) -> bool:
    """Say whether a setting is a drive's, an unused volume's included."""
    return _DRIVE_KEY.fullmatch(key) is not None


def drives(values: Mapping[str, str], *, unused: bool = False) -> Iterator[Drive]:
    """Yield the drives of a machine in a fixed order: by bus, then by number.

    Args:
        values: the settings.
        unused: whether volumes that no drive uses are wanted too.
    """
    wanted = [*BUSES, "efidisk", "tpmstate", *(["unused"] if unused else [])]
    found = [(wanted.index(match[1]), int(match[2]), key) for key in values if (match := _DRIVE_KEY.fullmatch(key))
             and match[1] in wanted]  # fmt: skip
    for _, _, key in sorted(found):
        yield drive(key, values[key])


def disks(values: Mapping[str, str]) -> list[Drive]:
    """Return the drives whose content belongs to the machine."""
    return [each for each in drives(values) if each.is_disk or each.is_cloudinit]


@dataclass(slots=True)
class Nic:
    """A network card.

    Attributes:
        key: such as ``net0``.
        number: such as 0.
        options: what is said about it: model, macaddr, bridge, firewall, tag, link_down, rate ...
    """

    key: str
    number: int
    options: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Its kind, such as ``virtio``."""
        return self.options["model"]

    @property
    def mac(self) -> str:
        """Its address."""
        return self.options.get("macaddr", "")

    @property
    def bridge(self) -> str:
        """The bridge that it is plugged into, empty for none."""
        return self.options.get("bridge", "")

    def flag(self, name: str) -> bool:
        """Return an option that is a boolean."""
        return self.options.get(name, "0") in ("1", "on", "yes", "true")

    def text(self) -> str:
        """Write it as it stands in the configuration."""
        return properties.render(self.options, options.NETWORK_CARD)


def nic(key: str, text: str) -> Nic:
    """Read a network card's setting.

    Raises:
        ClusterError: it names no model.
    """
    found = _NIC_KEY.fullmatch(key)
    values = properties.parse(text, options.NETWORK_CARD)
    if found is None or "model" not in values:
        raise ClusterError(f"unable to parse network options of '{key}': '{text}'")
    return Nic(key, int(found[1]), values)


def nics(values: Mapping[str, str]) -> list[Nic]:
    """Return the network cards of a machine by number."""
    found = [nic(key, value) for key, value in values.items() if _NIC_KEY.fullmatch(key)]
    return sorted(found, key=lambda each: each.number)


def random_mac(prefix: str = MAC_PREFIX) -> str:
    """Return a new address for a network card."""
    digits = prefix.replace(":", "") + "".join(secrets.choice(string.hexdigits[:10] + "ABCDEF") for _ in range(12))
    return ":".join(digits[start : start + 2] for start in range(0, 12, 2))


def memory_mib(values: Mapping[str, str]) -> int:
    """Return the RAM of a machine, in MiB."""
    return int(properties.parse(values.get("memory", ""), options.MEMORY).get("current", 512))


def vcpus(values: Mapping[str, str]) -> int:
    """Return how many processors a machine starts with."""
    sockets, cores = int(values.get("sockets", values.get("smp", 1))), int(values.get("cores", 1))
    return int(values.get("vcpus") or 0) or sockets * cores


def flag(values: Mapping[str, str], key: str, default: bool = False) -> bool:
    """Return a setting that is a boolean."""
    return values.get(key, str(int(default))) in ("1", "on", "yes", "true")


def has_agent(values: Mapping[str, str]) -> bool:
    """Say whether the machine has a guest agent's line."""
    found = properties.parse(values.get("agent", ""), options.AGENT)
    return found.get("enabled", "0") in ("1", "on", "yes", "true")


def boot_order(values: Mapping[str, str]) -> list[str]:
    """Return the devices that are asked for a system, first one first.

    ``boot`` is either ``order=scsi0;net0`` or, of older times, letters: c the disk of ``bootdisk``, d CDs, n cards.
    """
    return [device for device, _ in sorted(boot_indices(values).items(), key=lambda item: item[1])]


def boot_indices(values: Mapping[str, str]) -> dict[str, int]:
    """Return the place of each device in the boot order, as QEMU's ``bootindex``."""
    boot = values.get("boot", "cdn")
    if "order" not in boot:
        return _lettered_order(values, boot.removeprefix("legacy="))
    order = boot.partition("order=")[2].split(",")[0]
    return {device: 100 + place for place, device in enumerate(word for word in order.split(";") if word)}


def _lettered_order(values: Mapping[str, str], letters: str) -> dict[str, int]:
    """Return the places of devices when each letter has a hundred of them."""
    disks = [each.key for each in drives(values) if each.bus in BUSES and not each.is_cdrom]
    groups = {
        "c": {key: place for place, key in enumerate(disks) if key == values.get("bootdisk")},
        "d": {key: place for place, key in enumerate(_cds(values))},
        "n": {card.key: place for place, card in enumerate(nics(values))},
    }
    return {
        key: 100 * (hundred + 1) + place
        for hundred, letter in enumerate(letters)
        for key, place in groups.get(letter, {}).items()
    }


def _cds(values: Mapping[str, str]) -> list[str]:
    return [each.key for each in drives(values) if each.is_cdrom and not each.is_cloudinit]


def assert_boot_order(values: Mapping[str, str]) -> None:
    """Refuse an order that names what is not there.

    Raises:
        ClusterError: a device is missing; the words are Proxmox VE's.
    """
    if "order" not in values.get("boot", ""):
        return
    for device in boot_order(values):
        if device not in values:
            raise ClusterError(f"invalid bootorder: device '{device}' does not exist'")


def size_bytes(text: str) -> int:
    """Return a size such as ``4G`` or ``528K`` in bytes.

    Raises:
        ClusterError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ClusterError(f"unable to parse size '{text}'")
    return int(float(found[1]) * _FACTORS[found[2]])


def size_text(size: int) -> str:
    """Write a size as the configuration has it: the largest unit that leaves a whole number."""
    for unit in "TGMK":
        if size and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return str(size)
