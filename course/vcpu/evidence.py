"""What this machine says about hardware virtualization: three texts, as a person would collect them."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import time
from pathlib import Path

from ..error import CourseError
from . import rawkvm

DEVICE = "/dev/kvm"
_HLT = b"\xf4"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Three texts.

    Attributes:
        cpuinfo: /proc/cpuinfo, as it is.
        devices: what ``ls -l /dev/kvm`` prints; empty when there is none.
        attempt: what came of opening the device and running a guest of one instruction, line by line.
    """

    cpuinfo: str
    devices: str
    attempt: str


def gather() -> Evidence:
    """Collect them here; never raises for what a machine lacks."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return Evidence(cpuinfo, _listing(), attempt())


def _listing() -> str:
    try:
        found = Path(DEVICE).stat()
    except OSError:
        return ""
    numbers = f"{os.major(found.st_rdev)}, {os.minor(found.st_rdev)}"
    day = time.strftime("%b %d %H:%M", time.localtime(found.st_mtime))
    return f"{stat.filemode(found.st_mode)} {found.st_nlink} {found.st_uid} {found.st_gid} {numbers} {day} {DEVICE}"


def attempt() -> str:
    """Open the device and run one guest, and note each call with its result."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f'open("{DEVICE}", O_RDWR) = {_refusal(error)}\n'
    lines = [f'open("{DEVICE}", O_RDWR) = 3']
    try:
        with rawkvm.open("kvm", seconds=5.0, runs=2) as kvm:
            _run(kvm, lines)
    except OSError as error:
        lines[-1] += f" = {_refusal(error)}"
    except CourseError as error:
        lines.append(f"no guest was run: {error}".replace("\n", " "))
    return "\n".join([*lines, ""])


def _refusal(error: OSError) -> str:
    number = error.errno or 0
    return f"-1 {errno.errorcode.get(number, number)} ({os.strerror(number)})"


def _run(kvm: rawkvm.Kvm, lines: list[str]) -> None:
    """Build a virtual machine whose only instruction is hlt, and enter it."""

    def call(fd: int, shown: int, name: str, argument: object = 0) -> int:
        lines.append(f"ioctl({shown}, {name})")
        return kvm.ioctl(fd, getattr(rawkvm, name), argument)

    version = call(kvm.fd, 3, "KVM_GET_API_VERSION")
    lines[-1] += f" = {version}"
    vm = call(kvm.fd, 3, "KVM_CREATE_VM")
    lines[-1] += " = 4"
    memory = kvm.memory(0x1000)
    memory[:1] = _HLT
    call(vm, 4, "KVM_SET_USER_MEMORY_REGION", rawkvm.MemoryRegion(0, 0, 0x1000, 0x1000, kvm.address(memory)))
    lines[-1] += " = 0"
    vcpu = call(vm, 4, "KVM_CREATE_VCPU")
    lines[-1] += " = 5"
    run = rawkvm.Run.from_buffer(kvm.mmap(vcpu, kvm.ioctl(kvm.fd, rawkvm.KVM_GET_VCPU_MMAP_SIZE, 0)))
    special = rawkvm.Sregs()
    kvm.ioctl(vcpu, rawkvm.KVM_GET_SREGS, special)
    special.cs.base = special.cs.selector = 0
    kvm.ioctl(vcpu, rawkvm.KVM_SET_SREGS, special)
    kvm.ioctl(vcpu, rawkvm.KVM_SET_REGS, rawkvm.Regs(rip=0x1000, rflags=2))
    call(vcpu, 5, "KVM_RUN")
    lines[-1] += f" = 0, exit_reason KVM_EXIT_{rawkvm.EXITS.get(run.exit_reason, run.exit_reason)}"
