"""Recordings: ours are read back, and QEMU's too."""

from __future__ import annotations

import struct

import pytest

from course.error import UsageError
from course.machine import Machine
from course.network import pcap
from course.network.frames import layers

FRAMES = [pcap.Captured(1795462573.25, b"\xff" * 14, 14), pcap.Captured(1795462573.5, bytes(20), 1514)]


def test_a_recording_is_read_back():
    """Times, bytes and the lengths of frames that were cut survive."""
    assert list(pcap.read(pcap.dump(FRAMES))) == FRAMES


def test_a_recording_of_the_other_order_of_bytes_is_read():
    """A recording that a big-endian machine wrote, in nanoseconds, gives the same frames."""
    header = struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    record = struct.pack(">IIII", 10, 500_000_000, 3, 60) + b"abc"
    assert list(pcap.read(header + record)) == [pcap.Captured(10.5, b"abc", 60)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with nothing"),
        (bytes(24), "no recording"),
        (pcap.header() + bytes(8), "within a frame's header"),
        (pcap.dump(FRAMES)[:-1], "within a frame"),
        (pcap.header() + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "within a frame"),
    ],
)
def test_what_is_no_recording_is_refused(data, words):
    """Each kind of damage has its message."""
    with pytest.raises(UsageError, match=words):
        list(pcap.read(data))


@pytest.mark.qemu
def test_qemus_recordings_are_read(tmp_path):
    """QEMU's filter-dump writes what its boot ROM sends; the reader gets whole frames from it."""
    path = tmp_path / "boot.pcap"
    arguments = (
        "-M", "q35", "-m", "32", "-boot", "order=n", "-netdev", "hubport,id=net0,hubid=0",
        "-device", "virtio-net-pci,netdev=net0,mac=bc:24:11:00:00:01",
        "-object", f"filter-dump,id=dump0,netdev=net0,file={path}",
    )  # fmt: skip
    with Machine(*arguments) as machine:
        found: list[pcap.Captured] = []
        while not found:  # the boot ROM asks for an address until somebody answers; each test has its time limit
            assert machine.running
            try:
                found = [one for one in pcap.read(path.read_bytes()) if one.length > 300]
            except (UsageError, FileNotFoundError):  # it writes just now
                continue
    names = [type(layer).__name__ for layer in layers(found[0].data)]
    assert names == ["Ethernet", "IPv4", "Udp"]
    assert layers(found[0].data)[2].dport == 67
