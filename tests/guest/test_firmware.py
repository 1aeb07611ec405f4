"""What boots without an operating system, in real machines."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from course import Machine, guest
from course.error import UsageError
from course.guest import bootcounter

pytestmark = pytest.mark.qemu


def counted(vm: Machine, least: int) -> int:
    """Wait until a guest has counted to `least`."""
    end = time.monotonic() + 60
    while (count := guest.counter(vm)) < least:
        assert time.monotonic() < end, f"the counter stands at {count}"
        time.sleep(0.01)
    return count


def test_disk_boots() -> None:
    """A boot sector says its message on the serial port."""
    with Machine("-drive", f"file={guest.bootsector.disk('from disk 7')},format=raw,snapshot=on") as vm:
        vm.console.expect("from disk 7\n")


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_cd_boots(machine: str) -> None:
    """An El Torito CD boots on an IDE, SATA or SCSI drive."""
    cd = guest.bootsector.cd("from the CD")
    with Machine("-M", machine, "-cdrom", cd) as vm:
        vm.console.expect("from the CD\n")
    with Machine("-M", machine, *guest.iso.drive(cd)) as vm:
        vm.console.expect("from the CD\n")


def test_the_counting_cd_counts_on_the_serial_line_and_in_memory() -> None:
    """Each number is one more than the one before, from 1 on; the last one is at 0x500."""
    with Machine("-m", "32", "-cdrom", bootcounter.cd()) as vm:
        vm.console.expect("\n12\n")
        vm.pause()
        numbers = [int(line) for line in vm.console.text.split("\n")[:-1] if line.isdecimal()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert abs(guest.counter(vm) - numbers[-1]) <= 1


@pytest.mark.parametrize(("order", "expected"), [("c", "disk"), ("d", "CD")])
def test_boot_order_decides(order: str, expected: str) -> None:
    """With disk and CD in one machine, the firmware takes the first in the order."""
    disk, cd = guest.bootsector.disk("from the disk"), guest.bootsector.cd("from the CD")
    drives = ("-drive", f"file={disk},format=raw,snapshot=on", "-cdrom", cd)
    with Machine("-M", "pc", *drives, "-boot", f"order={order}") as vm:
        assert vm.console.expect(r"from the (\w+)\n")[1] == expected


def test_bootindex_decides() -> None:
    """The CD drive takes a place in the boot order."""
    disk, cd = guest.bootsector.disk("from the disk"), guest.bootsector.cd("from the CD")
    drives = (
        *("-blockdev", f"driver=raw,node-name=d,read-only=on,file.driver=file,file.filename={disk}"),
        *("-device", "virtio-blk-pci,drive=d,bootindex=1"),
    )
    with Machine("-M", "q35", *drives, *guest.iso.drive(cd, bootindex=0)) as vm:
        vm.console.expect("from the CD")
    with Machine("-M", "q35", *drives, *guest.iso.drive(cd, bootindex=2)) as vm:
        vm.console.expect("from the disk")


def test_disk_of_ones_own_is_written_where_asked(tmp_path: Path) -> None:
    """With a path, the disk is the caller's; `qemu-img` sees 1 MiB, raw."""
    path = guest.bootsector.disk("mine", tmp_path / "mine.img")
    assert path == tmp_path / "mine.img"
    told = subprocess.run(["qemu-img", "info", "-f", "raw", str(path)], check=True, capture_output=True, text=True)
    assert "1048576 bytes" in told.stdout
    assert path.read_bytes()[510:512] == b"\x55\xaa"


@pytest.mark.parametrize("message", ["", "naïve", "x" * 400, "a\0b"])
def test_boot_sector_refuses_what_does_not_fit(message: str) -> None:
    """Empty, not ASCII or too long: the value and the room are named."""
    with pytest.raises(UsageError, match="message"):
        guest.bootsector.sector(message)


def test_boot_sector_takes_the_longest_message_it_offers() -> None:
    """The room named in the refusal is really there."""
    with pytest.raises(UsageError, match="room for") as caught:
        guest.bootsector.sector("x" * 1000)
    room = int(str(caught.value).rpartition(" ")[2])
    assert len(guest.bootsector.sector("x" * room)) == 512
    with pytest.raises(UsageError):
        guest.bootsector.sector("x" * (room + 1))


def test_bare_metal_says_hello() -> None:
    """A Multiboot program prints on the serial port."""
    with Machine("-kernel", guest.baremetal.hello("good morning")) as vm:
        vm.console.expect("good morning\n")


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_bare_metal_counts(machine: str) -> None:
    """The number at 0x500 grows from 1, stands in a pause, and begins again after a reset."""
    with Machine("-M", machine, "-kernel", guest.baremetal.counter()) as vm:
        vm.console.expect("counter\n")
        high = counted(vm, 20)
        vm.pause()
        assert guest.counter(vm) == guest.counter(vm) >= high
        vm.resume()
        high = counted(vm, high + 1)
        vm.execute("system_reset")
        vm.console.expect("counter\n")
        assert guest.counter(vm) < high


def test_bare_metal_at_rest_leaves_the_host_alone() -> None:
    """Between two counts the processor halts: most samples find it so."""
    with Machine("-kernel", guest.baremetal.counter()) as vm:
        vm.console.expect("counter\n")
        counted(vm, 5)
        halted = sum("halted" in vm.hmp("info cpus") or "HLT=1" in vm.hmp("info registers") for _ in range(20))
        assert halted >= 10


def test_bare_metal_dirties_what_it_says() -> None:
    """Each round writes one word in each page of the range, and none after it."""
    with Machine("-m", "32", "-kernel", guest.baremetal.counter(dirty_mib=8)) as vm:
        vm.console.expect("counter, dirtying 8 MiB\n")
        counted(vm, 2)
        vm.pause()
        count = guest.counter(vm)
        first, last, after = (vm.read_memory(at, 4) for at in (4 << 20, (12 << 20) - 4096, 12 << 20))
        for written in (first, last):
            assert int.from_bytes(written, "little") in (count, count + 1)
        assert after == bytes(4)


@pytest.mark.parametrize("dirty_mib", [-1, 4000])
def test_bare_metal_refuses_absurd_sizes(dirty_mib: int) -> None:
    """The size is checked before anything is made."""
    with pytest.raises(UsageError, match=str(dirty_mib)):
        guest.baremetal.counter(dirty_mib)


def test_counter_goes_on_over_a_migration() -> None:
    """The number arrives with the RAM."""
    kernel = guest.baremetal.counter()
    with Machine("-kernel", kernel) as source, Machine("-kernel", kernel, incoming=True) as target:
        source.console.expect("counter\n")
        before = counted(source, 10)
        source.migrate(target)
        assert counted(target, before + 1) < before + 6000


def test_cd_image_is_read_by_other_programs() -> None:
    """file(1) calls it a bootable ISO 9660 file system."""
    if shutil.which("file") is None:
        pytest.skip("file(1), the judge, is not on this system")
    told = subprocess.run(["file", "-b", str(guest.bootsector.cd())], check=True, capture_output=True, text=True)
    assert "ISO 9660" in told.stdout
    assert "bootable" in told.stdout
