"""Machine code under fuel: whatever it does is a result."""

from __future__ import annotations

import os
import platform

import pytest

from course import isa
from course.error import CapabilityError, UsageError
from course.isa import End
from tests.children import children

AFFINE = {
    "x86": "mov eax, [esp+4]\nlea eax, [eax+eax*2]\nadd eax, [esp+8]\nret",
    "x86_64": "lea eax, [rdi+rdi*2]\nadd eax, esi\nret",
    "ppc": "mulli r3, r3, 3\nadd r3, r3, r4\nblr",
    "ppc64": "mulli r3, r3, 3\nadd r3, r3, r4\nblr",
    "aarch64": "add w0, w0, w0, lsl #1\nadd w0, w0, w1\nret",
    "riscv32": "slli t0, a0, 1\nadd a0, a0, t0\nadd a0, a0, a1\nret",
    "riscv64": "slli t0, a0, 1\nadd a0, a0, t0\nadd a0, a0, a1\nret",
}


@pytest.mark.parametrize("name", AFFINE)
def test_a_function_gets_its_arguments_where_the_abi_says(name):
    """3a + b comes out on every ISA, with nothing clobbered."""
    result = isa.call(isa.assemble(AFFINE[name], name), name, 7, 5, seed=3)
    assert (result.end, result.value, dict(result.changed)) == (End.RETURNED, 26, {})
    assert result.instructions == len(AFFINE[name].splitlines())


@pytest.mark.parametrize(
    ("name", "source", "end", "says"),
    [
        ("x86", "add eax, ebx", End.FUEL, "still running after 1000 instructions"),
        ("ppc", "li r3, 4", End.FUEL, "still running"),
        ("x86_64", "l: jmp l", End.FUEL, "still running"),
        ("ppc", "lwz r3, 0(r0)", End.FAULT, "it read 0x0, where there is no memory"),
        ("x86_64", "mov dword [0x10000], 4", End.FAULT, "it wrote 0x10000, the code, which is read-only"),
        ("x86_64", "push 0\nret", End.FAULT, "jumped to 0x0"),
        ("x86", "int 0x80", End.TRAP, "int 0x80"),
        ("x86_64", "syscall", End.TRAP, "syscall"),
        ("aarch64", "svc 0", End.TRAP, "svc"),
        ("riscv64", "ecall", End.TRAP, "ecall"),
        ("ppc", ".word 0", End.ILLEGAL, "bytes 00 00 00 00"),
        ("x86", ".byte 0x0f, 0x0b", End.ILLEGAL, "ud2"),
        ("x86_64", "hlt", End.ILLEGAL, "stopped there"),
    ],
)
def test_code_that_goes_wrong_says_how(name, source, end, says):
    """Loops, faults, traps and nonsense bytes are told apart, with the address."""
    result = isa.call(isa.assemble(source, name), name, fuel=1000)
    assert result.end is end
    assert says in result.detail


def test_clobbered_registers_are_reported():
    """Registers that belong to the caller, and the stack pointer, are compared."""
    result = isa.call(isa.assemble("mov ebx, 1\nret", "x86"), "x86")
    assert list(result.changed) == ["ebx"]
    result = isa.call(isa.assemble("pop rcx\npush rcx\npush rcx\nret", "x86_64"), "x86_64")
    assert list(result.changed) == ["rsp"]


def test_a_trace_shows_registers_and_stores():
    """Each step carries what it changed; stores appear in memory order."""
    source = "lis r4, 0x1234\nori r4, r4, 0x5678\nstw r4, 0(r3)\nblr"
    trace = isa.trace(isa.assemble(source, "ppc"), "ppc", 0x30000, data=bytes(4))
    assert [step.text for step in trace.steps] == ["lis r4, 0x1234", "ori r4, r4, 0x5678", "stw r4, 0(r3)", "blr"]
    assert trace.steps[1].changes == {"r4": 0x12345678}
    assert trace.steps[2].writes == ((0x30000, bytes.fromhex("12345678")),)
    assert trace.result.data == bytes.fromhex("12345678")


def test_what_cannot_be_meant_is_refused():
    """Text for code, an entry outside, a foreign register name, an ISA without an engine."""
    with pytest.raises(UsageError, match="assemble it first"):
        isa.call("nop", "x86")
    with pytest.raises(UsageError, match="entry 9"):
        isa.call(b"\xc3", "x86", entry=9)
    with pytest.raises(UsageError, match="no register"):
        isa.call(b"\xc3", "x86", registers={"r3": 1})
    with pytest.raises(UsageError, match="cannot run m68k"):
        isa.call(b"\x4e\x75", "m68k")


def test_a_dying_emulator_is_a_result(monkeypatch):
    """When the child is killed, the caller gets a result and lives on."""
    monkeypatch.setattr("course.isa.processor.emulate", lambda job: os.abort())
    assert isa.call(b"\xc3", "x86").end is End.CRASHED


def test_native_code_agrees_with_the_emulator_and_is_locked_in():
    """The same bytes natively: the same value; system calls, stores into code and loops end it."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        with pytest.raises(CapabilityError):
            isa.call_natively(b"\xc3")
        return
    double = bytes.fromhex("b96a0258c3b801000000c3")
    assert [isa.call_natively(double, entry=e).value for e in (0, 1)] == [1, 2]
    assert [isa.call(double, "x86_64", entry=e).value for e in (0, 1)] == [1, 2]
    assert isa.call_natively(bytes.fromhex("0f0b")).why == "SIGILL"
    assert isa.call_natively(bytes.fromhex("b8390000000f05c3")).why == "SIGKILL"  # getpid is refused
    assert isa.call_natively(bytes.fromhex("c60500000000ffc3")).why == "SIGSEGV"  # code is not writable
    assert "no return within" in isa.call_natively(b"\xeb\xfe", timeout_s=0.3).why


def test_nothing_is_left_running():
    """Children are reaped, also those that were killed."""
    others = children()
    isa.call(isa.assemble("l: jmp l", "x86"), "x86", fuel=10**9, timeout_s=0.2)
    assert children() <= others
