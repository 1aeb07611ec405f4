"""Disk images, checked with the program that everyone reads them with."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from course.error import MachineError, UsageError
from course.machine import disk

pytestmark = pytest.mark.qemu


def _write(image: Path, pattern: int, offset: str, length: str) -> None:
    line = ["qemu-io", "-c", f"write -P {pattern} {offset} {length}", str(image)]
    subprocess.run(line, check=True, capture_output=True)


@pytest.mark.parametrize("format", ["qcow2", "raw", "vmdk", "vdi"])
def test_created_image_is_what_was_asked_for(tmp_path: Path, format: str) -> None:
    """Format and size as qemu-img reads them back; nothing else in the directory."""
    path = disk.create(tmp_path / "disk", 3, format)
    told = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", path], capture_output=True, check=True).stdout
    )
    assert told["format"] == format
    assert told["virtual-size"] == 3 << 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk"]


def test_overlay_reads_its_backing_image(tmp_path: Path) -> None:
    """What is not written comes from below; what is written stays above."""
    below = disk.create(tmp_path / "below.raw", 4, "raw")
    _write(below, 0x5A, "0", "1M")
    above = disk.create(tmp_path / "above.qcow2", backing=below)
    assert disk.info(above)["virtual-size"] == 4 << 20
    assert disk.info(above)["backing-filename"] == str(below)
    assert disk.compare(above, below)
    _write(above, 0xA5, "2M", "1M")
    assert not disk.compare(above, below)


def test_convert_keeps_what_the_guest_reads(tmp_path: Path) -> None:
    """Another format, compressed, the same contents, and a clean bill of health."""
    source = disk.create(tmp_path / "a.qcow2", 4)
    _write(source, 0x11, "1M", "2M")
    target = disk.convert(source, tmp_path / "b.qcow2", compress=True)
    assert disk.compare(source, target)
    assert disk.info(target)["actual-size"] < disk.info(source)["actual-size"]
    assert disk.check(target)["check-errors"] == 0
    assert disk.compare(source, disk.convert(source, tmp_path / "c.raw", "raw", source_format="qcow2"))


def test_existing_image_is_not_replaced_by_accident(tmp_path: Path) -> None:
    """Only overwrite=True does that."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(UsageError, match="overwrite=True"):
        disk.create(path, 1)
    assert path.read_text() == "data"
    disk.create(path, 1, overwrite=True)
    assert disk.info(path)["format"] == "qcow2"


def test_bad_arguments_are_refused_with_their_values(tmp_path: Path) -> None:
    """No size, a negative one, a directory that is not there, a format that is none."""
    with pytest.raises(UsageError, match="needs a size"):
        disk.create(tmp_path / "d")
    with pytest.raises(UsageError, match="size_mib is -1"):
        disk.create(tmp_path / "d", -1)
    with pytest.raises(UsageError, match="No such file or directory"):
        disk.create(tmp_path / "no" / "d", 1)
    with pytest.raises(MachineError, match="qemu-img create failed") as caught:
        disk.create(tmp_path / "d", 1, "floppy")
    assert "floppy" in caught.value.output
    assert caught.value.command[1] == "create"
    assert list(tmp_path.iterdir()) == []


def test_unreadable_image_is_an_error(tmp_path: Path) -> None:
    """compare() does not take "cannot read" for "different"."""
    good = disk.create(tmp_path / "good", 1)
    with pytest.raises(MachineError, match="exists"):
        disk.compare(good, tmp_path / "missing")
    with pytest.raises(MachineError):
        disk.info(tmp_path / "missing")


def test_failed_write_leaves_no_half_image(tmp_path: Path) -> None:
    """qemu-img runs into a file size limit: its words come back, the old file stays, no new one is there."""
    source = disk.create(tmp_path / "a.raw", 2, "raw")
    _write(source, 0x77, "0", "2M")
    program = f"""
import resource
from course.machine import disk
from course.error import MachineError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
try:
    disk.convert({str(source)!r}, {str(tmp_path / "b.raw")!r}, "raw")
except MachineError as error:
    print(error.exitcode, error.output)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 ")
    assert "File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.raw"]
