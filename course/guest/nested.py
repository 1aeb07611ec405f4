"""A Linux guest with a working /dev/kvm on every host: KVM inside QEMU's emulation of AMD's SVM.

::

    this machine ── QEMU, emulating a CPU with SVM ── Linux with kvm.ko and kvm-amd.ko ── /dev/kvm ── your guest
                                                       level 1: `machine()`                           level 2: `run()`

The vmrun and the vmexits are real ones of the architecture; only the processor that does them is emulated. So times
say little about hardware, and counts, exit reasons and registers are what hardware gives.

Its initramfs is that of the other guests with a second archive behind it, which Linux unpacks over the first: the
modules, loaded at boot, and the program of `kvmrunner`. The template is saved with KVM loaded; clones have it at once.

Source: QEMU, target/i386/tcg/sysemu/svm_helper.c; AMD64 Architecture Programmer's Manual vol. 2, chapter 15.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import os
import re
import statistics
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..capability import kvm_abi as abi
from ..error import GuestError, UsageError
from . import cache, initramfs, kernel, kvmrunner, modules, template
from .commandline import Spec
from .cpio import Archive
from .linux import LinuxGuest

CPU = "qemu64,+svm,+npt"
RAM_MIB = 128
SERIAL = 0x3F8
MODULES = ("kvm_amd",)
PROGRAM = "/sbin/kvmrunner"
MOST_EXITS, MOST_CODE, MOST_SECONDS = 2000, 16384, 600
_FORMAT = 1
_LINE = 600  # characters that the guest's shell takes at once
_ALARM = 128 + 14
_VMEXIT = re.compile(r"vmexit\((\w+), (\w+), (\w+), (\w+)\)!")
_WRITTEN = re.compile(r"^([xrsf])((?:[0-9a-f]{2})+)$", re.MULTILINE)
_NAMES = {0x60: "INTR", 0x72: "CPUID", 0x78: "HLT", 0x7B: "IOIO", 0x7C: "MSR", 0x7F: "SHUTDOWN", 0x400: "NPF"}
_NO_REGISTERS: Mapping[str, int] = {}
_START = {"rip": kvmrunner.CODE_AT, "rsp": 0x8000, "rflags": 2}
STEPS = ("open /dev/kvm", "KVM_CREATE_VM", "KVM_SET_USER_MEMORY_REGION", "KVM_CREATE_VCPU", "KVM_GET_VCPU_MMAP_SIZE",
          "mmap", "KVM_GET_SREGS", "KVM_SET_SREGS", "KVM_SET_REGS")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class NestedExit:
    """One vmexit that reached the program in the guest.

    Attributes:
        reason: KVM's name: ``"IO"``, ``"MMIO"``, ``"HLT"``, ``"SHUTDOWN"``, ``"INTERNAL_ERROR"`` …
        elapsed_ns: nanoseconds in KVM_RUN, by the guest's clock.
        port: of an IO exit.
        address: guest-physical, of an MMIO exit.
        direction: ``"in"`` or ``"out"`` (IO), ``"read"`` or ``"write"`` (MMIO).
        size: of one item, in bytes.
        count: number of items.
        data: what the guest sends; empty when it asks.
    """

    reason: str
    elapsed_ns: int
    port: int = 0
    address: int = 0
    direction: str = ""
    size: int = 0
    count: int = 0
    data: bytes = b""


@dataclasses.dataclass(frozen=True)
class NestedRun:
    """What became of a level-2 guest.

    Attributes:
        exits: in order.
        output: what it sent to port 0x3f8.
        ended: reason of the last exit, or ``"max_exits"``, or ``"timeout"``.
        registers: after the last exit, by KVM's names; empty after a timeout.
        counts: what KVM in the level-1 guest counted for this CPU, such as ``exits``, ``io_exits``, ``halt_exits``.
        kernel: release of the level-1 guest's Linux.
        round_trip_ns: median of `NestedExit.elapsed_ns` of the IO and MMIO exits behind the first, 0 without any.
    """

    exits: tuple[NestedExit, ...]
    output: bytes
    ended: str
    registers: Mapping[str, int]
    counts: Mapping[str, int]
    kernel: str
    round_trip_ns: int


@dataclasses.dataclass(frozen=True)
class VmExit:
    """One #VMEXIT as the emulated processor did it, whoever handled it.

    Attributes:
        code: EXITCODE.
        name: such as ``"IOIO"``, ``"HLT"``, ``"NPF"`` (a nested page fault); ``"0x…"`` for the rarer ones.
        info1: EXITINFO1; of IOIO, the port is in its upper 16 bits.
        info2: EXITINFO2; of NPF, the guest-physical address; of IOIO, the address behind the instruction.
        rip: where the level-2 guest stood.
    """

    code: int
    name: str
    info1: int
    info2: int
    rip: int


class NestedGuest(LinuxGuest):
    """A Linux guest with /dev/kvm; made by `machine`."""

    @contextlib.contextmanager
    def vmexits(self) -> Iterator[list[VmExit]]:
        """Have QEMU write down every #VMEXIT of the block; the list is filled when the block ends.

        ::

            with vm.vmexits() as seen:
                vm.run(code)
            [e.name for e in seen]          # ['NPF', 'IOIO', 'HLT']
        """
        log = self.private_directory().path / "vmexits.log"
        seen: list[VmExit] = []
        self._monitor_line(f'logfile "{log}"')
        self._monitor_line("log in_asm")  # QEMU's svm_helper.c writes vmrun and vmexit into this one
        try:
            yield seen
        finally:
            self._monitor_line("log none")
        with log.open(errors="replace") as file:
            found = filter(None, map(_VMEXIT.match, file))
            seen += (_as_vmexit(*(int(part, 16) for part in match.groups())) for match in found)
        log.unlink()

    def _monitor_line(self, line: str) -> None:
        if said := self.execute("human-monitor-command", {"command-line": line}).strip():
            raise GuestError(f"QEMU answered {said!r} to the monitor's command {line!r}; expected nothing")

    def boot_files(self) -> template.Files:
        """Return the kernel, and the initramfs with KVM in it."""
        return files()

    def run(
        self,
        code: bytes,
        *,
        inputs: Sequence[bytes] = (),
        registers: Mapping[str, int] = _NO_REGISTERS,
        max_exits: int = 100,
        timeout_s: int = 30,
    ) -> NestedRun:
        """Run a level-2 guest in this machine; the arguments are those of the function `run`.

        Raises:
            GuestError: KVM inside refuses a call.
            UsageError: an argument cannot be meant.
        """
        _reject_nonsense(code, inputs, registers, max_exits, timeout_s)
        first = abi.Regs(**{**_START, **registers})
        self._type_file("/tmp/job", kvmrunner.job(bytes(code), inputs, first, max_exits, timeout_s))
        status, text = self.console.run(f"uname -r; {PROGRAM} </tmp/job", timeout_s + 60)
        release, _, lines = text.partition("\n")
        return parse(lines, release.strip(), max_exits, timed_out=status == _ALARM)

    def _type_file(self, path: str, content: bytes) -> None:
        typed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
        pieces = [typed[at : at + _LINE] for at in range(0, len(typed), _LINE)]
        for number, piece in enumerate(pieces):
            status, text = self.console.run(f"echo {piece} {'>>' if number else '>'}{path}.b64")
            if status:
                raise GuestError(f"the guest could not write {path}: {text.strip()}")
        status, text = self.console.run(f"base64 -d {path}.b64 | gunzip >{path}")
        if status:
            raise GuestError(f"the guest could not decode {path}: {text.strip()}")


def machine(name: str = "nested", *, ram_mib: int = RAM_MIB, cpu: str = CPU, **options: Any) -> NestedGuest:
    """Return a Linux guest with /dev/kvm, to be launched: ``with nested.machine() as vm: vm.run(code)``.

    Args:
        name: the machine's name and the guest's hostname.
        ram_mib: RAM in MiB.
        cpu: QEMU's model, with SVM: ``"qemu64,+svm"`` has no nested paging, so KVM keeps shadow page tables.
        **options: those of `guest.linux`'s machines: `disks`, `nics`, `cold`, `progress`, `qmp_sockets`.
    """
    return NestedGuest(name, _spec(ram_mib, cpu), **options)


def run(
    code: bytes,
    *,
    inputs: Sequence[bytes] = (),
    registers: Mapping[str, int] = _NO_REGISTERS,
    max_exits: int = 100,
    timeout_s: int = 30,
    vm: NestedGuest | None = None,
) -> NestedRun:
    """Run 16-bit code as a guest of the KVM in a guest, up to an exit that ends it.

    Args:
        code: at address 0x1000 of 64 KiB of memory, at most 16 KiB; cs is 0, the stack begins at 0x8000.
        inputs: what devices answer to ``in`` and to loads without memory, in order, at most 8 bytes each; then zeros.
        registers: by KVM's names, such as ``{"rax": 7}``; the others are 0.
        max_exits: IO and MMIO exits after which it is left alone, 1 to 2000.
        timeout_s: seconds, by the guest's clock, after which it is ended, 1 to 600.
        vm: a launched `machine`; None clones one for this run.

    Raises:
        GuestError: KVM inside refuses a call, or the machine cannot be built.
        UsageError: an argument cannot be meant.
    """
    _reject_nonsense(code, inputs, registers, max_exits, timeout_s)
    options: dict[str, Any] = {"inputs": inputs, "registers": registers, "max_exits": max_exits, "timeout_s": timeout_s}
    if vm is not None:
        return vm.run(code, **options)
    with machine() as fresh:
        return fresh.run(code, **options)


def ensure() -> None:
    """Build what is not there yet: the initramfs and the template."""
    template.ensure(_spec(RAM_MIB, CPU), files())


def _spec(ram_mib: int, cpu: str) -> Spec:
    return Spec(ram_mib=ram_mib, arguments=("-cpu", cpu))


def files() -> template.Files:
    """Return kernel and initramfs, building them on first use."""
    linux = kernel.ensure()
    base = initramfs.ensure(linux)
    program = kvmrunner.program()

    def write(directory: Path) -> None:
        cache.tell("building the initramfs with KVM")
        (directory / "initrd").write_bytes(base.read_bytes() + _overlay(linux, program))

    key = cache.key_of("nested", _FORMAT, linux.key, str(base), program, MODULES)
    return template.Files(linux.image, cache.entry("images", key, write, needs_mib=24).path / "initrd")


def _overlay(linux: kernel.Kernel, program: bytes) -> bytes:
    """Return the archive that is unpacked over the other guests' files."""
    archive = Archive()
    folder = f"lib/modules/{linux.release}"
    more = [module for module in kernel.further(*MODULES) if not (linux.modules / f"{module.name}.ko").exists()]
    for module in more:
        archive.file(f"{folder}/{module.name}.ko", module.content)
    for name, lines in modules.index(more).items():
        archive.file(f"{folder}/{name}", (linux.modules / name).read_bytes() + lines)
    present = [name for name in kernel.BOOT_MODULES if (linux.modules / f"{name}.ko").exists()]
    archive.file("etc/modules", (" ".join([*present, *(module.name for module in more)]) + "\n").encode())
    archive.file(PROGRAM[1:], program, 0o755)
    return archive.to_bytes()


def _reject_nonsense(
    code: bytes, inputs: Sequence[bytes], registers: Mapping[str, int], max_exits: int, timeout_s: int
) -> None:
    if not isinstance(code, bytes | bytearray) or not 0 < len(code) <= MOST_CODE:
        raise UsageError(f"the guest's code is {code!r:.60}; expected 1 to {MOST_CODE} bytes of machine code")
    if not all(isinstance(data, bytes | bytearray) and len(data) <= 8 for data in inputs) or len(inputs) > max_exits:
        raise UsageError(f"inputs are {inputs!r:.60}; expected at most max_exits={max_exits} pieces of 1 to 8 bytes")
    if unknown := set(registers) - {name for name, *_ in abi.Regs._fields_}:
        raise UsageError(f"KVM has no register {', '.join(sorted(unknown))}; it has rax, rbx … r15, rip, rflags")
    if not 1 <= max_exits <= MOST_EXITS or not 1 <= timeout_s <= MOST_SECONDS:
        raise UsageError(
            f"max_exits is {max_exits} and timeout_s {timeout_s}; expected 1 to {MOST_EXITS} and 1 to {MOST_SECONDS}"
        )


def _as_vmexit(code: int, info1: int, info2: int, rip: int) -> VmExit:
    return VmExit(code, _NAMES.get(code, f"{code:#x}"), info1, info2, rip)


# What the program writes


def parse(text: str, release: str, max_exits: int, *, timed_out: bool = False) -> NestedRun:
    """Read the lines of `kvmrunner`.

    Raises:
        GuestError: a call failed in the guest, or there is nothing to read.
    """
    lines = [(match[1], bytes.fromhex(match[2])) for match in _WRITTEN.finditer(text)]
    for tag, data in lines:
        if tag == "f" and not (timed_out or _is_stats_missing(lines)):
            number, code = struct.unpack("<Qq", data)
            step = STEPS[number - 1] if number <= len(STEPS) else "KVM_RUN, or a call behind it,"
            raise GuestError(f"in the guest, {step} failed: {os.strerror(-code)}. Look into it: nested.machine()")
    exits = tuple(_exit(data) for tag, data in lines if tag == "x")
    registers = next((_registers(data) for tag, data in lines if tag == "r"), {})
    if not registers and not timed_out:
        raise GuestError(f"the guest's program said nothing that can be read: {text[-300:]!r}")
    ended = exits[-1].reason if exits else "timeout"
    if timed_out:
        ended = "timeout"
    elif ended in ("IO", "MMIO") and len(exits) == max_exits:
        ended = "max_exits"
    output = b"".join(e.data for e in exits if e.reason == "IO" and e.port == SERIAL)
    times = [e.elapsed_ns for e in exits[1:] if e.reason in ("IO", "MMIO")]
    counts = next((statistics_of(data) for tag, data in lines if tag == "s"), {})
    return NestedRun(exits, output, ended, registers, counts, release, int(statistics.median(times)) if times else 0)


def _is_stats_missing(lines: list[tuple[str, bytes]]) -> bool:
    """Say whether all went well up to KVM_GET_STATS_FD, which kernels before 5.14 do not have."""
    return "r" in [tag for tag, _ in lines]


def _registers(data: bytes) -> dict[str, int]:
    regs = abi.Regs.from_buffer_copy(data)
    return {name: getattr(regs, name) for name, *_ in abi.Regs._fields_}


def _exit(data: bytes) -> NestedExit:
    elapsed, part, sent = kvmrunner.RECORD.unpack(data)
    run = abi.Run.from_buffer_copy((bytes(abi.Run.exit_reason.offset) + part).ljust(512, b"\0"))
    reason = abi.EXITS.get(run.exit_reason, f"exit {run.exit_reason}")
    if reason == "IO":
        out = run.io.direction == abi.KVM_EXIT_IO_OUT
        return NestedExit(
            reason, elapsed, port=run.io.port, direction="out" if out else "in", size=run.io.size,
            count=run.io.count, data=sent[: run.io.size * run.io.count] if out else b"",
        )  # fmt: skip
    if reason == "MMIO":
        write = bool(run.mmio.is_write)
        return NestedExit(
            reason, elapsed, address=run.mmio.phys_addr, direction="write" if write else "read", size=run.mmio.len,
            count=1, data=bytes(run.mmio.data[: run.mmio.len]) if write else b"",
        )  # fmt: skip
    return NestedExit(reason, elapsed)


def statistics_of(data: bytes) -> dict[str, int]:
    """Read the file of KVM_GET_STATS_FD: every statistic of one number, by its name.

    Source: Linux, Documentation/virt/kvm/api.rst, section 4.133.
    """
    _, name_bytes, number, _, descriptors, values = struct.unpack_from("<6I", data)
    found = {}
    for at in range(number):
        start = descriptors + at * (16 + name_bytes)
        _, _, size, offset, _ = struct.unpack_from("<IhHII", data, start)
        name = data[start + 16 : start + 16 + name_bytes].split(b"\0")[0].decode()
        if size == 1 and values + offset + 8 <= len(data):
            found[name] = struct.unpack_from("<Q", data, values + offset)[0]
    return found
