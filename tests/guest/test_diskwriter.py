"""The guest that numbers its writes, and the reading of a disk that it wrote to."""

from __future__ import annotations

import random

import pytest

from course import Machine, guest
from course.error import UsageError
from course.guest.diskwriter import SECTOR_BYTES, last_write, writer
from course.machine import disk


def written(writes: int, sectors: int) -> bytearray:
    """A disk after so many writes, made write by write."""
    content = bytearray(sectors * SECTOR_BYTES)
    for number in range(1, writes + 1):
        at = number % sectors * SECTOR_BYTES
        content[at : at + 4] = number.to_bytes(4, "little")
    return content


@pytest.mark.parametrize("sectors", [1, 2, 7, 64])
def test_last_write_is_read_from_any_moment(sectors):
    """After any number of writes, also none and less than one round, the number is found."""
    for writes in range(3 * sectors + 2):
        assert last_write(bytes(written(writes, sectors)), sectors) == writes


def test_a_mixture_of_moments_is_none():
    """A disk of which one part is older or younger than the rest never existed."""
    rng = random.Random(9)
    for _ in range(50):
        early = rng.randrange(1, 200)
        late = early + rng.randrange(2, 200)
        first, second = written(early, 16), written(late, 16)
        changed = [i for i in range(0, len(first), SECTOR_BYTES) if first[i : i + 4] != second[i : i + 4]]
        newest = late % 16 * SECTOR_BYTES
        torn = rng.choice([at for at in changed if at != newest])
        second[torn : torn + SECTOR_BYTES] = first[torn : torn + SECTOR_BYTES]
        assert last_write(bytes(second), 16) is None


def test_other_contents_are_none():
    """A sector with more than the number was not written by this guest."""
    content = written(20, 8)
    content[3 * SECTOR_BYTES + 100] = 1
    assert last_write(bytes(content), 8) is None


@pytest.mark.parametrize("sectors", [0, -1, (1 << 20) + 1])
def test_writer_refuses_sectors_that_it_cannot_address(sectors):
    """The error says what was given and what is expected."""
    with pytest.raises(UsageError, match=rf"{sectors}; expected 1 to"):
        writer(sectors)


@pytest.mark.qemu
def test_a_paused_guest_leaves_the_disk_at_its_count(tmp_path):
    """What qemu-img reads after a pause is the disk after the write that the guest has counted last, or the next."""
    image = disk.create(tmp_path / "disk.qcow2", 1)
    block = f"driver=qcow2,node-name=disk0,file.driver=file,file.filename={image}"
    device = "ide-hd,drive=disk0,bus=ide.0"
    with Machine("-m", "32", "-kernel", writer(32), "-blockdev", block, "-device", device) as vm:
        while guest.counter(vm) < 100:
            pass
        vm.pause()
        count = guest.counter(vm)
    raw = disk.convert(image, tmp_path / "disk.raw", format="raw").read_bytes()
    assert last_write(raw, 32) in (count, count + 1)
