"""RISC-V's hypervisor extension, emulated: vmenter and vmexit on every machine that has QEMU."""

import shutil

import pytest

from course.error import CapabilityError, UsageError
from course.vcpu import riscv_h

pytestmark = pytest.mark.qemu
needs_qemu = pytest.mark.skipif(shutil.which(riscv_h.QEMU) is None, reason=f"{riscv_h.QEMU} is not installed")

TALKS = """
        csrr s3, 0x100      ; sstatus: no exit
        csrw 0x105, s3      ; stvec: no exit
        li a7, 1
        li a0, 104
        ecall
        li a0, 105
        ecall
        lui s0, 0x10000
        li a0, 33
        sb a0, 4(s0)
        li a7, 0
        ecall
"""


@needs_qemu
def test_a_guest_leaves_four_times():
    """Two characters, one store to a device and the end; its own control registers cost nothing."""
    result = riscv_h.run(TALKS)
    names = ["hypercall", "hypercall", "store to a device", "hypercall"]
    assert ([e.name for e in result.exits], result.ended) == (names, "")
    assert (result.console, result.device, result.exits[2].address) == (b"hi", b"!", 0x10000004)
    assert [e.pc for e in result.exits] == [16, 24, 36, 44]


@needs_qemu
def test_registers_survive_exits():
    """What the hypervisor uses itself is as it was: the sum of t0 to t6 is sent after an exit."""
    names = [f"t{n}" for n in range(7)]
    source = "\n".join(f"li {name}, {n + 1}" for n, name in enumerate(names))
    source += "\nli a7, 1\nli a0, 0\necall\n" + "\n".join(f"add a0, a0, {name}" for name in names)
    assert riscv_h.run(source + "\necall\nli a7, 0\necall").console == bytes([0, 28])


@needs_qemu
@pytest.mark.parametrize(
    ("guest", "ended"),
    [("loop: j loop", "still running"), ("li a7, 1\nloop: ecall\nj loop", "50 exits"), (".word 0", "illegal"),
     ("lui s0, 0x10000\nlb a0, 0(s0)", "load from")],
)  # fmt: skip
def test_a_guest_that_does_not_end_is_stopped(guest, ended):
    """An endless loop, endless exits, and what the hypervisor does not emulate come back with the reason."""
    assert ended in riscv_h.run(guest, max_exits=50, timeout_s=2 if "running" in ended else 60).ended


def test_without_qemu_the_reason_is_given(monkeypatch):
    """The message names the program and its package."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CapabilityError, match="qemu-system-misc"):
        riscv_h.run(TALKS)


def test_a_guest_without_code_is_refused():
    """Nothing to run."""
    with pytest.raises(UsageError, match="0 bytes"):
        riscv_h.run(b"")
