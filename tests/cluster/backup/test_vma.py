"""The VMA format: what is written is read again, also by a reader that nobody here wrote; damage is found."""

from __future__ import annotations

import contextlib
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.cluster.backup import packing, vma
from course.error import ClusterError

from ..steady import steady


def written(disks, configs=None, ctime=1_700_000_000):
    """Return an archive of disks given as bytes."""
    file = io.BytesIO()
    names = [(name, len(content)) for name, content in disks.items()]
    writer = vma.Writer(file, configs or {"qemu-server.conf": b"memory: 64\n"}, names, ctime=ctime)
    for number, content in enumerate(disks.values(), 1):
        for at in range(0, len(content), vma.CLUSTER):
            writer.write(number, at // vma.CLUSTER, content[at : at + vma.CLUSTER])
    writer.close()
    return file.getvalue()


def read(archive):
    """Return the disks of an archive as bytes."""
    reader = vma.Reader(io.BytesIO(archive))
    found = {device.name: bytearray(device.size) for device in reader.header.devices.values()}
    for device, offset, data in reader.clusters():
        found[device.name][offset : offset + len(data)] = data
    return reader.header, {name: bytes(content) for name, content in found.items()}


def some_disk(seed, size):
    """A disk with full, empty and mixed blocks."""
    chance = random.Random(seed)
    blocks = [
        chance.choice([b"\0" * 4096, chance.randbytes(4096), b"\0" * 4000 + b"x" * 96]) for _ in range(-(-size // 4096))
    ]
    return b"".join(blocks)[:size]


def test_what_is_written_is_read():
    """Configuration, names, sizes and every byte survive, over several extents and with an odd end."""
    disks = {"drive-scsi0": some_disk(1, 9 << 20), "drive-virtio1": some_disk(2, 70_144), "empty": b""}
    header, found = read(written(disks, {"qemu-server.conf": b"a: 1\n", "qemu-server.fw": b"[OPTIONS]\n"}))
    assert found == disks
    assert header.configs == {"qemu-server.conf": b"a: 1\n", "qemu-server.fw": b"[OPTIONS]\n"}
    assert header.ctime == 1_700_000_000
    assert [device.id for device in header.devices.values()] == [1, 2, 3]


@steady
@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 5)), max_size=3))
def test_any_disks_survive(shapes):
    """Whatever the sizes are."""
    disks = {f"drive-scsi{n}": some_disk(seed, size) for n, (size, seed) in enumerate(shapes)}
    assert read(written(disks))[1] == disks


def test_zeros_take_no_room():
    """A gibibyte of zeros is a header and an entry for each cluster."""
    file = io.BytesIO()
    writer = vma.Writer(file, {}, [("drive-scsi0", 1 << 30)], ctime=0)
    for number in range((1 << 30) // vma.CLUSTER):
        writer.write(1, number, b"")
    writer.close()
    assert len(file.getvalue()) < 200_000


def test_a_reader_of_others_reads_it(tmp_path):
    """dissect.archive, where it is installed, finds the same configuration and bytes."""
    dissect = pytest.importorskip("dissect.archive.vma", reason="dissect.archive is not installed")
    disks = {"drive-scsi0": some_disk(3, 5 << 20), "drive-scsi1": some_disk(4, 1 << 20)}
    path = tmp_path / "x.vma"
    path.write_bytes(written(disks))
    with path.open("rb") as file:
        archive = dissect.VMA(file)
        assert archive.config("qemu-server.conf") == b"memory: 64\n"
        devices = {device.name: device for device in archive.devices()}
        assert set(devices) == set(disks)
        for name, content in disks.items():
            device = devices[name]
            assert device.size == len(content)
            assert device.open().read() == content


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda a: b"XMA" + a[3:], "wrong magic number"),
        (lambda a: a[:4] + b"\0\0\0\2" + a[8:], "wrong vma version"),
        (lambda a: a[:20] + bytes([a[20] ^ 1]) + a[21:], "wrong vma header checksum"),
        (lambda a: a[:100], "truncated"),
        (lambda a: a[:-1], "truncated"),
        (lambda a: a[:12800], "missing cluster 0"),
    ],
)
def test_damage_is_found(damage, words):
    """A changed or cut archive is refused."""
    archive = written({"drive-scsi0": some_disk(5, 200_000)})
    with pytest.raises(ClusterError, match=words):
        read(damage(archive))


def test_damage_of_an_extent_is_found():
    """An extent's header is checked as well."""
    archive = bytearray(written({"drive-scsi0": some_disk(6, 200_000)}))
    at = archive.index(b"VMAE")
    archive[at + 45] ^= 1
    with pytest.raises(ClusterError, match="extent header checksum"):
        read(bytes(archive))


@steady
@given(st.binary(max_size=40), st.integers(0, 13_500))
def test_no_bytes_make_the_reader_crash(noise, at):
    """Noise in an archive is an error of ours, never another one."""
    archive = written({"drive-scsi0": some_disk(7, 8192)})
    damaged = archive[:at] + noise + archive[at + len(noise) :]
    with contextlib.suppress(ClusterError):
        read(damaged)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_packed_archives_are_read_again(tmp_path, ending):
    """What was compressed is what comes back, in pieces of any size."""
    content = some_disk(8, 3 << 20)
    path = tmp_path / f"x.vma{ending}"
    with packing.writing(path, ending) as file:
        for at in range(0, len(content), 100_001):
            file.write(content[at : at + 100_001])
    with packing.reading(path) as file:
        assert file.read(len(content) + 1) == content
    if ending:
        assert path.stat().st_size < len(content)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_cut_packed_archive_is_refused(tmp_path, ending):
    """A file that ends too early is damaged, not short."""
    path = tmp_path / f"x.vma{ending}"
    with packing.writing(path, ending) as file:
        file.write(some_disk(9, 1 << 20))
    path.write_bytes(path.read_bytes()[:-200])

    def read_all():
        with packing.reading(path) as file:
            while file.read(1 << 16):
                pass

    with pytest.raises(ClusterError, match="unable to read"):
        read_all()


def test_what_cannot_be_packed_is_refused():
    """LZO has no library here, and that is said before anything begins."""
    with pytest.raises(ClusterError, match="'lzo' is not available"):
        packing.assert_available("lzo")
