"""All settings that a container's configuration may have, and what making and changing one take.

Source: the API schema of Proxmox VE 8.1, with which the tests compare each declaration.
"""

from __future__ import annotations

from ..declaration import Parameter, numbered
from ..options import NODE, STORAGE, VMID, choice, flag, number, text

NETWORK: dict[str, Parameter] = {
    "name": text(pattern=r"[-_.\w\d]+", optional=False),
    "bridge": text(pattern=r"[-_.\w\d]+"),
    "firewall": flag(),
    "gw": text("ipv4"),
    "gw6": text("ipv6"),
    "hwaddr": text("mac-addr"),
    "ip": text("pve-ipv4-config"),
    "ip6": text("pve-ipv6-config"),
    "link_down": flag(),
    "mtu": number(64, 65535),
    "rate": number(kind="number"),
    "tag": number(1, 4094),
    "trunks": text(pattern=r"(?:\d+(?:;\d+)*)"),
    "type": choice("veth"),
}
_MOUNT_OPTIONS = r"(?:(?:(noatime|lazytime|nodev|nosuid|noexec))(;(?:(noatime|lazytime|nodev|nosuid|noexec)))*)"
ROOT_DISK: dict[str, Parameter] = {
    "volume": text("pve-lxc-mp-string", optional=False, default_key=True),
    "acl": flag(),
    "mountoptions": text(pattern=_MOUNT_OPTIONS),
    "quota": flag(),
    "replicate": flag(1),
    "ro": flag(),
    "shared": flag(0),
    "size": text("disk-size"),
}
MOUNT_POINT: dict[str, Parameter] = {
    **ROOT_DISK,
    "backup": flag(),
    "mp": text("pve-lxc-mp-string", optional=False),
}
UNUSED: dict[str, Parameter] = {"volume": text("pve-volume-id", optional=False, default_key=True)}
DEVICE: dict[str, Parameter] = {
    "path": text("pve-lxc-dev-string", default_key=True),
    "gid": number(0),
    "mode": text(pattern="0[0-7]{3}"),
    "uid": number(0),
}
FEATURES: dict[str, Parameter] = {
    **{name: flag(0) for name in ("force_rw_sys", "fuse", "keyctl", "mknod", "nesting")},
    "mount": text(pattern="(?:[a-zA-Z0-9_; ]+)"),
}

CT_OPTIONS: dict[str, Parameter] = {
    "arch": choice("amd64 i386 arm64 armhf riscv32 riscv64", "amd64"),
    "cmode": choice("shell console tty", "tty"),
    "console": flag(1),
    "cores": number(1, 8192),
    "cpulimit": number(0, 8192, 0, "number"),
    "cpuunits": number(0, 500000, "cgroup v1: 1024, cgroup v2: 100"),
    "debug": flag(0),
    "description": text(longest=8192),
    **numbered("dev", 16, text(DEVICE)),
    "features": text(FEATURES),
    "hookscript": text("pve-volume-id"),
    "hostname": text("dns-name", longest=255),
    "lock": choice("backup create destroyed disk fstrim migrate mounted rollback snapshot snapshot-delete"),
    "memory": number(16, default=512),
    **numbered("mp", 256, text(MOUNT_POINT)),
    "nameserver": text("lxc-ip-with-ll-iface-list"),
    **numbered("net", 32, text(NETWORK)),
    "onboot": flag(0),
    "ostype": choice("debian devuan ubuntu centos fedora opensuse archlinux alpine gentoo nixos unmanaged"),
    "protection": flag(0),
    "rootfs": text(ROOT_DISK),
    "searchdomain": text("dns-name-list"),
    "startup": text("pve-startup-order"),
    "swap": number(0, default=512),
    "tags": text("pve-tag-list"),
    "template": flag(0),
    "timezone": text("pve-ct-timezone"),
    "tty": number(0, 6, 2),
    "unprivileged": flag(0),
    **numbered("unused", 256, text(UNUSED)),
}
"""What a container's configuration may hold."""

CREATE: dict[str, Parameter] = {
    "node": NODE,
    "vmid": VMID,
    "bwlimit": number(0, default="restore limit from datacenter or storage config", kind="number"),
    "force": flag(),
    "ignore-unpack-errors": flag(),
    "ostemplate": Parameter(max_length=255),
    "password": Parameter(optional=True, min_length=5),
    "pool": text("pve-poolid"),
    "restore": flag(),
    "ssh-public-keys": text(),
    "start": flag(0),
    "storage": text("pve-storage-id", default="local"),
    "unique": Parameter(type="boolean", optional=True, requires="restore"),
    **CT_OPTIONS,
}
"""Parameters of ``POST /nodes/{node}/lxc``."""

CHANGE: dict[str, Parameter] = {
    "node": NODE,
    "vmid": VMID,
    "delete": text("pve-configid-list"),
    "digest": text(longest=40),
    "revert": text("pve-configid-list"),
    **CT_OPTIONS,
}
"""Parameters of ``PUT /nodes/{node}/lxc/{vmid}/config``."""

CLONE: dict[str, Parameter] = {
    "node": NODE,
    "vmid": VMID,
    "bwlimit": number(0, default="clone limit from datacenter or storage config", kind="number"),
    "description": text(),
    "full": flag(),
    "hostname": text("dns-name"),
    "newid": VMID,
    "pool": text("pve-poolid"),
    "snapname": text("pve-configid", longest=40),
    "storage": STORAGE,
    "target": text("pve-node"),
}
"""Parameters of ``POST /nodes/{node}/lxc/{vmid}/clone``."""
