"""QEMU's log of accesses to devices while a boot sector runs."""

import re
import shutil

import pytest

from course.error import CapabilityError, UsageError
from course.vcpu import device_log

pytestmark = pytest.mark.qemu
needs_qemu = pytest.mark.skipif(shutil.which(device_log.QEMU) is None, reason=f"{device_log.QEMU} is not installed")


@needs_qemu
def test_each_access_is_a_line_between_the_marks():
    """Loops and string instructions are logged byte by byte, a loop without accesses is not."""
    log = device_log.record([("out", 0xE9, 10), ("rep outsb", 0xE9, 20), ("spin", 0, 50), ("in", 0x3FD, 3)])
    after = log[re.search(r"addr 0x80 value 0xb8 ", log).end() :]
    lines = after.splitlines()[1:]
    assert sum("addr 0xe9 " in line for line in lines) == 30
    assert sum("addr 0x3fd " in line for line in lines) == 3
    assert len(lines) == 34
    assert "addr 0xf4 " in lines[-1]


@needs_qemu
def test_the_first_sector_byte_goes_out_first():
    """A string instruction begins at the boot sector's own first byte."""
    log = device_log.record([("rep outsb", 0xE9, 2)])
    sector = device_log.boot_sector(("rep outsb", 0xE9, 2))
    assert re.findall(r"addr 0xe9 value (\S+)", log) == [hex(byte) for byte in sector[:2]]


def test_a_machine_without_qemu_says_so(monkeypatch):
    """The error names the program."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CapabilityError, match=device_log.QEMU):
        device_log.record([("out", 0xE9, 1)])


@pytest.mark.parametrize("step", [("jump", 0, 1), ("out", 0x10000, 1), ("out", 0xE9, 0)])
def test_steps_that_cannot_be_are_refused(step):
    """An unknown step, a port or a number out of range."""
    with pytest.raises(UsageError):
        device_log.boot_sector(step)


def test_too_many_steps_do_not_fit():
    """A boot sector has 440 bytes for code."""
    with pytest.raises(UsageError, match="440"):
        device_log.boot_sector(*[("out", 0xE9, 1)] * 60)
