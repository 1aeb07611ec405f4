"""KVM inside QEMU's emulated SVM: its exits beside those of the emulated KVM, its counts beside QEMU's own log."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import capstone
import pytest

from course.error import GuestError, UsageError
from course.guest import kernel, kvmrunner, nested
from course.isa.elf import code_address
from course.vcpu import rawkvm

OUTPUT = bytes.fromhex("ba f8 03 b0 41 ee fe c0 ee fe c0 ee f4")  # A, B, C to the serial port, then hlt

# name: (code, inputs, registers)
GUESTS: dict[str, tuple[str, list[bytes], dict[str, int]]] = {
    "output": (OUTPUT.hex(), [], {}),
    "in, add, out": ("e4 60 04 01 e6 61 f4", [b"A"], {}),
    "words and dwords": ("b8 34 12 e7 10 66 e5 10 66 e7 14 f4", [b"wxyz"], {}),
    "load, store, both": (
        "b8 00 20 8e d8 a1 04 00 a3 08 00 fe 06 0c 00 c6 06 10 00 07 f4", [b"\x99\x11", b"\x41"], {},
    ),
    "rep outsb": ("b9 03 00 ba 10 00 be 0c 10 f3 6e f4 61 62 63", [], {}),
    "registers": ("01 d8 00 e1 f4", [], {"rax": 5, "rbx": 7, "rcx": 0x0102}),
    "a loop": ("b9 e8 03 31 c0 40 e2 fd f4", [], {}),
    "call and stack": ("e8 02 00 40 f4 83 c0 05 c3", [], {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def vm(linux_files: object) -> Iterator[nested.NestedGuest]:
    """One machine with /dev/kvm for all tests."""
    del linux_files
    with nested.machine() as machine:
        yield machine


def emulated(code: bytes, inputs: list[bytes], registers: dict[str, int]) -> tuple[list[tuple[object, ...]], list[int]]:
    """Return exits and registers of the same guest on the emulated KVM of `rawkvm`."""
    with rawkvm.open("fake") as kvm:
        machine = kvm.ioctl(kvm.fd, rawkvm.KVM_CREATE_VM, 0)
        memory = kvm.memory(kvmrunner.GUEST_BYTES)
        memory[0x1000 : 0x1000 + len(code)] = code
        region = rawkvm.MemoryRegion(0, 0, 0, len(memory), kvm.address(memory))
        kvm.ioctl(machine, rawkvm.KVM_SET_USER_MEMORY_REGION, region)
        vcpu = kvm.ioctl(machine, rawkvm.KVM_CREATE_VCPU, 0)
        shared = kvm.mmap(vcpu, kvm.ioctl(kvm.fd, rawkvm.KVM_GET_VCPU_MMAP_SIZE, 0))
        run, special = rawkvm.Run.from_buffer(shared), rawkvm.Sregs()
        kvm.ioctl(vcpu, rawkvm.KVM_GET_SREGS, special)
        special.cs.base = special.cs.selector = 0
        kvm.ioctl(vcpu, rawkvm.KVM_SET_SREGS, special)
        regs = rawkvm.Regs(**{"rip": 0x1000, "rsp": 0x8000, "rflags": 2, **registers})
        kvm.ioctl(vcpu, rawkvm.KVM_SET_REGS, regs)
        answers, exits = iter([*inputs, *[bytes(8)] * 100]), []
        while not exits or exits[-1][0] in ("IO", "MMIO"):
            kvm.ioctl(vcpu, rawkvm.KVM_RUN, 0)
            name = rawkvm.EXITS[run.exit_reason]
            data = b""
            if name == "IO":
                at, size = run.io.data_offset, run.io.size * run.io.count
                if run.io.direction:
                    data = shared[at : at + size]
                else:
                    shared[at : at + size] = next(answers).ljust(size, b"\0")[:size]
                exits.append((name, run.io.port, run.io.size, run.io.count, data))
            elif name == "MMIO":
                if run.mmio.is_write:
                    data = bytes(run.mmio.data[: run.mmio.len])
                else:
                    for index, byte in enumerate(next(answers)):
                        run.mmio.data[index] = byte
                exits.append((name, run.mmio.phys_addr, run.mmio.len, 1, data))
            else:
                exits.append((name, 0, 0, 0, b""))
        kvm.ioctl(vcpu, rawkvm.KVM_GET_REGS, regs)
        return exits, [getattr(regs, name) for name, *_ in rawkvm.Regs._fields_]


@pytest.mark.qemu
@pytest.mark.parametrize("name", GUESTS)
def test_nested_guests_leave_as_the_emulated_kvm_says(vm: nested.NestedGuest, name: str) -> None:
    """Every exit with port, size, count and data, and every register at the end: two processors that share nothing."""
    text, inputs, registers = GUESTS[name]
    code = bytes.fromhex(text)
    result = vm.run(code, inputs=inputs, registers=registers)
    exits = [(e.reason, e.port or e.address, e.size, e.count, e.data) for e in result.exits]
    assert (exits, list(result.registers.values())) == emulated(code, inputs, registers)
    assert result.ended == "HLT"
    assert result.kernel == kernel.ensure().release


@pytest.mark.qemu
def test_kvm_and_the_processor_count_the_same_exits(vm: nested.NestedGuest) -> None:
    """What KVM counts for the vCPU is what QEMU's own log of the emulated SVM says, one by one."""
    with vm.vmexits() as seen:
        result = vm.run(OUTPUT)
    wanted = [e for e in seen if e.name != "INTR"]  # a timer of the level-1 guest may come at any time
    assert [e.name for e in wanted if e.name != "NPF"] == ["IOIO", "IOIO", "IOIO", "HLT"]
    assert [e.info1 >> 16 for e in wanted if e.name == "IOIO"] == [nested.SERIAL] * 3
    assert wanted[0].name == "NPF"  # the first fetch finds no page yet
    assert wanted[0].info2 == 0x1000
    counts = result.counts
    assert (counts["exits"], counts["io_exits"], counts["mmio_exits"], counts["halt_exits"]) == (len(seen), 3, 0, 1)
    assert result.output == b"ABC"
    assert result.round_trip_ns > 0


@pytest.mark.qemu
def test_dev_kvm_is_there_for_the_shell(vm: nested.NestedGuest) -> None:
    """Students find a CPU with SVM, the modules and the device, in at most 512 MiB."""
    status, text = vm.console.run("test -c /dev/kvm && grep -c svm /proc/cpuinfo && ls -d /sys/module/kvm*")
    assert (status, text.split()) == (0, ["1", "/sys/module/kvm", "/sys/module/kvm_amd"])
    assert vm.spec.ram_mib <= 512


@pytest.mark.qemu
def test_an_endless_nested_guest_is_ended(vm: nested.NestedGuest) -> None:
    """It does not hang the caller, what it did before is told, and the machine runs the next."""
    for patience_s in (2, 30):  # the first exit may take longer than usual on a busy machine
        result = vm.run(bytes.fromhex("b0 21 e6 10 eb fe"), timeout_s=patience_s)
        if result.exits:
            break
    assert (result.ended, [e.data for e in result.exits], result.registers) == ("timeout", [b"!"], {})
    assert vm.run(b"\xf4").ended == "HLT"


@pytest.mark.qemu
def test_a_nested_guest_is_left_alone_after_max_exits(vm: nested.NestedGuest) -> None:
    """An endless dialogue with a device ends after as many exits as were allowed."""
    result = vm.run(bytes.fromhex("e6 10 eb fc"), max_exits=40)
    assert (result.ended, len(result.exits), result.counts["io_exits"]) == ("max_exits", 40, 40)


@pytest.mark.qemu
def test_long_code_and_its_data_arrive_whole(vm: nested.NestedGuest) -> None:
    """Some kilobytes, typed on the console in pieces: the guest sums them up."""
    data = bytes(value * 7 & 0xFF for value in range(6000))
    code = struct.pack("<BHBHHBHBB", 0xB9, len(data), 0xBE, 0x1000 + 19, 0xD231, 0xB4, 0xAC00, 0x01, 0xC2)
    code = code[:8] + bytes.fromhex("b4 00 ac 01 c2 e2 fb f4 90 90 90") + data  # mov ah,0 / lodsb / add dx,ax / loop
    assert vm.run(code).registers["rdx"] == sum(data) & 0xFFFF


@pytest.mark.qemu
def test_a_machine_without_kvm_says_which_call_failed(vm: nested.NestedGuest) -> None:
    """The error names the call and the kernel's reason."""
    assert vm.console.run("modprobe -r kvm_amd")[0] == 0
    with pytest.raises(GuestError, match="open /dev/kvm failed: No such"):
        vm.run(b"\xf4")
    assert vm.console.run("modprobe kvm_amd")[0] == 0
    assert vm.run(b"\xf4").ended == "HLT"


@pytest.mark.qemu
@pytest.mark.usefixtures("linux_files")
def test_run_brings_its_own_machine() -> None:
    """Without a machine, one is cloned for this run and gone after it."""
    assert nested.run(OUTPUT, registers={"rbx": 3}).registers["rbx"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"code": b""}, "expected 1 to 16384 bytes"),
        ({"code": "f4"}, "'f4'; expected"),
        ({"inputs": [bytes(9)]}, "pieces of 1 to 8 bytes"),
        ({"inputs": [b"a"] * 3, "max_exits": 2}, "at most max_exits=2"),
        ({"registers": {"eax": 1}}, "no register eax"),
        ({"max_exits": 0}, "max_exits is 0"),
        ({"timeout_s": 601}, "timeout_s 601"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, object], said: str) -> None:
    """Before any machine is started."""
    with pytest.raises(UsageError, match=said):
        nested.run(**{"code": b"\xf4", **arguments})  # type: ignore[arg-type]


def test_lines_that_cannot_be_read_are_shown() -> None:
    """A program that said something else is an error with that text; a kernel without statistics is none."""
    with pytest.raises(GuestError, match="sh: not found"):
        nested.parse("sh: not found\n", "6.1", 10)
    exit_ = kvmrunner.RECORD.pack(5, struct.pack("<I", 5).ljust(56, b"\0"), bytes(8))
    failed = struct.pack("<Qq", 12, -22)
    lines = [f"x{exit_.hex()}", f"r{bytes(144).hex()}", f"f{failed.hex()}"]
    result = nested.parse("\n".join(lines), "5.10", 10)
    assert (result.ended, result.counts, result.exits[0].elapsed_ns) == ("HLT", {}, 5)
    with pytest.raises(GuestError, match=r"KVM_RUN.* failed: Invalid argument"):
        nested.parse(f"f{failed.hex()}", "6.1", 10)


def test_the_program_is_what_its_source_says() -> None:
    """Capstone finds an instruction at every byte up to the data, and those written as bytes are as their comments."""
    program = kvmrunner.program()
    assert len(program) < 2048
    start = code_address("x86_64")
    body = program[120 : program.index(b"0123456789abcdef")]
    lines = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(body, start))
    assert sum(line.size for line in lines) == len(body)
    words = [f"{line.mnemonic} {line.op_str}" for line in lines]
    assert words.count("rep movsb byte ptr [rdi], byte ptr [rsi]") == 2
    at = words.index("movzx eax, byte ptr [rsi]")
    digits = start + len(body)
    assert words[at + 4 : at + 8] == [
        f"movzx eax, byte ptr [rax + {digits:#x}]", f"movzx edx, byte ptr [rdx + {digits:#x}]",
        "mov byte ptr [rdi], al", "mov byte ptr [rdi + 1], dl",
    ]  # fmt: skip


@pytest.mark.usefixtures("linux_files")
def test_the_initramfs_adds_kvm_and_keeps_the_rest() -> None:
    """It is the other guests' archive with a second one behind it; made once; the first one's modules still load."""
    made, again = nested.files(), nested.files()
    assert made == again
    plain = kernel.ensure()
    content, base = made.initrd.read_bytes(), (plain.modules / "modules.dep").read_bytes()
    assert base in content
    added = content[content.rindex(base) + len(base) :].split(b"\0")[0].decode().splitlines()
    assert added == ["irqbypass.ko:", "kvm.ko: irqbypass.ko", "kvm_amd.ko: kvm.ko irqbypass.ko"]


def test_every_step_of_the_program_has_a_name() -> None:
    """The number that a failed call reports is its place in the source."""
    calls = [line for line in kvmrunner.SOURCE.splitlines() if line.strip() in ("call ioctl", "call checked")]
    before_run = kvmrunner.SOURCE[: kvmrunner.SOURCE.index("\nrun:")]
    assert before_run.count("call ioctl") + before_run.count("call checked") == len(nested.STEPS)
    assert len(calls) > len(nested.STEPS)
