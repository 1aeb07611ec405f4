"""The QEMU command line of a Linux guest: the same machine whether it boots, is cloned, or receives a migration.

What may differ between a template and its clones is only what the guest does not see at once: where its RAM comes
from, and its name. Disks and NICs are plugged into the empty PCIe ports ``rp1`` … ``rp8``::

    q35 ── pcie.0 ─┬─ rp1 ── disk0          hot-plugged into a clone, on the command line elsewhere
                   ├─ rp2 ── nic0
                   ├─ …
                   └─ rp8                   the rest is free for lessons: device_add …, bus=rp8
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..error import UsageError

# Self-tests of the crypto code cost 0.3 s under emulation and the search for more processors 0.2 s; addresses that do
# not move (nokaslr) let lessons look things up in memory.
KERNEL_WORDS = "console=ttyS0 quiet cryptomgr.notests noreplace-smp nokaslr 8250.nr_uarts=1"
PORTS = 8
MIN_RAM_MIB = 96
RAM_ID = "ram0"
_MEMORY_SLOTS = 4
_MAX_RAM_MIB = 4096


@dataclasses.dataclass(frozen=True)
class Spec:
    """What makes one template different from another.

    Attributes:
        ram_mib: RAM in MiB, 96 to 4096.
        cpus: processors.
        vga: a VGA card with a shell on its screen.
        arguments: further QEMU arguments: more devices, mostly.
        accel: QEMU's accelerator.
        binary: QEMU program.
    """

    ram_mib: int = 128
    cpus: int = 1
    vga: bool = False
    arguments: tuple[str, ...] = ()
    accel: str = "tcg"
    binary: str = "qemu-system-x86_64"

    def __post_init__(self) -> None:
        if not MIN_RAM_MIB <= self.ram_mib <= _MAX_RAM_MIB:
            raise UsageError(
                f"ram_mib is {self.ram_mib}; expected {MIN_RAM_MIB} (the kernel needs as much) to {_MAX_RAM_MIB}"
            )
        if self.cpus < 1:
            raise UsageError(f"cpus is {self.cpus}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class Device:
    """A disk or a NIC: what is behind it, and the device that the guest sees.

    Attributes:
        backend: QMP arguments of ``blockdev-add`` (a disk) or ``netdev_add`` (a NIC).
        device: QMP arguments of ``device_add``.
    """

    backend: Mapping[str, Any]
    device: Mapping[str, Any]

    @property
    def is_disk(self) -> bool:
        """True for a disk, False for a NIC."""
        return "driver" in self.backend

    @property
    def guest_path(self) -> str:
        """A path that exists in the guest when it has the device."""
        number = int(str(self.device["id"])[-1])
        return f"/dev/vd{'abcdefgh'[number]}" if self.is_disk else f"/sys/class/net/eth{number}"

    def arguments(self) -> list[str]:
        """Return it as command line arguments."""
        option = "-blockdev" if self.is_disk else "-netdev"
        return [option, json.dumps(dict(self.backend)), "-device", json.dumps(dict(self.device))]


def disk(number: int, path: Path, image_format: str) -> Device:
    """Return the virtio disk ``disk<number>``."""
    name = f"disk{number}"
    file = {"driver": "file", "filename": str(path)}
    return Device(
        {"driver": image_format, "node-name": name, "file": file},
        {"driver": "virtio-blk-pci", "id": name, "drive": name},
    )


def nic(number: int, vm_name: str, netdev: Mapping[str, Any]) -> Device:
    """Return the virtio NIC ``nic<number>`` on a netdev; its MAC comes from the VM's name unless ``mac`` gives it."""
    backend = {"id": f"net{number}", **netdev}
    if "type" not in backend:
        raise UsageError(
            f'the NIC {dict(netdev)!r} has no type; expected QMP netdev arguments such as {{"type": "user"}}'
        )
    digest = hashlib.sha256(f"{vm_name}/{number}".encode()).digest()
    mac = backend.pop("mac", "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3]))
    return Device(
        backend,
        # No boot ROM: a guest that boots a kernel asks no network for one.
        {"driver": "virtio-net-pci", "id": f"nic{number}", "netdev": backend["id"], "mac": mac, "romfile": ""},
    )


def on_ports(devices: Iterable[Device]) -> list[Device]:
    """Place devices on the ports, in order.

    Raises:
        UsageError: there are more devices than ports.
    """
    devices = list(devices)
    if len(devices) > PORTS:
        raise UsageError(f"{len(devices)} disks and NICs; a guest has {PORTS} ports for them")
    return [
        dataclasses.replace(device, device={**device.device, "bus": f"rp{port}"})
        for port, device in enumerate(devices, start=1)
    ]


def command_line(
    spec: Spec, *, kernel: Path, initrd: Path, name: str, ram_file: Path | None, shared: bool
) -> list[str]:
    """Return the arguments of a guest without its disks and NICs.

    Args:
        spec: the machine.
        kernel: bzImage.
        initrd: initramfs.
        name: the guest's name, which it takes as hostname when it boots.
        ram_file: file that is its RAM; None for ordinary memory.
        shared: write changes through to that file (the template), or keep them private, copy on write (a clone).
    """
    words = f"{KERNEL_WORDS} vm.name={hostname(name)}" + (" vm.vga" if spec.vga else "")
    return [
        *("-M", f"q35,memory-backend={RAM_ID}", "-smp", str(spec.cpus)),
        *("-m", f"size={spec.ram_mib}M,slots={_MEMORY_SLOTS},maxmem={_MAX_RAM_MIB}M"),
        *("-object", json.dumps(_memory(spec, ram_file, shared))),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", words),
        *_ports(),
        *(("-vga", "std") if spec.vga else ()),
        *spec.arguments,
    ]


def hostname(name: str) -> str:
    """Return a machine's name as a hostname: letters, digits and hyphens, at most 63."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    return kept.strip("-")[:63] or "guest"


def _memory(spec: Spec, ram_file: Path | None, shared: bool) -> dict[str, Any]:
    common = {"id": RAM_ID, "size": spec.ram_mib << 20}
    if ram_file is None:
        return {"qom-type": "memory-backend-ram", **common}
    return {"qom-type": "memory-backend-file", **common, "mem-path": str(ram_file), "share": shared}


def _ports() -> Sequence[str]:
    ports = (f"pcie-root-port,id=rp{number},chassis={number},slot={number}" for number in range(1, PORTS + 1))
    return [part for port in ports for part in ("-device", port)]
