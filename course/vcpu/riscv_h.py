"""Hardware-assisted virtualization on every machine: RISC-V's hypervisor extension, emulated by QEMU, bare metal.

Not an engine of `Vcpu`: the instruction set is another one, and the VMM is not a Python program beside the guest but
machine code in the same machine, as it is on real hardware::

    M mode    hypervisor   hgatp = second stage of address translation; mepc = guest; mret ── vmenter ──▶
    VS mode   guest        its own sstatus, stvec, satp: no exit.  ecall, a page that is not there: ◀── vmexit ──
    M mode    hypervisor   sends a record of the exit over the serial port, steps over the instruction, mret …

The guest has 2 MiB of memory at its physical address 0, where it starts. It ends with the hypercall 0.

Source: RISC-V privileged specification, chapter "H" extension (hgatp, mtval2, exception codes 10 and 20 to 23).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shutil
import signal
import struct
import tempfile
from pathlib import Path
from typing import NoReturn

from ..error import CapabilityError, UsageError
from ..isa.assembler import assemble
from .process import fork_child, keep_only

QEMU = "qemu-system-riscv64"
_HOST, _GUEST = 0x80000000, 0x80200000
_ROOT, _LEAF = 0x80010000, 0x80014000  # the root of an Sv39x4 table is 16 KiB, aligned
GUEST_BYTES = 2 << 20
_RECORD = struct.Struct("<6Q")
HYPERCALL, LOAD_FAULT, STORE_FAULT = 10, 21, 23
CAUSES = {
    2: "illegal instruction", HYPERCALL: "hypercall", 20: "fetch from a page that is not there",
    LOAD_FAULT: "load from a page that is not there", 22: "virtual instruction", STORE_FAULT: "store to a device",
}  # fmt: skip
PUT, END = 1, 0
"""Hypercall numbers, in a7: write the character in a0; end."""

_HYPERVISOR = """
        la t0, vmexit
        csrw 0x305, t0          ; mtvec
        li t0, -1
        csrw 0x3b0, t0          ; pmpaddr0: all of memory ...
        li t0, 0x1f
        csrw 0x3a0, t0          ; pmpcfg0: ... may be used by lower modes
        la t1, hgatp
        ld t0, 0(t1)
        csrw 0x680, t0          ; the second stage of translation
        csrw 0x280, x0          ; vsatp: the guest begins without a first stage
        la t1, mstatus
        ld t0, 0(t1)
        csrw 0x300, t0          ; MPP = S, MPV = 1: mret goes to the guest
        csrw 0x341, x0          ; mepc: guest-physical 0
        la t0, area
        csrw 0x340, t0          ; mscratch
        li t0, 0
        li t1, 0
        .word 0x30200073        ; mret: vmenter
vmexit:
        .word 0x340f9ff3        ; csrrw t6, mscratch, t6
        sd t0, 48(t6)
        sd t1, 56(t6)
        sd t2, 64(t6)
        sd t3, 72(t6)
        sd t4, 80(t6)
        csrr t0, 0x342          ; mcause
        sd t0, 0(t6)
        csrr t1, 0x341          ; mepc
        sd t1, 8(t6)
        csrr t1, 0x343          ; mtval
        sd t1, 16(t6)
        csrr t1, 0x34b          ; mtval2: guest-physical address / 4
        sd t1, 24(t6)
        sd a0, 32(t6)
        sd a7, 40(t6)
        mv t1, t6
        addi t2, t6, 48
        lui t3, 0x10000         ; the serial port
send:   lbu t4, 5(t3)
        andi t4, t4, 0x20
        beqz t4, send
        lbu t4, 0(t1)
        sb t4, 0(t3)
        addi t1, t1, 1
        bne t1, t2, send
        ld t1, 88(t6)           ; exits that are left
        addi t1, t1, -1
        sd t1, 88(t6)
        beqz t1, stop
        li t1, 23
        beq t0, t1, resume
        li t1, 10
        bne t0, t1, stop
        beqz a7, stop
resume: csrr t1, 0x341
        addi t1, t1, 4
        csrw 0x341, t1
        ld t0, 48(t6)
        ld t1, 56(t6)
        ld t2, 64(t6)
        ld t3, 72(t6)
        ld t4, 80(t6)
        .word 0x340f9ff3        ; csrrw t6, mscratch, t6
        .word 0x30200073        ; mret: vmenter
stop:   lui t0, 0x100
        li t1, 0x5555
        sw t1, 0(t0)            ; power off
halt:   j halt
hgatp:  .dword {hgatp}
mstatus: .dword {mstatus}
area:   .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword 0
        .dword {exits}
"""


@dataclasses.dataclass(frozen=True)
class HExit:
    """One vmexit.

    Attributes:
        cause: the number in mcause.
        pc: where the guest was.
        address: guest-physical, for faults.
        a0: the guest's register, such as what it stores.
        a7: the number of a hypercall.
    """

    cause: int
    pc: int
    address: int
    a0: int
    a7: int

    @property
    def name(self) -> str:
        """The cause in words."""
        return CAUSES.get(self.cause, f"cause {self.cause}")


@dataclasses.dataclass(frozen=True)
class HRun:
    """What a guest did.

    Attributes:
        exits: every vmexit, in order.
        ended: ``""`` when the guest ended itself, else why it was stopped.
    """

    exits: tuple[HExit, ...]
    ended: str = ""

    @property
    def console(self) -> bytes:
        """What the guest wrote by hypercall."""
        return bytes(e.a0 & 255 for e in self.exits if e.cause == HYPERCALL and e.a7 == PUT)

    @property
    def device(self) -> bytes:
        """What it stored where no memory is, one byte each."""
        return bytes(e.a0 & 255 for e in self.exits if e.cause == STORE_FAULT)


def run(guest: bytes | str, *, max_exits: int = 1000, timeout_s: float = 10.0) -> HRun:
    """Run a guest under the hypervisor.

    Args:
        guest: RISC-V machine code, or assembly; it lies at guest-physical 0, in a mode that thinks it is S. Stores to
            addresses from 2 MiB on exit (the value must be in a0, the instruction four bytes long), and so does ecall.
        max_exits: the guest is stopped after so many.
        timeout_s: wall time limit, in seconds.

    Raises:
        CapabilityError: there is no QEMU for RISC-V here, or its CPU lacks the extension.
        UsageError: the guest is larger than its memory, or empty.
    """
    code = assemble(guest, "riscv64", 0) if isinstance(guest, str) else bytes(guest)
    if not 0 < len(code) <= GUEST_BYTES:
        raise UsageError(f"the guest has {len(code)} bytes; expected 1 to {GUEST_BYTES}")
    if max_exits < 1:
        raise UsageError(f"max_exits is {max_exits}; expected at least 1")
    with tempfile.TemporaryDirectory(prefix="course-vcpu-") as folder:
        host_file, guest_file = Path(folder, "host.bin"), Path(folder, "guest.bin")
        host_file.write_bytes(_host_image(max_exits))
        guest_file.write_bytes(code)
        output, errors, late = _qemu(host_file, guest_file, timeout_s)
    return _read(output, errors, late, max_exits, timeout_s)


def _host_image(max_exits: int) -> bytes:
    hgatp = 8 << 60 | _ROOT >> 12
    source = _HYPERVISOR.format(hgatp=hgatp, mstatus=1 << 39 | 0x800, exits=max_exits)
    image = bytearray(assemble(source, "riscv64", _HOST))
    image += bytes(_LEAF + 4096 - _HOST - len(image))
    struct.pack_into("<Q", image, _ROOT - _HOST, (_LEAF >> 12) << 10 | 1)
    struct.pack_into("<Q", image, _LEAF - _HOST, (_GUEST >> 12) << 10 | 0xDF)  # one page of 2 MiB: D A U X W R V
    return bytes(image)


def _qemu(host_file: Path, guest_file: Path, timeout_s: float) -> tuple[bytes, str, bool]:
    """Return what came over the serial port, QEMU's complaints, and whether it had to be stopped."""
    program = shutil.which(QEMU)
    if program is None:
        raise CapabilityError("RISC-V's hypervisor extension", f"{QEMU} is not installed", "Install qemu-system-misc.")
    command = [program, "-M", "virt", "-cpu", "rv64,h=true", "-bios", "none", "-nodefaults", "-display", "none"]
    command += ["-serial", "stdio", "-monitor", "none", "-accel", "tcg"]
    for file, address in ((host_file, _HOST), (guest_file, _GUEST)):
        command += ["-device", f"loader,file={file},addr={address:#x},force-raw=on"]
    output, errors = os.memfd_create("serial"), os.memfd_create("errors")

    def work() -> NoReturn:
        keep_only(output, errors)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.execv(program, command)  # noqa: S606 - there must be no shell in between
        os._exit(1)

    try:
        pid = fork_child(work)
        late = not ended_within(pid, timeout_s)
        return os.pread(output, 1 << 24, 0), os.pread(errors, 1 << 16, 0).decode(errors="replace"), late
    finally:
        os.close(output)
        os.close(errors)


def ended_within(pid: int, seconds: float) -> bool:
    """Wait for a child, kill it when it is late, and reap it."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _read(output: bytes, errors: str, late: bool, max_exits: int, timeout_s: float) -> HRun:
    whole = len(output) // _RECORD.size * _RECORD.size
    exits = tuple(
        HExit(cause, pc, address << 2 if cause in (20, LOAD_FAULT, STORE_FAULT) else 0, a0, a7)
        for cause, pc, _, address, a0, a7 in _RECORD.iter_unpack(output[:whole])
    )
    if late:
        return HRun(exits, f"it was still running after {timeout_s:g} s")
    if not exits:
        why = errors.strip().splitlines()[-1] if errors.strip() else f"{QEMU} said nothing"
        raise CapabilityError("RISC-V's hypervisor extension", why, "Use QEMU 7.1 or later.")
    if exits[-1].cause == HYPERCALL and exits[-1].a7 == END:
        return HRun(exits)
    if len(exits) >= max_exits:
        return HRun(exits, f"it had made {max_exits} exits")
    return HRun(exits, f"the hypervisor cannot go on after: {exits[-1].name}")
