"""Declarations that many calls share, and all settings that a virtual machine's configuration may have.

`VM_OPTIONS` is what a machine's file may hold and what creating and changing a machine take; the calls add their own
parameters (`CREATE`, `CHANGE`) and those of their path (`NODE`, `VMID`).

Source: the API schema of Proxmox VE 8.1, with which the tests compare each declaration.
"""

from __future__ import annotations

from .declaration import Parameter, Type, numbered


def flag(default: int | None = None) -> Parameter:
    """Declare an optional boolean."""
    return Parameter(type="boolean", optional=True, default=default)


def number(
    minimum: float | None = None,
    maximum: float | None = None,
    default: float | str | None = None,
    kind: Type = "integer",
    optional: bool = True,
) -> Parameter:
    """Declare a number, an integer unless said otherwise."""
    return Parameter(type=kind, optional=optional, minimum=minimum, maximum=maximum, default=default)


def choice(words: str, default: str | None = None, *, optional: bool = True, default_key: bool = False) -> Parameter:
    """Declare one of a few words, which are given with blanks between them."""
    return Parameter(optional=optional, default=default, enum=tuple(words.split()), default_key=default_key)


def text(
    format: str | dict[str, Parameter] | None = None,
    *,
    pattern: str | None = None,
    longest: int | None = None,
    default: str | None = None,
    optional: bool = True,
    default_key: bool = False,
) -> Parameter:
    """Declare text."""
    return Parameter(
        format=format,
        pattern=pattern,
        max_length=longest,
        default=default,
        optional=optional,
        default_key=default_key,
    )


NODE = Parameter(format="pve-node")
VMID = Parameter(type="integer", format="pve-vmid", minimum=100, maximum=999999999)
STORAGE = text("pve-storage-id")
DIGEST = text(longest=40)
SKIPLOCK = flag()

_RANGES = r"\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*"
_CARDS = (
    "e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e i82551 i82557b i82559er ne2k_isa ne2k_pci pcnet rtl8139 "
    "virtio vmxnet3"
)
_VOLUME = text("pve-volume-id-or-qm-path", optional=False, default_key=True)
_FROM = text("pve-volume-id-or-absolute-path")
_SIZE = text("disk-size")
_ALSO_VOLUME = Parameter(alias="file")
_IMAGE_FORMATS = "raw cow qcow qed qcow2 vmdk cloop"

NETWORK_CARD: dict[str, Parameter] = {
    "model": choice(_CARDS, optional=False, default_key=True),
    "macaddr": text("mac-addr"),
    "bridge": text("pve-bridge-id"),
    "queues": number(0, 64),
    "rate": number(0, kind="number"),
    "tag": number(1, 4094),
    "trunks": text(pattern=_RANGES),
    "firewall": flag(),
    "link_down": flag(),
    "mtu": number(1, 65520),
    **{card: Parameter(alias="macaddr", key_alias="model") for card in _CARDS.split()},
}

_LIMITS: dict[str, Parameter] = {
    **{name: number() for name in ("bps", "bps_rd", "bps_wr")},
    **{f"{unit}{way}": number() for unit in ("iops",) for way in ("", "_rd", "_wr", "_max", "_rd_max", "_wr_max")},
    **{f"mbps{way}": number(kind="number") for way in ("", "_rd", "_wr", "_max", "_rd_max", "_wr_max")},
    **{f"{unit}{way}_max_length": number(1) for unit in ("bps", "iops") for way in ("", "_rd", "_wr")},
    **{
        f"{unit}_{way}_length": Parameter(alias=f"{unit}_{way}_max_length")
        for unit in ("bps", "iops")
        for way in ("rd", "wr")
    },
}

_DRIVE: dict[str, Parameter] = {
    "file": _VOLUME,
    "volume": _ALSO_VOLUME,
    "media": choice("cdrom disk", "disk"),
    "cyls": number(),
    "heads": number(),
    "secs": number(),
    "trans": choice("none lba auto"),
    "snapshot": flag(),
    "cache": choice("none writethrough writeback unsafe directsync"),
    "format": choice(_IMAGE_FORMATS),
    "size": _SIZE,
    "backup": flag(),
    "replicate": flag(1),
    "rerror": choice("ignore report stop"),
    "werror": choice("enospc ignore report stop"),
    "aio": choice("native threads io_uring"),
    "discard": choice("ignore on"),
    "detect_zeroes": flag(),
    "serial": text("urlencoded", longest=60),
    "shared": flag(0),
    "import-from": _FROM,
    **_LIMITS,
}
_SSD = {"ssd": flag()}
_WWN = {"wwn": text(pattern="(0x)[0-9a-fA-F]{16}")}
_THREAD = {"iothread": flag(), "ro": flag()}

IDE = {**_DRIVE, **_SSD, **_WWN, "model": text("urlencoded", longest=120)}
SATA = {**_DRIVE, **_SSD, **_WWN}
SCSI = {**_DRIVE, **_SSD, **_WWN, **_THREAD, "queues": number(2), "scsiblock": flag(0)}
VIRTIO = {**_DRIVE, **_THREAD}
UNUSED = {"file": text("pve-volume-id", optional=False, default_key=True), "volume": _ALSO_VOLUME}
EFI_DISK = {
    "file": _VOLUME,
    "volume": _ALSO_VOLUME,
    "format": choice(_IMAGE_FORMATS),
    "size": _SIZE,
    "efitype": choice("2m 4m", "2m"),
    "pre-enrolled-keys": flag(0),
    "import-from": _FROM,
}
TPM_STATE = {
    "file": _VOLUME,
    "volume": _ALSO_VOLUME,
    "size": _SIZE,
    "version": choice("v1.2 v2.0", "v2.0"),
    "import-from": _FROM,
}
DRIVES: dict[str, Parameter] = {
    **numbered("ide", 4, text(IDE)),
    **numbered("sata", 6, text(SATA)),
    **numbered("scsi", 31, text(SCSI)),
    **numbered("virtio", 16, text(VIRTIO)),
    **numbered("unused", 256, text(UNUSED)),
    "efidisk0": text(EFI_DISK),
    "tpmstate0": text(TPM_STATE),
}

MEMORY = {"current": Parameter(type="integer", minimum=16, default=512, default_key=True)}
AGENT = {
    "enabled": Parameter(type="boolean", default=0, default_key=True),
    "fstrim_cloned_disks": flag(0),
    "freeze-fs-on-backup": flag(1),
    "type": choice("virtio isa", "virtio"),
}
VGA = {
    "type": choice(
        "cirrus qxl qxl2 qxl3 qxl4 none serial0 serial1 serial2 serial3 std virtio virtio-gl vmware",
        "std",
        default_key=True,
    ),
    "memory": number(4, 512),
    "clipboard": choice("vnc"),
}
NUMA = {
    "cpus": text(pattern=_RANGES, optional=False),
    "memory": number(kind="number"),
    "hostnodes": text(pattern=_RANGES),
    "policy": choice("preferred bind interleave"),
}
USB = {
    "host": text(
        pattern=r"(0x)?[0-9A-Fa-f]{4}:(0x)?[0-9A-Fa-f]{4}|\d+-\d+(\.\d+)*|[Ss][Pp][Ii][Cc][Ee]", default_key=True
    ),
    "mapping": text("pve-configid"),
    "usb3": flag(0),
}
RNG = {
    "source": choice("/dev/urandom /dev/random /dev/hwrng", optional=False, default_key=True),
    "max_bytes": number(default=1024),
    "period": number(default=1000),
}
AUDIO = {
    "device": choice("ich9-intel-hda intel-hda AC97", optional=False),
    "driver": choice("spice none", "spice"),
}
SHARED_MEMORY = {"size": number(1, optional=False), "name": text(pattern=r"[a-zA-Z0-9\-]+")}
SPICE = {"foldersharing": flag(0), "videostreaming": choice("off all filter", "off")}

_PROCESSOR: dict[str, Parameter] = {
    "cores": number(1, default=1),
    "sockets": number(1, default=1),
    "smp": number(1, default=1),
    "vcpus": number(1, default=0),
    "cpu": text("pve-vm-cpu-conf"),
    "cpulimit": number(0, 128, 0, "number"),
    "cpuunits": number(1, 262144, "cgroup v1: 1024, cgroup v2: 100"),
    "affinity": text("pve-cpuset"),
    "numa": flag(0),
    **numbered("numa", 8, text(NUMA)),
    "kvm": flag(1),
    "arch": choice("x86_64 aarch64"),
}
_MEMORY: dict[str, Parameter] = {
    "memory": text(MEMORY),
    "balloon": number(0),
    "shares": number(0, 50000, 1000),
    "hugepages": choice("any 2 1024"),
    "keephugepages": flag(0),
    "ivshmem": text(SHARED_MEMORY),
}
_MACHINE: dict[str, Parameter] = {
    "machine": text(
        pattern=r"(pc|pc(-i440fx)?-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|q35|pc-q35-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?"
        r"|virt(?:-\d+(\.\d+)+)?(\+pve\d+)?)",
        longest=40,
    ),
    "bios": choice("seabios ovmf", "seabios"),
    "acpi": flag(1),
    "ostype": choice("other wxp w2k w2k3 w2k8 wvista win7 win8 win10 win11 l24 l26 solaris"),
    "boot": text("pve-qm-boot"),
    "bootdisk": text("pve-qm-bootdisk", pattern=r"(ide|sata|scsi|virtio)\d+"),
    "cdrom": text("pve-qm-ide"),
    "scsihw": choice("lsi lsi53c810 virtio-scsi-pci virtio-scsi-single megasas pvscsi", "lsi"),
    "smbios1": text("pve-qm-smbios1", longest=512),
    "vmgenid": text(
        pattern=r"(?:[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}|[01])", default="1 (autogenerated)"
    ),
    "args": text(),
    "localtime": flag(),
    "startdate": text(pattern=r"(now|\d{4}-\d{1,2}-\d{1,2}(T\d{1,2}:\d{1,2}:\d{1,2})?)", default="now"),
    "tdf": flag(0),
    "freeze": flag(),
    "reboot": flag(1),
}
_DEVICES: dict[str, Parameter] = {
    **DRIVES,
    **numbered("net", 32, text(NETWORK_CARD)),
    **numbered("serial", 4, text(pattern="(/dev/.+|socket)")),
    **numbered("parallel", 3, text(pattern=r"/dev/parport\d+|/dev/usb/lp\d+")),
    **numbered("usb", 14, text(USB)),
    **numbered("hostpci", 16, text("pve-qm-hostpci")),
    "vga": text(VGA),
    "rng0": text(RNG),
    "audio0": text(AUDIO),
    "watchdog": text("pve-qm-watchdog"),
    "tablet": flag(1),
    "keyboard": choice(
        "de de-ch da en-gb en-us es fi fr fr-be fr-ca fr-ch hu is it ja lt mk nl no pl pt pt-br sv sl tr"
    ),
    "spice_enhancements": text(SPICE),
    "hotplug": text("pve-hotplug-features", default="network,disk,usb"),
}
_CLOUD_INIT: dict[str, Parameter] = {
    "citype": choice("configdrive2 nocloud opennebula"),
    "ciuser": text(),
    "cipassword": text(),
    "ciupgrade": flag(1),
    "cicustom": text("pve-qm-cicustom"),
    "sshkeys": text("urlencoded"),
    "nameserver": text("address-list"),
    "searchdomain": text(),
    **numbered("ipconfig", 32, text("pve-qm-ipconfig")),
}
_KEEPING: dict[str, Parameter] = {
    "name": text("dns-name"),
    "description": text(longest=8192),
    "tags": text("pve-tag-list"),
    "onboot": flag(0),
    "autostart": flag(0),
    "startup": text("pve-startup-order"),
    "protection": flag(0),
    "template": flag(0),
    "lock": choice("backup clone create migrate rollback snapshot snapshot-delete suspending suspended"),
    "agent": text(AGENT),
    "hookscript": text("pve-volume-id"),
    "vmstatestorage": STORAGE,
    "migrate_speed": number(0, default=0),
    "migrate_downtime": number(0, default=0.1, kind="number"),
}

VM_OPTIONS: dict[str, Parameter] = {**_PROCESSOR, **_MEMORY, **_MACHINE, **_DEVICES, **_CLOUD_INIT, **_KEEPING}
"""What a virtual machine's configuration may hold."""

CREATE: dict[str, Parameter] = {
    "node": NODE,
    "vmid": VMID,
    "archive": text(longest=255),
    "storage": STORAGE,
    "pool": text("pve-poolid"),
    "start": flag(0),
    "bwlimit": number(0, default="restore limit from datacenter or storage config"),
    **{
        name: Parameter(type="boolean", optional=True, requires="archive")
        for name in ("force", "unique", "live-restore")
    },
    **VM_OPTIONS,
}
"""Parameters of ``POST /nodes/{node}/qemu``."""

CHANGE: dict[str, Parameter] = {
    "node": NODE,
    "vmid": VMID,
    "skiplock": SKIPLOCK,
    "delete": text("pve-configid-list"),
    "revert": text("pve-configid-list"),
    "digest": DIGEST,
    "force": Parameter(type="boolean", optional=True, requires="delete"),
    **VM_OPTIONS,
}
"""Parameters of ``PUT /nodes/{node}/qemu/{vmid}/config``."""

CHANGE_LATER: dict[str, Parameter] = {**CHANGE, "background_delay": number(1, 30)}
"""Parameters of ``POST /nodes/{node}/qemu/{vmid}/config``."""
