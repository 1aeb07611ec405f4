"""A virtual machine's QEMU command line, from its configuration.

Devices have fixed places on their bus, as Proxmox VE gives them, so that a machine looks the same to its guest after
each start, and so that the target of a migration has each device where the source had it, plugged later or not::

    pci.0  0x2 screen  0x3 balloon  0x4 watchdog  0x5 SCSI  0x7 SATA  0x8 agent  0xa… virtio disks  0x12… network cards
    pci.1  0x1… further network cards   0x1d random numbers   pci.2  0x1… further virtio disks   pci.3  single SCSI

What differs from Proxmox VE's line: block devices are ``-blockdev`` trees that the storage describes, network backends
are the fabric's ports, and nothing needs a privilege.

Source: the regression vectors of qemu-server (cfg2cmd), with which the tests compare the parts that are the same.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...error import ClusterError
from .. import options, properties
from . import hardware, processor
from .hardware import Drive, Nic

Tree = dict[str, Any]
"""The arguments of ``blockdev-add``."""


@dataclass(frozen=True)
class Surroundings:
    """What a machine finds on its node.

    Attributes:
        run: directory of its sockets, ``…/qemu-server``.
        medium: gives the block tree of a drive that is not empty, its root named ``drive-<key>``.
        port: gives the ``-netdev`` of a network card, with the card's key as id.
        kvm: whether the processor runs guests.
        firmware: UEFI code for ``bios: ovmf``; None when the node has none.
        machine: kind of machine in place of the configuration's, when a running state comes from elsewhere.
    """

    run: Path
    medium: Callable[[Drive], Tree]
    port: Callable[[Nic], list[str]]
    kvm: bool = False
    firmware: Path | None = None
    machine: str | None = None


class Line:
    """A command line that grows."""

    def __init__(self, vmid: int, values: Mapping[str, str], around: Surroundings) -> None:
        self.vmid = vmid
        self.values = values
        self.around = around
        self.machine = machine_type(around.machine or values.get("machine", "pc"))
        self.is_q35 = "q35" in self.machine
        self.indices = hardware.boot_indices(values)
        self.words: list[str] = []

    def add(self, *words: str) -> None:
        """Append words."""
        self.words += words

    def device(self, text: str) -> None:
        """Append a device."""
        self.add("-device", text)

    def socket(self, suffix: str) -> str:
        """Return the path of one of the machine's sockets."""
        return str(self.around.run / f"{self.vmid}.{suffix}")


def arguments(vmid: int, values: Mapping[str, str], around: Surroundings) -> list[str]:
    """Return QEMU's arguments, without accelerator and name, which `course.machine.Machine` gives.

    Raises:
        ClusterError: the configuration cannot become a machine here; the words are Proxmox VE's.
    """
    line = Line(vmid, values, around)
    _monitor(line)
    _firmware(line)
    _board(line)
    _bridges(line)
    _small_devices(line)
    _display(line)
    _further_devices(line)
    _drives(line)
    _cards(line)
    _last(line)
    return line.words


def machine_type(name: str) -> str:
    """Return QEMU's name of a machine: without Proxmox VE's own revision."""
    return name.split(",", maxsplit=1)[0].partition("+pve")[0].removesuffix(".pxe") or "pc"


def _monitor(line: Line) -> None:
    line.add("-chardev", f"socket,id=qmp,path={line.socket('qmp')},server=on,wait=off")
    line.add("-mon", "chardev=qmp,mode=control")
    line.add("-pidfile", line.socket("pid"))


def _firmware(line: Line) -> None:
    smbios = smbios_text(line.values.get("smbios1", ""))
    if smbios:
        line.add("-smbios", f"type=1,{smbios}")
    if line.values.get("bios") != "ovmf":
        return
    if line.around.firmware is None:
        raise ClusterError("EFI base image 'OVMF_CODE.fd' not found")
    line.add("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={line.around.firmware}")
    if "efidisk0" in line.values:
        disk = hardware.drive("efidisk0", line.values["efidisk0"])
        line.add("-blockdev", json.dumps(line.around.medium(disk)))


def smbios_text(text: str) -> str:
    """Return the words of ``-smbios`` for a configuration's ``smbios1``."""
    given = dict(part.partition("=")[::2] for part in text.split(",") if "=" in part)
    encoded = given.pop("base64", "0") == "1"
    parts = []
    for key, value in given.items():
        plain = base64.b64decode(value).decode() if encoded and key != "uuid" else value
        parts.append(f"{key}={plain.replace(',', ',,')}")
    return ",".join(parts)


def _board(line: Line) -> None:
    values = line.values
    sockets, cores = int(values.get("sockets", values.get("smp", 1))), int(values.get("cores", 1))
    most = sockets * cores
    started = hardware.vcpus(values)
    if started > most:
        raise ClusterError(f"MAX {most} vcpus allowed per VM on this node")
    line.add("-smp", f"{started},sockets={sockets},cores={cores},maxcpus={most}")
    line.add("-boot", "menu=on,strict=on,reboot-timeout=1000,splash-time=50")
    line.add("-cpu", processor.model(values.get("cpu", ""), kvm=line.around.kvm))
    line.add("-m", str(hardware.memory_mib(values)))
    if hardware.flag(values, "numa"):
        _numa(line, sockets, cores)
    chip = "ICH9-LPC" if line.is_q35 else "PIIX4_PM"
    line.add("-global", f"{chip}.disable_s3=1", "-global", f"{chip}.disable_s4=1")
    windows = values.get("ostype", "").startswith("w")
    clock = [
        *(["driftfix=slew"] if hardware.flag(values, "tdf") or windows else []),
        *([f"base={values['startdate']}"] if values.get("startdate", "now") != "now" else []),
        *(["base=localtime"] if hardware.flag(values, "localtime", windows) else []),
    ]
    if clock:
        line.add("-rtc", ",".join(clock))
    if values.get("keyboard"):
        line.add("-k", values["keyboard"])
    if not hardware.flag(values, "reboot", True):
        line.add("-no-reboot")
    if hardware.flag(values, "freeze"):
        line.add("-S")


def _numa(line: Line, sockets: int, cores: int) -> None:
    memory = hardware.memory_mib(line.values)
    if memory % sockets:
        raise ClusterError(f"memory size ({memory}) must be aligned to {sockets} sockets for NUMA")
    for node in range(sockets):
        line.add("-object", f"memory-backend-ram,id=ram-node{node},size={memory // sockets}M")
        first, last = node * cores, node * cores + cores - 1
        cpus = str(first) if first == last else f"{first}-{last}"
        line.add("-numa", f"node,nodeid={node},cpus={cpus},memdev=ram-node{node}")


def _bridges(line: Line) -> None:
    if line.is_q35:
        line.device("i82801b11-bridge,id=pcidmi,bus=pcie.0,addr=0x1e")
        line.device("pci-bridge,id=pci.0,chassis_nr=10,bus=pcidmi,addr=0x1")
        line.device("ich9-usb-ehci1,id=ehci,bus=pcie.0,addr=0x1d.7,multifunction=on")
    line.device("pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e")
    line.device("pci-bridge,id=pci.2,chassis_nr=2,bus=pci.0,addr=0x1f")
    if line.values.get("scsihw") == "virtio-scsi-single":
        line.device("pci-bridge,id=pci.3,chassis_nr=3,bus=pci.0,addr=0x5")


def _small_devices(line: Line) -> None:
    if line.values.get("vmgenid", "0") not in ("0", "1"):
        line.device(f"vmgenid,guid={line.values['vmgenid']}")
    if not line.is_q35:
        line.device("piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2")
    shown = properties.parse(line.values.get("vga", ""), options.VGA).get("type", "std")
    if hardware.flag(line.values, "tablet", not shown.startswith(("serial", "none"))):
        line.device(f"usb-tablet,id=tablet,bus={'ehci' if line.is_q35 else 'uhci'}.0,port=1")


_SCREENS = {
    "std": "VGA",
    "cirrus": "cirrus-vga",
    "vmware": "vmware-svga",
    "virtio": "virtio-vga",
    "virtio-gl": "virtio-vga-gl",
    "qxl": "qxl-vga",
}


def _display(line: Line) -> None:
    vga = properties.parse(line.values.get("vga", ""), options.VGA)
    kind = vga.get("type", "std")
    if kind == "none" or kind.startswith("serial"):
        line.add("-vga", "none")
        return
    line.add("-vnc", f"unix:{line.socket('vnc')},password=on")
    place = "bus=pcie.0,addr=0x1" if line.is_q35 else "bus=pci.0,addr=0x2"
    memory = f",vgamem_mb={vga['memory']}" if "memory" in vga and kind in ("std", "vmware", "qxl", "cirrus") else ""
    line.device(f"{_SCREENS.get(kind, 'qxl-vga')},id=vga{memory},{place}")


def _further_devices(line: Line) -> None:
    values = line.values
    for number in range(4):
        where = values.get(f"serial{number}")
        if where == "socket":
            line.add("-chardev", f"socket,id=serial{number},path={line.socket(f'serial{number}')},server=on,wait=off")
            line.device(f"isa-serial,chardev=serial{number}")
        elif where:
            raise ClusterError(f"no such serial device '{where}'")
    if hardware.has_agent(values):
        line.add("-chardev", f"socket,path={line.socket('qga')},server=on,wait=off,id=qga0")
        if properties.parse(values["agent"], options.AGENT).get("type") == "isa":
            line.device("isa-serial,chardev=qga0")
        else:
            line.device("virtio-serial,id=qga0,bus=pci.0,addr=0x8")
            line.device("virtserialport,chardev=qga0,name=org.qemu.guest_agent.0")
    if "rng0" in values:
        _random(line)
    if "audio0" in values:
        _audio(line)
    if values.get("balloon") != "0":
        line.device("virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3,free-page-reporting=on")
    if "watchdog" in values:
        _watchdog(line)


def _random(line: Line) -> None:
    rng = properties.parse(line.values["rng0"], options.RNG)
    line.add("-object", f"rng-random,filename={rng['source']},id=rng0")
    limit = f",max-bytes={rng.get('max_bytes', '1024')},period={rng.get('period', '1000')}"
    line.device(f"virtio-rng-pci,rng=rng0{limit if rng.get('max_bytes') != '0' else ''},bus=pci.1,addr=0x1d")


def _audio(line: Line) -> None:
    kind = properties.parse(line.values["audio0"], options.AUDIO)["device"]
    line.add("-audiodev", "none,id=none-backend0")
    if kind == "AC97":
        line.device("AC97,id=audiodev0,bus=pci.2,addr=0xc,audiodev=none-backend0")
    else:
        line.device(f"{kind},id=audiodev0,bus=pci.2,addr=0xc")
        line.device("hda-micro,id=audiodev0-codec0,bus=audiodev0.0,cad=0,audiodev=none-backend0")


def _watchdog(line: Line) -> None:
    given = dict(part.partition("=")[::2] for part in line.values["watchdog"].split(","))
    model = given.get("model") or next((key for key, value in given.items() if not value), "i6300esb")
    line.device(f"{model},id=watchdog0,bus=pci.0,addr=0x4" if model == "i6300esb" else f"{model},id=watchdog0")
    if given.get("action"):
        line.add("-action", f"watchdog={given['action']}")


def _drives(line: Line) -> None:
    made: set[str] = set()
    for each in hardware.drives(line.values):
        if each.bus in ("efidisk", "tpmstate"):
            if each.bus == "tpmstate":
                raise ClusterError("swtpm is not installed on this node")
            continue
        if each.flag("iothread") and each.bus in ("virtio", "scsi"):
            line.add("-object", f"iothread,id=iothread-{each.key}")
        controller = controller_of(line.values, each, q35=line.is_q35)
        if controller and controller not in made:
            made.add(controller)
            line.device(controller)
        if not each.is_empty:
            line.add("-blockdev", json.dumps(line.around.medium(each)))
        line.device(drive_device(line.values, each, q35=line.is_q35, bootindex=line.indices.get(each.key)))


def controller_of(values: Mapping[str, str], drive: Drive, *, q35: bool = False) -> str:
    """Return the controller that a drive needs, empty when the board has it."""
    del q35
    if drive.bus == "sata":
        return "ahci,id=ahci0,multifunction=on,bus=pci.0,addr=0x7"
    if drive.bus != "scsi":
        return ""
    kind = values.get("scsihw", "lsi")
    thread = f",iothread=iothread-{drive.key}" if drive.flag("iothread") else ""
    if kind == "virtio-scsi-single":
        return f"virtio-scsi-pci,id=virtioscsi{drive.number},bus=pci.3,addr={drive.number + 1:#x}{thread}"
    if kind == "virtio-scsi-pci":
        return f"virtio-scsi-pci,id=scsihw0,bus=pci.0,addr=0x5{thread}"
    number = drive.number // 7
    place = {0: "bus=pci.0,addr=0x5", 1: "bus=pci.0,addr=0x6"}.get(number, f"bus=pci.2,addr={0x0B + number:#x}")
    return f"{kind},id=scsihw{number},{place}"


def drive_device(values: Mapping[str, str], drive: Drive, *, q35: bool = False, bootindex: int | None = None) -> str:
    """Return the device of a drive, as ``-device`` takes it."""
    backend = "" if drive.is_empty else f",drive=drive-{drive.key}"
    text = _attachment(values, drive, backend, q35=q35)
    if drive.options.get("serial"):
        text += f",serial={drive.options['serial']}"
    if drive.options.get("wwn"):
        text += f",wwn={drive.options['wwn']}"
    if drive.flag("ssd"):
        text += ",rotation_rate=1"
    for word in ("werror", "rerror"):
        if drive.options.get(word) and not drive.is_cdrom:
            text += f",{word}={drive.options[word]}"
    if drive.options.get("cache") in ("writethrough", "directsync"):
        text += ",write-cache=off"
    return text + (f",bootindex={bootindex}" if bootindex is not None else "")


def _attachment(values: Mapping[str, str], drive: Drive, backend: str, *, q35: bool) -> str:
    """Return the device with its bus and place."""
    kind, number = "cd" if drive.is_cdrom else "hd", drive.number
    if drive.bus == "virtio":
        bus, addr = ("pci.0", 0xA + number) if number < 6 else ("pci.2", number - 5)
        thread = f",iothread=iothread-{drive.key}" if drive.flag("iothread") else ""
        return f"virtio-blk-pci{backend},id={drive.key},bus={bus},addr={addr:#x}{thread}"
    if drive.bus == "scsi":
        controller = controller_of(values, drive).split(",")[1].removeprefix("id=")
        if controller.startswith("virtioscsi") or values.get("scsihw") == "virtio-scsi-pci":
            place = f"channel=0,scsi-id=0,lun={number}"
        else:
            place = f"scsi-id={number % 7}"
        return f"scsi-{kind},bus={controller}.0,{place}{backend},id={drive.key}"
    if drive.bus == "sata":
        return f"ide-{kind},bus=ahci0.{number}{backend},id={drive.key}"
    # The board's own buses: two with two drives each, or on q35 one drive on each of four.
    channel, unit = ({0: 0, 1: 2, 2: 1, 3: 3}[number], 0) if q35 else divmod(number, 2)
    return f"ide-{kind},bus=ide.{channel},unit={unit}{backend},id={drive.key}"


def _cards(line: Line) -> None:
    for card in hardware.nics(line.values):
        line.add(*line.around.port(card))
        line.device(nic_device(card, bootindex=line.indices.get(card.key)))


def nic_device(card: Nic, *, bootindex: int | None = None) -> str:
    """Return the device of a network card, as ``-device`` takes it."""
    bus, addr = ("pci.0", 0x12 + card.number) if card.number < 6 else ("pci.1", card.number - 5)
    kind = "virtio-net-pci" if card.model == "virtio" else card.model
    place = "" if card.model == "ne2k_isa" else f",bus={bus},addr={addr:#x}"
    text = f"{kind},mac={card.mac},netdev={card.key}{place},id={card.key}"
    if card.model == "virtio":
        text += ",rx_queue_size=1024,tx_queue_size=256"
    if bootindex is not None:
        text += f",bootindex={bootindex}"
    if card.options.get("mtu") and card.model == "virtio":
        text += f",host_mtu={card.options['mtu']}"
    return text


def _last(line: Line) -> None:
    kind = [f"type={line.machine}"]
    if not hardware.flag(line.values, "acpi", True):
        kind.insert(0, "acpi=off")
    line.add("-machine", ",".join(kind))
    if line.values.get("args"):
        import shlex  # noqa: PLC0415 - rare

        line.add(*shlex.split(line.values["args"]))


def qmp_arguments(text: str) -> dict[str, Any]:
    """Return a command line's ``driver,key=value,on=off`` as the arguments of ``device_add`` or ``netdev_add``."""
    first, *rest = text.split(",")
    found: dict[str, Any] = {"driver": first} if "=" not in first else dict([_pair(first)])
    for part in rest:
        key, value = _pair(part)
        place = found
        *path, last = key.split(".")
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return found


_TEXTS = ("addr", "mac", "id", "bus", "drive", "netdev", "serial", "wwn", "path", "chardev")


def _pair(part: str) -> tuple[str, Any]:
    key, _, value = part.partition("=")
    if key in _TEXTS or key.endswith((".path", ".type")):
        return key, value
    if value in ("on", "off"):
        return key, value == "on"
    return key, int(value) if value.lstrip("-").isdigit() else value
