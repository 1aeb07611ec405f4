"""An emulated KVM: the calls of `rawkvm` answered by this course, guests run by Unicorn.

It refuses what KVM refuses, with the same errno; `tests/vcpu/test_rawkvm.py` holds it to the host's KVM. Where real
hosts differ among themselves (a guest without any memory, a 32-bit code segment of type data), it does what hardware
does, and the test leaves that out. Not emulated: interrupts from outside, devices in the kernel, 32-bit paging, ring 3.

Source: Linux, virt/kvm/kvm_main.c and arch/x86/kvm/x86.c (the checks, in their order); Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import mmap
import os
import tempfile

from ..capability import kvm_abi as abi
from .fakevcpu import Processor

MMAP_SIZE = 3 * mmap.PAGESIZE
IO_DATA = mmap.PAGESIZE
_PAGE = 4096
_MAX_VCPUS, _MAX_SLOTS = 1024, 32764
_EXTENSIONS = {
    abi.KVM_CAP_USER_MEMORY: 1,
    abi.KVM_CAP_SET_TSS_ADDR: 1,
    abi.KVM_CAP_NR_VCPUS: 1,
    abi.KVM_CAP_NR_MEMSLOTS: _MAX_SLOTS,
    abi.KVM_CAP_MAX_VCPUS: _MAX_VCPUS,
    abi.KVM_CAP_IMMEDIATE_EXIT: 1,
}
_PE, _PG, _NW, _CD = 1, 1 << 31, 1 << 29, 1 << 30
_PAE, _LME, _LMA = 1 << 5, 1 << 8, 1 << 10
_CR4_BITS = 0x7FF7FF
_APIC_BITS = 0xFFFFFFFFFD00
_MODIFIABLE = abi.KVM_MEM_LOG_DIRTY_PAGES | abi.KVM_MEM_READONLY


def _file(name: str, size: int) -> int:
    """Make a file without a name, which the caller can map."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


@dataclasses.dataclass
class Vm:
    """A virtual machine: its memory slots, by number, and its vCPUs."""

    slots: dict[int, abi.MemoryRegion] = dataclasses.field(default_factory=dict)
    vcpus: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Vcpu:
    """A virtual CPU."""

    vm: Vm
    processor: Processor


class FakeKvm:
    """Answers KVM's calls.

    Attributes:
        fd: the device.
    """

    def __init__(self, base: int, size: int) -> None:
        """Serve guests whose memory lies from address `base` on, `size` bytes; other memory faults (EFAULT)."""
        self._base, self._size = base, size
        self.fd = _file("kvm", 0)
        self._vms: dict[int, Vm] = {}
        self._vcpus: dict[int, Vcpu] = {}

    def ioctl(self, fd: int, request: int, argument: int | bytearray, deadline: float) -> int:
        """Answer one call."""
        if fd in self._vcpus:
            return self._vcpu(self._vcpus[fd], request, argument, deadline)
        if fd in self._vms:
            return self._vm(self._vms[fd], request, argument)
        return self._system(request, argument)

    def _system(self, request: int, argument: int | bytearray) -> int:
        if request == abi.KVM_CHECK_EXTENSION:
            return _EXTENSIONS.get(_number(argument), 0)
        answers = {
            abi.KVM_GET_API_VERSION: lambda: abi.API_VERSION,
            abi.KVM_GET_VCPU_MMAP_SIZE: lambda: MMAP_SIZE,
            abi.KVM_CREATE_VM: self._create_vm,
        }
        if request not in answers or _number(argument):
            raise OSError(errno.EINVAL, "no such call of the system's, or an argument that must be 0")
        return answers[request]()

    def _create_vm(self) -> int:
        fd = _file("kvm-vm", 0)
        self._vms[fd] = Vm()
        return fd

    def _vm(self, vm: Vm, request: int, argument: int | bytearray) -> int:
        if request == abi.KVM_CHECK_EXTENSION:
            return _EXTENSIONS.get(_number(argument), 0)
        if request == abi.KVM_SET_USER_MEMORY_REGION:
            _set_slot(vm, abi.MemoryRegion.from_buffer_copy(_bytes(argument)))
            return 0
        if request == abi.KVM_SET_TSS_ADDR:
            _require(_number(argument) <= (1 << 32) - 3 * _PAGE)
            return 0
        if request == abi.KVM_CREATE_VCPU:
            return self._create_vcpu(vm, _number(argument))
        raise OSError(errno.ENOTTY, "no such call of a virtual machine's")

    def _create_vcpu(self, vm: Vm, number: int) -> int:
        _require(number < _MAX_VCPUS)
        if number in vm.vcpus:
            raise OSError(errno.EEXIST, "there is a vCPU of that number")
        fd = _file("kvm-vcpu", MMAP_SIZE)
        vm.vcpus.add(number)
        self._vcpus[fd] = Vcpu(vm, Processor(mmap.mmap(fd, MMAP_SIZE), IO_DATA, self._base, self._size))
        return fd

    def _vcpu(self, vcpu: Vcpu, request: int, argument: int | bytearray, deadline: float) -> int:
        processor = vcpu.processor
        if request == abi.KVM_RUN:
            _require(not _number(argument))
            processor.run(vcpu.vm.slots, deadline)
        elif request == abi.KVM_GET_REGS:
            _bytes(argument)[: ctypes.sizeof(abi.Regs)] = bytes(processor.regs)
        elif request == abi.KVM_SET_REGS:
            processor.set_regs(abi.Regs.from_buffer_copy(_bytes(argument)))
        elif request == abi.KVM_GET_SREGS:
            _bytes(argument)[: ctypes.sizeof(abi.Sregs)] = bytes(processor.sregs)
        elif request == abi.KVM_SET_SREGS:
            special = abi.Sregs.from_buffer_copy(_bytes(argument))
            _check_special(special)
            processor.set_sregs(special)
        else:
            raise OSError(errno.EINVAL, "no such call of a vCPU's")
        return 0


def _require(condition: bool) -> None:
    if not condition:
        raise OSError(errno.EINVAL, "what KVM does not allow")


def _number(argument: int | bytearray) -> int:
    return argument if isinstance(argument, int) else 1 << 40  # an address, as the kernel sees a structure


def _bytes(argument: int | bytearray) -> bytearray:
    if isinstance(argument, int):
        raise OSError(errno.EFAULT, "a structure at address 0")
    return argument


def _set_slot(vm: Vm, new: abi.MemoryRegion) -> None:
    """Add, move or delete a slot; the checks of kvm_set_memory_region."""
    _require(not new.flags & ~_MODIFIABLE)
    _require(not (new.memory_size | new.guest_phys_addr | new.userspace_addr) % _PAGE)
    _require(new.userspace_addr + new.memory_size < 1 << 47 and new.slot < _MAX_SLOTS)
    _require(new.guest_phys_addr + new.memory_size < 1 << 64)
    old = vm.slots.get(new.slot)
    if not new.memory_size:
        _require(old is not None)
        del vm.slots[new.slot]
        return
    if old is not None:
        _require(old.memory_size == new.memory_size and old.userspace_addr == new.userspace_addr)
        _require(not (old.flags ^ new.flags) & abi.KVM_MEM_READONLY)
    for number, other in vm.slots.items():
        apart = (
            new.guest_phys_addr + new.memory_size <= other.guest_phys_addr
            or other.guest_phys_addr + other.memory_size <= new.guest_phys_addr
        )
        if number != new.slot and not apart:
            raise OSError(errno.EEXIST, "slots overlap")
    vm.slots[new.slot] = new


def _check_special(special: abi.Sregs) -> None:
    """Check control registers: kvm_is_valid_sregs, kvm_is_valid_cr0, kvm_set_apic_base."""
    cr0, efer = special.cr0, special.efer
    _require(not cr0 >> 32 and not (cr0 & _PG and not cr0 & _PE) and not (cr0 & _NW and not cr0 & _CD))
    _require(not special.cr4 & ~_CR4_BITS and not special.apic_base & ~_APIC_BITS)
    if efer & _LME and cr0 & _PG:
        _require(bool(special.cr4 & _PAE and efer & _LMA) and not special.cr3 >> 52)
    else:
        _require(not efer & _LMA and not special.cs.l)
