"""Command lines of machines, beside those that Proxmox VE makes of the same configurations."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from course.cluster.config.guest import GuestConfig
from course.cluster.vm import commandline, hardware, processor
from course.error import ClusterError
from tests.cluster.conftest import Compare

COMPARED = ("-device", "-smp", "-m", "-smbios", "-numa", "-global", "-rtc", "-chardev", "-object")
OURS = re.compile(  # what the lab has, and has in the same way
    r"ide-|scsi-|virtio-(blk|net|scsi|balloon|rng)|e1000|rtl8139|VGA|cirrus|vmgenid|usb-tablet|pci-bridge|piix3-usb"
    r"|lsi|megasas|pvscsi|ahci|isa-serial|i6300esb|^\d+$|sockets=|type=1,|node,nodeid|(ICH9-LPC|PIIX4_PM)\.disable"
    r"|driftfix|base=|socket,id=serial|iothread,|memory-backend-ram|rng-random"
)
OTHER = re.compile(r"machine: \S*\d\.\d|hugepages|hotplug: .*mem|template: 1|spice")
NOT_OURS = re.compile(r"bootindex=\d+,romfile|edid=off|vectors=|packed=|iommu|romfile|mem-dimm|max_outputs|windows")


def around(run: str = "/var/run/qemu-server") -> commandline.Surroundings:
    """A node with nothing but names."""
    return commandline.Surroundings(
        Path(run),
        lambda drive: {"node-name": f"drive-{drive.key}"},
        lambda card: ["-netdev", f"hubport,id={card.key}"],
        firmware=Path("/OVMF_CODE.fd"),
    )


def pairs(words: list[str]) -> set[tuple[str, str]]:
    """Return options with their values."""
    found = set()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("-"):
            found.add((word, "" if following.startswith("-") else following))
    return found


def vectors(folder: Path) -> Iterator[tuple[str, object, object]]:
    """Yield each part of upstream's command lines that the lab makes too, with whether ours has it."""
    for path in sorted(folder.glob("*.conf")):
        expected = path.with_name(f"{path.name}.cmd")
        text = path.read_text()
        version = re.search(r"QEMU_VERSION: (\d+)", text)
        if not expected.exists() or "HOST_ARCH" in text or (version and int(version[1]) < 8):
            continue
        values = GuestConfig.parse(re.sub(r"(?m)^# .*\n", "", text)).current.values
        if (
            "args" in values
            or "pinned" in path.name
            or re.search(r"machine: \S*\d\.\d|hugepages|hotplug: .*mem|template: 1|spice", text)
        ):
            continue
        if "tpmstate0" in values or any(key.startswith("hostpci") for key in values):
            continue
        if "i440fx-5.1" in expected.read_text():
            continue  # guests of Windows keep an old machine
        words = commandline.arguments(8006, values, around())
        ours = pairs([word.replace(",write-cache=off", "") for word in words])  # there it is the drive's option
        theirs = shlex.split(expected.read_text().replace("\\\n", ""))[1:]
        for option, value in sorted(pairs(theirs)):
            if option not in COMPARED or not OURS.search(value) or NOT_OURS.search(value):
                continue
            drive = re.search(r",drive=drive-(\w+)", value)
            empty = drive and hardware.drive(drive[1], values[drive[1]]).is_empty
            wanted = value.replace(drive[0], "") if drive and empty else value  # no medium, no block device here
            yield f"{path.name}: {option} {value}", True, (option, wanted) in ours


def test_a_machine_has_the_devices_and_places_that_proxmox_gives_it(pve: Path, compare: Compare) -> None:
    """Controllers, disks, boot order, cards, memory, processors: the same words."""
    compare("parts of QEMU command lines", list(vectors(pve / "vectors" / "qemu-8.4" / "cfg2cmd")))


def test_a_bootorder_must_not_name_what_is_not_there() -> None:
    """Proxmox VE's words, with its stray quote."""
    with pytest.raises(ClusterError) as refused:
        hardware.assert_boot_order({"boot": "order=scsi0;net0", "scsi0": "local:1/a.raw"})
    assert refused.value.message == "invalid bootorder: device 'net0' does not exist'"


@pytest.mark.parametrize(
    ("setting", "kvm", "words"),
    [
        ("", False, "kvm64,+lahf_lm,+sep"),
        ("host", False, "max"),
        ("host,flags=+aes;-pcid", True, "host,+kvm_pv_eoi,+kvm_pv_unhalt,+aes,-pcid"),
        ("x86-64-v2-AES", False, "qemu64,+aes,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3"),
    ],
)
def test_a_processor_is_what_the_accelerator_can_be(setting: str, kvm: bool, words: str) -> None:
    """Emulation has no `host`; Proxmox VE's levels are QEMU's models with flags."""
    assert processor.model(setting, kvm=kvm) == words


def test_a_device_is_plugged_with_the_words_of_the_command_line() -> None:
    """``device_add`` gets the same device, typed: numbers as numbers, MAC and place as text."""
    card = hardware.nic("net7", "virtio=BC:24:11:00:00:01,bridge=vmbr0,mtu=1400")
    assert commandline.qmp_arguments(commandline.nic_device(card)) == {
        "driver": "virtio-net-pci",
        "mac": "BC:24:11:00:00:01",
        "netdev": "net7",
        "bus": "pci.1",
        "addr": "0x2",
        "id": "net7",
        "rx_queue_size": 1024,
        "tx_queue_size": 256,
        "host_mtu": 1400,
    }


def test_secret_words_of_smbios_are_decoded() -> None:
    """What is kept in base64 is plain on the command line, its commas doubled."""
    assert commandline.smbios_text("uuid=1-2,base64=1,manufacturer=YSxi") == "uuid=1-2,manufacturer=a,,b"
