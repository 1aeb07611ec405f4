"""KVM's calls, on the host's KVM and on the emulated one: what both must do, and that they do the same."""

import ctypes
import errno
import gc
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from course.capability import kvm_abi
from course.error import CapabilityError, UsageError
from course.vcpu import BudgetSpentError, VcpuError, rawkvm
from course.vcpu.rawkvm import (
    EXITS,
    KVM_CHECK_EXTENSION,
    KVM_CREATE_VCPU,
    KVM_CREATE_VM,
    KVM_GET_API_VERSION,
    KVM_GET_REGS,
    KVM_GET_SREGS,
    KVM_GET_VCPU_MMAP_SIZE,
    KVM_RUN,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_TSS_ADDR,
    KVM_SET_USER_MEMORY_REGION,
    MemoryRegion,
    Regs,
    Run,
    Segment,
    Sregs,
    segment,
)
from tests.vcpu.refusal import in_child

RAM, CODE = 0x10000, 0x1000
FINAL = ("HLT", "SHUTDOWN", "FAIL_ENTRY", "INTERNAL_ERROR")
KERNEL_HEADER = Path("/usr/include/linux/kvm.h")


def here(name):
    """Skip where this machine has no such device."""
    (row,) = [row for row in rawkvm.devices() if row.name == name]
    if not row:
        pytest.skip(f"{row.name}: {row.why}")
    return name


@pytest.fixture(params=rawkvm.DEVICES)
def device(request):
    """Each device that is here."""
    return here(request.param)


class Machine:
    """One guest with one vCPU and 64 KiB of memory at 0."""

    def __init__(self, kvm, flags=0):
        self.kvm = kvm
        self.vm = kvm.ioctl(kvm.fd, KVM_CREATE_VM, 0)
        kvm.ioctl(self.vm, KVM_SET_TSS_ADDR, 0xFFFBD000)
        self.memory = kvm.memory(RAM)
        region = MemoryRegion(0, flags, 0, RAM, kvm.address(self.memory))
        kvm.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION, region)
        self.vcpu = kvm.ioctl(self.vm, KVM_CREATE_VCPU, 0)
        self.shared = kvm.mmap(self.vcpu, kvm.ioctl(kvm.fd, KVM_GET_VCPU_MMAP_SIZE, 0))
        self.run = Run.from_buffer(self.shared)

    def get(self, structure, request):
        """Return what a call fills in."""
        value = structure()
        self.kvm.ioctl(self.vcpu, request, value)
        return value

    def load(self, code, mode, registers):
        """Put code at 0x1000 and set the mode."""
        self.memory[CODE : CODE + len(code)] = code
        special = self.get(Sregs, KVM_GET_SREGS)
        MODES[mode](self.memory, special)
        self.kvm.ioctl(self.vcpu, KVM_SET_SREGS, special)
        self.kvm.ioctl(self.vcpu, KVM_SET_REGS, Regs(**{"rip": CODE, "rsp": 0x8000, "rflags": 2, **registers}))

    def leave(self, inputs):
        """Run up to an exit and tell it; `inputs` are what the devices answer."""
        self.kvm.ioctl(self.vcpu, KVM_RUN, 0)
        run, name = self.run, EXITS[self.run.exit_reason]
        if name == "IO":
            start, size = run.io.data_offset, run.io.size * run.io.count
            if not run.io.direction:
                self.shared[start : start + size] = inputs.pop(0)
                return "in", run.io.port, run.io.size, run.io.count
            return "out", run.io.port, run.io.size, self.shared[start : start + size]
        if name == "MMIO" and not run.mmio.is_write:
            ctypes.memmove(run.mmio.data, inputs.pop(0).ljust(8, b"\0"), 8)
            return "load", run.mmio.phys_addr, run.mmio.len
        if name == "MMIO":
            return "store", run.mmio.phys_addr, bytes(run.mmio.data[: run.mmio.len])
        return (name, run.internal.suberror) if name == "INTERNAL_ERROR" else (name,)


def real16(memory, special):
    """Segments at 0; interrupt n goes to 0x500 + n, where hlt is, unless the code lays something else there."""
    special.cs.base = special.cs.selector = 0
    for vector in range(32):
        memory[4 * vector : 4 * vector + 4] = struct.pack("<HH", 0x500 + vector, 0)
    memory[0x500:0x520] = b"\xf4" * 32


def prot32(_memory, special):
    """Flat segments, no paging, no interrupt table."""
    special.cr0 |= 1
    special.cs = segment(8, 11)
    special.ds = special.es = special.fs = special.gs = special.ss = segment(16, 3)
    special.idt.limit = 0


def long64(memory, special):
    """Sixty-four bits; 1 GiB of addresses as they are."""
    tables = ((0x4000, [0x5003]), (0x5000, [0x6003]), (0x6000, [page << 21 | 0x83 for page in range(512)]))
    for at, words in tables:
        memory[at : at + 8 * len(words)] = struct.pack(f"<{len(words)}Q", *words)
    prot32(memory, special)
    special.cr0, special.cr3, special.cr4, special.efer = 0x80000001, 0x4000, 0x20, 0x500
    special.cs = segment(8, 11, long=True)


MODES = {"real16": real16, "prot32": prot32, "long64": long64, "reset": lambda _memory, _special: None}

# name: (mode, code, registers, inputs, exits)
GUESTS = {
    "out": ("real16", "ba f8 03 b0 48 ee f4", {}, [], [("out", 0x3F8, 1, b"H")]),
    "flags' bit 1 is set": ("real16", "9c 58 e7 10 f4", {"rflags": 0}, [], [("out", 0x10, 2, b"\2\0")]),
    "in, add, out": (
        "real16", "e4 60 04 01 e6 61 f4", {}, [b"A"], [("in", 0x60, 1, 1), ("out", 0x61, 1, b"B")],
    ),
    "words": ("real16", "b8 34 12 e7 10 e5 12 f4", {}, [b"\xcd\xab"], [("out", 16, 2, b"\x34\x12"), ("in", 18, 2, 1)]),
    "dwords": ("real16", "66 e5 10 66 e7 14 f4", {}, [b"wxyz"], [("in", 16, 4, 1), ("out", 20, 4, b"wxyz")]),
    "store": ("real16", "b8 00 20 8e d8 c7 06 04 00 78 56 f4", {}, [], [("store", 0x20004, b"\x78\x56")]),
    "load": ("real16", "b8 00 20 8e d8 a1 04 00 f4", {}, [b"\x99\x11"], [("load", 0x20004, 2)]),
    "load and store": (
        "real16", "b8 00 20 8e d8 fe 06 04 00 f4", {}, [b"\x41"], [("load", 0x20004, 1), ("store", 0x20004, b"\x42")],
    ),
    "rep outsb": (
        "real16", "b9 03 00 ba 10 00 be 0c 10 f3 6e f4 61 62 63", {}, [],
        [("out", 16, 1, b"a"), ("out", 16, 1, b"b"), ("out", 16, 1, b"c")],
    ),
    "rep insb": ("real16", "b9 03 00 ba 10 00 bf 00 20 f3 6c f4", {}, [b"xyz"], [("in", 16, 1, 3)]),
    "rep insb to the end of a page": (
        "real16", "b9 04 00 ba 10 00 bf fe 2f f3 6c f4", {}, [b"wx", b"yz"], [("in", 16, 1, 2), ("in", 16, 1, 2)],
    ),
    "int and iret": (  # the handler, written by the guest to 0x510: out 0xe9, al / iret
        "real16", "c7 06 10 05 e6 e9 c6 06 12 05 cf b0 69 cd 10 b0 6a e6 e9 f4", {}, [],
        [("out", 0xE9, 1, b"i"), ("out", 0xE9, 1, b"j")],
    ),
    "divide error, repaired, twice": (  # the handler, at 0x500: mov cx, 1 / iret
        "real16", "c7 06 00 05 b9 01 c7 06 02 05 00 cf 31 c9 f7 f1 31 c9 f7 f1 f4", {"rax": 7}, [], [],
    ),
    "undefined instruction": ("real16", "0f 0b", {}, [], []),
    "a loop": ("real16", "b9 e8 03 31 c0 40 e2 fd f4", {}, [], []),
    "segments": ("real16", "b8 00 01 8e d8 8e d0 c6 06 02 00 07 a0 02 00 8c d9 8c cb 68 11 11 f4", {}, [], []),
    "far jump": ("real16", "ea 07 00 00 01 90 90 8c c8 f4", {}, [], []),
    "call and return": ("real16", "e8 02 00 40 f4 83 c0 05 c3", {}, [], []),
    "cpuid without KVM_SET_CPUID2": ("real16", "66 31 c0 0f a2 f4", {"rbx": 5, "rcx": 6, "rdx": 7}, [], []),
    "into protected mode": (  # lgdt [0x1016] / mov eax, cr0 / inc ax / mov cr0, eax / jmp 8:0x1040
        "real16", "0f 01 16 16 10 0f 20 c0 40 0f 22 c0 66 ea 40 10 00 00 08 00 90 90 0f 00 1c 10 00 00"
        "00 00 00 00 00 00 00 00 ff ff 00 00 00 9b cf 00" + "90" * 20 + "ba 10 00 00 00 b8 78 56 34 12 ef f4",
        {}, [], [("out", 16, 4, b"\x78\x56\x34\x12")],
    ),
    "sregs left as they are": ("reset", "f4", {}, [], [("INTERNAL_ERROR", 1)]),
    "code of 32 bits": ("prot32", "ba 10 00 00 00 b8 78 56 34 12 ef f4", {}, [], [("out", 16, 4, b"\x78\x56\x34\x12")]),
    "store of 32 bits": ("prot32", "c7 05 00 00 00 10 04 03 02 01 f4", {}, [], [("store", 1 << 28, b"\4\3\2\1")]),
    "nothing handles a fault": ("prot32", "0f 0b", {}, [], [("SHUTDOWN",)]),
    "a jump to nowhere": ("prot32", "e9 00 00 10 00", {}, [], [("INTERNAL_ERROR", 1)]),
    "code of 64 bits": (
        "long64", "48 b8 88 77 66 55 44 33 22 11 49 89 c7 b0 21 e6 10 f4", {}, [], [("out", 16, 1, b"!")],
    ),
    "store of 64 bits": (
        "long64", "48 c7 c3 00 00 40 00 48 89 0b f4", {"rcx": 1 << 63 | 5}, [],
        [("store", 0x400000, b"\5" + bytes(6) + b"\x80")],
    ),
    "load of 64 bits": ("long64", "48 8b 04 25 00 00 50 00 f4", {}, [b"01234567"], [("load", 0x500000, 8)]),
}  # fmt: skip


def live(device, name):
    """Run a guest to its end: return its exits, its registers and its memory."""
    mode, code, registers, inputs, _ = GUESTS[name]
    with rawkvm.open(device) as kvm:
        machine, inputs, exits = Machine(kvm), list(inputs), []
        machine.load(bytes.fromhex(code), mode, registers)
        while not exits or exits[-1][0] not in FINAL:
            exits.append(machine.leave(inputs))
        state = {}
        if exits[-1] == ("HLT",):  # after a shutdown, registers are whatever a host leaves
            regs, special = machine.get(Regs, KVM_GET_REGS), machine.get(Sregs, KVM_GET_SREGS)
            state = {name: getattr(regs, name) for name, _ in Regs._fields_}
            state |= {name: bytes(getattr(special, name))[:14] for name in ("cs", "ds", "es", "ss")}
            state |= {"cr0": special.cr0, "gdt": bytes(special.gdt)[:10]}
        return exits, state, bytes(machine.memory)


@pytest.mark.parametrize("name", GUESTS)
def test_guests_leave_as_the_architecture_says(device, name):
    """Every device tells the exits that the instructions call for, with their data."""
    expected = GUESTS[name][4]
    exits, _, _ = live(device, name)
    assert exits == (expected if expected and expected[-1][0] in FINAL else [*expected, ("HLT",)])


@pytest.mark.parametrize("name", GUESTS)
def test_the_emulated_kvm_leaves_guests_as_the_hosts_does(name):
    """Exits, registers, segments and memory are the same on both devices."""
    assert live(here("fake"), name) == live(here("kvm"), name)


def code_of(action):
    """Return the name of the errno that a call raises, or what it returns."""
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno]


MAIN = 0x1000
# what is wrong: (slot, flags, guest_phys_addr, memory_size, offset in our memory or None), in this order on one VM
REGIONS = [
    ("guest address not a page's", (0, 0, 0x10, MAIN, 0), "EINVAL"),
    ("size not pages", (0, 0, 0, 0x10, 0), "EINVAL"),
    ("our address not a page's", (0, 0, 0, MAIN, 16), "EINVAL"),
    ("unknown flag", (0, 4, 0, MAIN, 0), "EINVAL"),
    ("no such slot", (100_000, 0, 0, MAIN, 0), "EINVAL"),
    ("the end wraps around", (3, 0, (1 << 64) - MAIN, 2 * MAIN, 0), "EINVAL"),
    ("delete what is not there", (7, 0, 0, 0, None), "EINVAL"),
    ("right", (0, 0, 0, MAIN, 0), 0),
    ("the same again", (0, 0, 0, MAIN, 0), 0),
    ("another size", (0, 0, 0, 2 * MAIN, 0), "EINVAL"),
    ("another memory", (0, 0, 0, MAIN, MAIN), "EINVAL"),
    ("made read-only", (0, 2, 0, MAIN, 0), "EINVAL"),
    ("overlap", (1, 0, 0, MAIN, 0), "EEXIST"),
    ("overlap by one page", (1, 0, 0, 2 * MAIN, MAIN), "EEXIST"),
    ("beside it", (1, 0, MAIN, MAIN, MAIN), 0),
    ("move", (0, 0, 0x5000, MAIN, 0), 0),
    ("move onto the other", (0, 0, MAIN, MAIN, 0), "EEXIST"),
    ("delete", (0, 0, 0, 0, None), 0),
]


def test_mistakes_with_memory_have_kvms_errno(device):
    """A slot that KVM refuses is refused with KVM's errno, one after the other on one virtual machine."""
    with rawkvm.open(device) as kvm:
        vm, memory = kvm.ioctl(kvm.fd, KVM_CREATE_VM, 0), kvm.memory(4 * MAIN)

        def attempt(slot, flags, guest, size, offset):
            ours = 0 if offset is None else kvm.address(memory) + offset
            return kvm.ioctl(vm, KVM_SET_USER_MEMORY_REGION, MemoryRegion(slot, flags, guest, size, ours))

        found = [(why, code_of(lambda region=region: attempt(*region))) for why, region, _ in REGIONS]
    assert found == [(why, expected) for why, _, expected in REGIONS]


def resized(request, size):
    """Return a request with another structure's size."""
    return request & ~(0x3FFF << 16) | size << 16


def test_mistakes_with_calls_have_kvms_errno(device):
    """The wrong file descriptor, number or structure."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm)
        calls = [
            ("version", kvm.fd, KVM_GET_API_VERSION, 0, 12),
            ("version of 1", kvm.fd, KVM_GET_API_VERSION, 1, "EINVAL"),
            ("type of machine", kvm.fd, KVM_CREATE_VM, 99, "EINVAL"),
            ("mmap size of 1", kvm.fd, KVM_GET_VCPU_MMAP_SIZE, 1, "EINVAL"),
            ("memory is a capability", kvm.fd, KVM_CHECK_EXTENSION, 3, 1),
            ("no such capability", m.vm, KVM_CHECK_EXTENSION, 99_999, 0),
            ("the same vCPU", m.vm, KVM_CREATE_VCPU, 0, "EEXIST"),
            ("too many vCPUs", m.vm, KVM_CREATE_VCPU, 1 << 20, "EINVAL"),
            ("run the machine", m.vm, KVM_RUN, 0, "ENOTTY"),
            ("run the device", kvm.fd, KVM_RUN, 0, "EINVAL"),
            ("make a vCPU of the device", kvm.fd, KVM_CREATE_VCPU, 0, "EINVAL"),
            ("make a machine of a machine", m.vm, KVM_CREATE_VM, 0, "ENOTTY"),
            ("run with a number", m.vcpu, KVM_RUN, 1, "EINVAL"),
            ("a region of the wrong size", m.vm, resized(KVM_SET_USER_MEMORY_REGION, 24), bytearray(32), "ENOTTY"),
            ("registers of the wrong size", m.vcpu, resized(KVM_SET_REGS, 100), bytearray(200), "EINVAL"),
            ("no structure", m.vcpu, KVM_SET_REGS, 0, "EFAULT"),
            ("nowhere to put it", m.vcpu, KVM_GET_SREGS, 0, "EFAULT"),
            ("TSS too high", m.vm, KVM_SET_TSS_ADDR, 0xFFFFFFFF, "EINVAL"),
            ("not open", 9_999, KVM_RUN, 0, "EBADF"),
            ("not a number", -1, KVM_RUN, 0, "EBADF"),
            ("not KVM's", 0, KVM_RUN, 0, "ENOTTY"),
        ]
        found = [(why, code_of(lambda call=call: kvm.ioctl(*call))) for why, *call, _ in calls]
        assert found == [(why, expected) for why, *_, expected in calls]
        assert code_of(lambda: kvm.mmap(m.vm, 4096)) == "ENODEV"
        assert code_of(lambda: kvm.mmap(m.vcpu, 1 << 20)) == "EINVAL"


SPECIAL = [
    ("paging without protection", {"cr0": 0x80000000}, "EINVAL"),
    ("not write-through, but cached", {"cr0": 0x20000001}, "EINVAL"),
    ("long mode without PAE", {"cr0": 0x80000001, "efer": 0x500}, "EINVAL"),
    ("long mode active, not enabled", {"efer": 0x400}, "EINVAL"),
    ("long mode paging, not active", {"cr0": 0x80000001, "cr4": 0x20, "efer": 0x100}, "EINVAL"),
    ("cr0 beyond 32 bits", {"cr0": 1 << 40}, "EINVAL"),
    ("cr4's reserved bits", {"cr4": 1 << 40}, "EINVAL"),
    ("long mode enabled only", {"efer": 0x100}, 0),
]


def test_mistakes_with_control_registers_are_refused(device):
    """What no processor could hold is EINVAL, and changes nothing."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm)
        before = bytes(m.get(Sregs, KVM_GET_SREGS))
        found = []
        for why, values, expected in SPECIAL:
            special = Sregs.from_buffer_copy(before)
            for name, value in values.items():
                setattr(special, name, value)
            found.append((why, code_of(lambda special=special: kvm.ioctl(m.vcpu, KVM_SET_SREGS, special))))
            if expected:
                assert bytes(m.get(Sregs, KVM_GET_SREGS)) == before
    assert found == [(why, expected) for why, _, expected in SPECIAL]


def test_a_new_vcpu_is_a_processor_after_reset(device):
    """It is in real mode, and its first instruction lies 16 bytes below 4 GiB."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm)
        regs, special = m.get(Regs, KVM_GET_REGS), m.get(Sregs, KVM_GET_SREGS)
        assert (regs.rip, special.cs.base, special.cs.selector) == (0xFFF0, 0xFFFF0000, 0xF000)
        assert (special.cr0, special.efer, regs.rflags, special.ds.base) == (0x60000010, 0, 2, 0)
        assert m.leave([]) == ("INTERNAL_ERROR", 1)  # there is nothing


def test_both_devices_reset_to_the_same_state():
    """Every byte of both structures."""
    states = []
    for name in rawkvm.DEVICES:
        with rawkvm.open(here(name)) as kvm:
            m = Machine(kvm)
            states.append((bytes(m.get(Regs, KVM_GET_REGS)), bytes(m.get(Sregs, KVM_GET_SREGS))))
    assert states[0] == states[1]


def test_immediate_exit_completes_and_does_no_more(device):
    """With it, KVM finishes `in` with the caller's data and returns EINTR before the next instruction."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm)
        m.load(bytes.fromhex("e4 60 88 c3 f4"), "real16", {})
        assert m.leave([b"Z"]) == ("in", 0x60, 1, 1)
        m.run.immediate_exit = 1
        with pytest.raises(InterruptedError, match="KVM_RUN"):
            kvm.ioctl(m.vcpu, KVM_RUN, 0)
        regs = m.get(Regs, KVM_GET_REGS)
        assert (regs.rax, regs.rbx, regs.rip) == (ord("Z"), 0, CODE + 2)
        m.run.immediate_exit = 0
        assert m.leave([]) == ("HLT",)
        assert m.get(Regs, KVM_GET_REGS).rbx == ord("Z")


def test_memory_that_is_only_read_makes_stores_exits(device):
    """A slot with KVM_MEM_READONLY is memory for loads and a device for stores."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm, flags=rawkvm.KVM_MEM_READONLY)
        m.load(bytes.fromhex("a0 00 20 fe c0 a2 00 20 8a 1e 00 20 f4"), "real16", {})
        m.memory[0x2000] = 6
        assert [m.leave([]), m.leave([])] == [("store", 0x2000, b"\x07"), ("HLT",)]
        assert (m.get(Regs, KVM_GET_REGS).rbx, m.memory[0x2000]) == (6, 6)


def test_memory_can_be_changed_between_two_runs(device):
    """The caller writes other code over the guest's, and that is what runs; a slot that is gone is gone."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm)
        for value in (1, 2):
            m.load(bytes((0xB0, value, 0xF4)), "real16", {})
            assert m.leave([]) == ("HLT",)
            assert m.get(Regs, KVM_GET_REGS).rax == value
        kvm.ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, MemoryRegion(0, 0, 0, 0, 0))
        m.load(b"\xf4", "real16", {})
        assert code_of(lambda: m.leave([])) in (("INTERNAL_ERROR", 1), "ENOSPC")  # the latter: hosts with shadow pages


def test_two_machines_do_not_see_each_other(device):
    """Each has its memory and its registers."""
    with rawkvm.open(device) as kvm:
        first, second = Machine(kvm), Machine(kvm)
        for m, value in ((first, 1), (second, 2)):
            m.load(bytes((0xB0, value, 0xA2, 0x00, 0x20, 0xF4)), "real16", {})
        assert [m.leave([]) for m in (second, first)] == [("HLT",)] * 2
        assert [(m.memory[0x2000], m.get(Regs, KVM_GET_REGS).rax) for m in (first, second)] == [(1, 1), (2, 2)]


def test_a_code_segment_of_zeros_is_refused_at_entry():
    """The emulated processor refuses a state that hardware refuses (some hosts' KVM emulates it instead)."""
    with rawkvm.open(here("fake")) as kvm:
        m = Machine(kvm)
        special = m.get(Sregs, KVM_GET_SREGS)
        special.cs = Segment()
        kvm.ioctl(m.vcpu, KVM_SET_SREGS, special)
        assert m.leave([]) == ("FAIL_ENTRY",)
        assert m.run.fail_entry.hardware_entry_failure_reason == 0x80000021


def test_a_slot_without_memory_behind_it_is_a_bad_address():
    """KVM takes any address, also 0; it is the guest's first access that fails."""
    with rawkvm.open(here("fake")) as kvm:
        m = Machine(kvm)
        kvm.ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, MemoryRegion(1, 0, RAM, RAM, 0))
        m.load(bytes.fromhex("b8 00 10 8e d8 a0 00 00 f4"), "real16", {})
        assert code_of(lambda: m.leave([])) == "EFAULT"


def test_an_endless_guest_gives_the_caller_back(device):
    """A loop without an exit ends with the budget, and so does every later call."""
    with rawkvm.open(device, seconds=0.2) as kvm:
        m = Machine(kvm)
        m.load(b"\xeb\xfe", "real16", {})
        for _ in range(2):
            with pytest.raises(BudgetSpentError, match=r"ran for 0\.2 s.*loop in the guest"):
                m.leave([])
        assert m.get(Regs, KVM_GET_REGS).rip == CODE


def test_a_caller_that_overlooks_the_end_is_stopped(device):
    """KVM_RUN after hlt goes on behind it, again and again; the number of runs is limited."""
    with rawkvm.open(device, runs=5) as kvm:
        m = Machine(kvm)
        m.load(b"\xf4" * 10, "real16", {})
        assert [m.leave([]) for _ in range(5)] == [("HLT",)] * 5
        with pytest.raises(BudgetSpentError, match="called 5 times"):
            m.leave([])


def held():
    """Return the files and the children that this process has."""
    tasks = Path("/proc/self/task").iterdir()
    return (
        {path.name: str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()},
        {pid for task in tasks for pid in (task / "children").read_text().split()},
    )


def test_the_with_closes_what_the_caller_leaves_open(device):
    """No process and no file is left, whatever happened inside; a call that comes later says so."""
    before = held()

    def break_off():
        with rawkvm.open(device) as kvm:
            made.append((kvm, Machine(kvm).shared))
            raise ZeroDivisionError

    made = []
    with pytest.raises(ZeroDivisionError):
        break_off()
    assert held() == before
    (kvm, shared) = made[0]
    assert shared.closed
    with pytest.raises(VcpuError, match="inside the `with`"):
        kvm.ioctl(kvm.fd, KVM_CREATE_VM, 0)


def test_a_forgotten_device_is_closed(device):
    """Without a with, process and files go when Python collects the device."""
    before = held()
    kvm = rawkvm.open(device)
    Machine(kvm)
    del kvm
    gc.collect()
    assert held() == before


def test_a_file_that_the_caller_closed_is_not_closed_again(device):
    """Its number may belong to another file by then, which stays open."""
    with rawkvm.open(device) as kvm:
        vm = kvm.ioctl(kvm.fd, KVM_CREATE_VM, 0)
        os.close(vm)
        assert code_of(lambda: kvm.ioctl(vm, KVM_CREATE_VCPU, 0)) == "EBADF"
        other = os.open("/dev/null", os.O_RDONLY)
        assert other == vm
    os.close(other)


def test_a_device_belongs_to_the_process_that_opened_it(device):
    """In a forked child a call is refused, and closing there leaves the parent's machine alone."""
    with rawkvm.open(device) as kvm:
        m = Machine(kvm)
        m.load(b"\xf4", "real16", {})

        def use():
            try:
                return str(kvm.ioctl(m.vcpu, KVM_RUN, 0))
            except VcpuError as error:
                kvm.close()
                return str(error)

        assert "another process" in in_child(use)
        assert m.leave([]) == ("HLT",)


def test_arguments_that_cannot_be_meant_are_named():
    """Too short a structure, an address as a number, memory that is not the guest's, a device that there is not."""
    with rawkvm.open(here("fake")) as kvm:
        m = Machine(kvm)
        for call, said in (
            ((m.vcpu, KVM_SET_SREGS, Regs()), "KVM_SET_SREGS takes a structure of 312 bytes; this one has 144"),
            ((m.vcpu, KVM_SET_REGS, 0x1234000), "pass the structure itself"),
            ((m.vcpu, KVM_SET_REGS, "regs"), "'regs' was given"),
            ((m.vcpu, KVM_GET_REGS, bytes(144)), "bytes cannot be changed"),
            ((m.vm, KVM_SET_USER_MEMORY_REGION, MemoryRegion(5, 0, 1 << 20, 4096, 0x7000)), "kvm.memory()"),
            (("vcpu", KVM_RUN, 0), "'vcpu' was given as the first argument of KVM_RUN"),
        ):
            with pytest.raises(UsageError, match=re.escape(said)):
                kvm.ioctl(*call)
        with pytest.raises(UsageError, match="are left"):
            kvm.memory(1 << 40)
    with pytest.raises(UsageError, match="no device 'vmware'"):
        rawkvm.open("vmware")


def test_a_device_that_is_missing_says_why(monkeypatch):
    """What `devices` reports is what `open` raises."""

    def refuse():
        raise CapabilityError("the engine kvm", "there is none", "Use another.")

    monkeypatch.setattr("course.vcpu.kvm_engine.require_kvm", refuse)
    row = rawkvm.devices()[0]
    assert (bool(row), row.name, row.why, row.remedy) == (False, "kvm", "there is none", "Use another.")
    with pytest.raises(CapabilityError, match="there is none"):
        rawkvm.open("kvm")
    with rawkvm.open() as kvm:
        assert kvm.device == "fake"


def test_the_numbers_are_the_kernels():
    """The requests as the kernel's documentation and other programs write them."""
    expected = {
        "KVM_GET_API_VERSION": 0xAE00, "KVM_CREATE_VM": 0xAE01, "KVM_CHECK_EXTENSION": 0xAE03,
        "KVM_GET_VCPU_MMAP_SIZE": 0xAE04, "KVM_CREATE_VCPU": 0xAE41, "KVM_SET_USER_MEMORY_REGION": 0x4020AE46,
        "KVM_SET_TSS_ADDR": 0xAE47, "KVM_RUN": 0xAE80, "KVM_GET_REGS": 0x8090AE81, "KVM_SET_REGS": 0x4090AE82,
        "KVM_GET_SREGS": 0x8138AE83, "KVM_SET_SREGS": 0x4138AE84, "KVM_GET_SUPPORTED_CPUID": 0xC008AE05,
        "KVM_SET_CPUID2": 0x4008AE90, "KVM_SET_MSRS": 0x4008AE89, "KVM_GET_STATS_FD": 0xAECE,
    }  # fmt: skip
    assert {name: getattr(kvm_abi, name) for name in expected} == expected
    assert {kvm_abi.request_name(value) for value in expected.values()} == set(expected)
    assert kvm_abi.request_name(5) == "request 0x00000005"


def test_the_structures_lie_as_the_kernels_do():
    """Sizes and offsets, as compiled from the kernel's headers on x86-64."""
    sizes = {kvm_abi.Regs: 144, Sregs: 312, Segment: 24, kvm_abi.Dtable: 16, MemoryRegion: 32, Run: 288}
    assert {structure: ctypes.sizeof(structure) for structure in sizes} == sizes
    offsets = {
        Run: {"immediate_exit": 1, "exit_reason": 8, "if_flag": 13, "cr8": 16, "apic_base": 24, "io": 32, "mmio": 32},
        kvm_abi.Io: {"size": 1, "port": 2, "count": 4, "data_offset": 8},
        kvm_abi.Mmio: {"data": 8, "len": 16, "is_write": 20},
        Sregs: {"gdt": 192, "idt": 208, "cr0": 224, "cr3": 240, "cr4": 248, "efer": 264, "apic_base": 272},
        Regs: {"rsp": 48, "rip": 128, "rflags": 136},
    }
    for structure, fields in offsets.items():
        assert {name: getattr(structure, name).offset for name in fields} == fields


@pytest.mark.skipif(not KERNEL_HEADER.exists(), reason="no kernel headers here")
def test_the_exit_reasons_are_those_of_the_headers_that_are_here():
    """Every name that the course knows has the header's number."""
    header = KERNEL_HEADER.read_text()
    numbers = dict(re.findall(r"#define\s+(KVM_EXIT_\w+)\s+(\d+)", header))
    assert {f"KVM_EXIT_{name}": str(number) for number, name in EXITS.items()}.items() <= numbers.items()


def test_the_structures_are_those_of_the_headers_that_are_here(tmp_path):
    """A C compiler, where there is one, agrees about every field."""
    compiler = next((p for p in ("/usr/bin/cc", "/usr/bin/gcc") if Path(p).exists()), None)
    if compiler is None or not KERNEL_HEADER.exists():
        pytest.skip("no C compiler or no kernel headers here")
    pairs = {
        "kvm_regs": Regs, "kvm_sregs": Sregs, "kvm_segment": Segment, "kvm_userspace_memory_region": MemoryRegion,
    }  # fmt: skip
    fields = [(c, name) for c, structure in pairs.items() for name, *_ in structure._fields_]
    fields += [("kvm_run", name) for name in ("immediate_exit", "exit_reason", "cr8", "io.port", "io.data_offset",
               "mmio.len", "mmio.is_write", "internal.suberror", "fail_entry.cpu")]  # fmt: skip
    lines = [f'printf("%zu\\n", __builtin_offsetof(struct {c}, {name}));' for c, name in fields]
    source = tmp_path / "offsets.c"
    source.write_text("#include <stdio.h>\n#include <linux/kvm.h>\nint main() {" + "".join(lines) + "}\n")
    subprocess.run([compiler, "-o", tmp_path / "offsets", source], check=True)
    output = subprocess.run([tmp_path / "offsets"], check=True, capture_output=True, text=True).stdout

    def offset(structure, path):
        head, _, rest = path.partition(".")
        field = getattr(structure, head)
        return field.offset + (offset(INSIDE[head], rest) if rest else 0)

    ours = [offset({**pairs, "kvm_run": Run}[c], name) for c, name in fields]
    assert ours == [int(line) for line in output.split()]


INSIDE = {"io": kvm_abi.Io, "mmio": kvm_abi.Mmio, "internal": kvm_abi.Internal, "fail_entry": kvm_abi.FailEntry}
