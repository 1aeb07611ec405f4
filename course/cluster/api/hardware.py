"""What a node is made of: packages, subscription, disks, devices, certificates, what its QEMU can do."""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

from .. import certificates, host
from .common import ALL, NODE, Call, choice, endpoint, flag, index, perm, text
from .nodes import AUDIT

_NODE = {"node": NODE}
PCI = Path("/sys/bus/pci/devices")
_ANY = perm("/", "Sys.Audit", "Sys.Modify", any_of=True)

index("/nodes/{node}/apt", _NODE, key="id")
index("/nodes/{node}/disks", _NODE, key="name")
index("/nodes/{node}/hardware", _NODE, key="type")
index("/nodes/{node}/capabilities", _NODE, key="name")
index("/nodes/{node}/capabilities/qemu", _NODE, key="name")


@endpoint("GET", "/nodes/{node}/apt/versions", parameters=_NODE, permissions=AUDIT)
def versions(call: Call) -> Any:
    """Return the versions of the packages that matter."""
    release = host.VERSION["version"]
    qemu = _qemu_version()
    packages = {
        "proxmox-ve": ("8.1.0", {"RunningKernel": host.kernel()["release"]}),
        "pve-manager": (release, {"ManagerVersion": "{version}/{repoid}".format(**host.VERSION)}),
        "pve-qemu-kvm": (qemu, {}),
        "qemu-server": ("8.1.0", {}),
        "pve-cluster": ("8.0.5", {}),
        "pve-ha-manager": ("4.0.3", {}),
        "libpve-storage-perl": ("8.1.0", {}),
        "libpve-access-control": ("8.1.1", {}),
        "corosync": ("3.1.7-pve3", {}),
    }
    return [
        {
            "Package": name,
            "Title": name,
            "Version": version,
            "OldVersion": version,
            "CurrentState": "Installed",
            "Arch": "amd64",
            "Description": f"{name} as the lab cluster stands for it",
            "Origin": "Proxmox",
            "Priority": "optional",
            "Section": "admin",
            **more,
        }
        for name, (version, more) in packages.items()
    ]


@endpoint("GET", "/nodes/{node}/apt/update", parameters=_NODE, permissions=perm("/nodes/{node}", "Sys.Modify"))
def updates(call: Call) -> Any:
    """Return the packages for which there are newer ones: none."""
    return []


@endpoint("GET", "/nodes/{node}/subscription", parameters=_NODE, permissions=ALL)
def subscription(call: Call) -> Any:
    """Say that there is no subscription."""
    return {
        "status": "notfound",
        "message": "There is no subscription key",
        "serverid": hashlib.md5(call.node.name.encode(), usedforsecurity=False).hexdigest().upper(),
        "url": "https://www.proxmox.com/en/proxmox-virtual-environment/pricing",
    }


@endpoint(
    "GET",
    "/nodes/{node}/disks/list",
    parameters={
        **_NODE,
        "include-partitions": flag(0),
        "skipsmart": flag(0),
        "type": choice("unused journal_disks"),
    },
    permissions={"check": ["or", ["perm", "/", ["Sys.Audit"]], ["perm", "/nodes/{node}", ["Sys.Audit"]]]},
)
def disks(call: Call) -> Any:
    """List a node's disks: the file system that its files are on stands for one."""
    if "type" in call.values:
        return []
    said = call.node.statistics.of(call.node.name).get("node", {})
    return [
        {
            "devpath": "/dev/sda",
            "size": said.get("maxdisk", 0),
            "used": "LVM",
            "gpt": 1,
            "mounted": 1,
            "model": "Lab disk",
            "vendor": "LAB",
            "serial": f"LAB-{call.node.name}",
            "health": "PASSED",
            "type": "ssd",
            "wearout": "N/A",
            "rpm": 0,
            "osdid": -1,
            "osdid-list": [],
            "by_id_link": f"/dev/disk/by-id/ata-LAB-{call.node.name}",
        }
    ]


@endpoint(
    "GET",
    "/nodes/{node}/hardware/pci",
    parameters={**_NODE, "pci-class-blacklist": text("string-list", default="05;06;0b"), "verbose": flag(1)},
    permissions=_ANY,
)
def pci(call: Call) -> Any:
    """List the host's PCI devices, but for classes that nobody passes on to a guest."""
    unwanted = [word for word in re.split(r"[,;\s]+", call.values.get("pci-class-blacklist", "05;06;0b")) if word]
    found = []
    for path in sorted(PCI.glob("*")) if PCI.is_dir() else ():
        kind = host.read(path / "class").strip()
        if any(kind.removeprefix("0x").startswith(word) for word in unwanted):
            continue
        group = path / "iommu_group"
        entry = {
            "id": path.name,
            "class": kind,
            "vendor": host.read(path / "vendor").strip(),
            "device": host.read(path / "device").strip(),
            "iommugroup": int(group.resolve().name) if group.exists() else -1,
        }
        found.append(entry if call.values.get("verbose", 1) else {"id": entry["id"]})
    return found


@endpoint("GET", "/nodes/{node}/hardware/usb", parameters=_NODE, permissions=perm("/", "Sys.Modify"))
def usb(call: Call) -> Any:
    """List the host's USB devices: none that a guest of the lab may have."""
    return []


@endpoint("GET", "/nodes/{node}/netstat", parameters=_NODE, permissions=AUDIT)
def netstat(call: Call) -> Any:
    """Return what went through each network card of the node's guests."""
    if call.node.fabric is None:
        return []
    found = []
    for place in call.node.state.guests().values():
        if place.node == call.node.name:
            for device, counts in call.node.fabric.counters(place.vmid).items():
                found.append(
                    {"vmid": str(place.vmid), "dev": device, "in": str(counts["netin"]), "out": str(counts["netout"])}
                )
    return found


@endpoint("GET", "/nodes/{node}/capabilities/qemu/cpu", parameters=_NODE, permissions=ALL, proxy=None)
def cpus(call: Call) -> Any:
    """List the processors that the node's QEMU can be."""
    models = re.findall(r"^(?:x86 )?\s*([A-Za-z][\w.-]*)", _qemu_help("-cpu").partition("Recognized")[0], re.MULTILINE)
    names = sorted({*(model for model in models if model not in ("Available", "base", "x86")), "host", "max"})
    return [{"name": name, "custom": 0, "vendor": _vendor(name)} for name in names]


def _vendor(name: str) -> str:
    if name.startswith(("EPYC", "Opteron", "phenom", "athlon")):
        return "AuthenticAMD"
    plain = name.startswith(("kvm", "qemu", "host", "max", "x86-64"))
    return "default" if plain else "GenuineIntel"


@endpoint("GET", "/nodes/{node}/capabilities/qemu/machines", parameters=_NODE, permissions=ALL)
def machines(call: Call) -> Any:
    """List the machines that the node's QEMU can be."""
    found = re.findall(r"^(pc-(i440fx|q35)-(\d+\.\d+)(?:\.\d+)?)\s", _qemu_help("-machine"), re.MULTILINE)
    return [{"id": name, "type": kind, "version": version} for name, kind, version in found]


@functools.cache
def _qemu_help(option: str) -> str:
    """Return what QEMU says about an option; nothing where there is no QEMU."""
    try:
        done = subprocess.run(
            ["qemu-system-x86_64", option, "help"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


@functools.cache
def _qemu_version() -> str:
    try:
        done = subprocess.run(
            ["qemu-system-x86_64", "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"version (\S+)", done.stdout)
    return found[1] if found else "unknown"


index("/nodes/{node}/certificates", _NODE, key="name")


@endpoint("GET", "/nodes/{node}/certificates/info", parameters=_NODE, permissions=ALL)
def certificate(call: Call) -> Any:
    """Return the authority's certificate and the node's."""
    state, name = call.node.state, call.node.name
    files = {"pve-root-ca.pem": "pve-root-ca.pem", "pve-ssl.pem": f"nodes/{name}/pve-ssl.pem"}
    return [{"filename": shown, **certificates.describe(state.read(path))} for shown, path in files.items()]
