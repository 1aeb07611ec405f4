"""Guests written as steps."""

import shutil

import pytest

from course.error import UsageError
from course.vcpu import riscv_guest, riscv_h

needs_qemu = pytest.mark.skipif(shutil.which(riscv_h.QEMU) is None, reason=f"{riscv_h.QEMU} is not installed")


@pytest.mark.qemu
@needs_qemu
def test_every_kind_of_step_runs():
    """Own registers and memory: no exit; devices and calls: one each time, also within repeats."""
    inner = [("store", 0x200000), ("repeat", 2, [("ecall", 1), ("load", 0x20000)])]
    silent = [("add",), ("read", "sstatus"), ("write", "stvec"), ("fence",), ("store", 0x1FFFFF)]
    done = riscv_guest.measure([*silent, ("repeat", 3, inner), ("ecall", 0)])
    assert (riscv_guest.histogram(done), done.ended) == ({riscv_h.STORE_FAULT: 3, riscv_h.HYPERCALL: 7}, "")
    assert done.console == b"......"


@pytest.mark.qemu
@needs_qemu
@pytest.mark.parametrize(
    ("step", "cause"), [(("load", 0x200000), 21), (("read", "mstatus"), 2), (("write", "hgatp"), 22)]
)
def test_some_exits_end_the_guest(step, cause):
    """The hypervisor does not return from them."""
    done = riscv_guest.measure([("ecall", 1), step, ("ecall", 1)])
    assert [e.cause for e in done.exits] == [riscv_h.HYPERCALL, cause]
    assert done.ended


@pytest.mark.parametrize("step", [("jump",), ("store", 0x100), ("read", "pc"), ("repeat", 0, []), ("ecall", -1)])
def test_other_steps_are_refused(step):
    """The error names the step."""
    with pytest.raises(UsageError, match=step[0]):
        riscv_guest.assembly([step])


def test_steps_are_told_in_words():
    """A repeat shows its count and its steps."""
    assert riscv_guest.describe([("add",), ("repeat", 2, [("store", 0x200000)])]) == "add, 2 × (store 0x200000)"
