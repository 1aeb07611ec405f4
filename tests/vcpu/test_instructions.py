"""The forty instructions, and the machine in ring 0 that they are compared with."""

from __future__ import annotations

import capstone
import pytest

from course.vcpu import instructions, perfect
from course.vcpu.cpu import START


def classify(engine, piece):
    """Tell what runs through: enough for a survey."""
    state = instructions.in_ring_3(engine, piece, 0)
    return "silent" if state else "undefined" if piece == b"\x0f\x0b" else "privileged"


def test_the_table_has_forty_with_their_own_disassembly():
    """Each name begins with the mnemonic that capstone reads in the bytes, or sets a register up for it."""
    table = instructions.table()
    assert len(table) == len(set(table.values())) == 40
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for name, code in table.items():
        found = list(disassembler.disasm(code, START))
        assert sum(len(i.bytes) for i in found) == len(code), name
        assert name.split()[0].rstrip(";") in {i.mnemonic for i in found}


def test_a_listing_is_its_bytes():
    """Comments are left out, also such as look like hexadecimal."""
    assert instructions.code("fa ; cli\n  0f 22 d8 ; add dead beef\n\n; f4\n") == bytes.fromhex("fa0f22d8")


def test_the_survey_of_an_emulated_processor_finds_the_culprits_of_the_literature():
    """Those of Robin and Irvine's that are in the table and run in ring 3 of Unicorn break the theorem."""
    rows = instructions.survey("unicorn", classify)
    bad = {row["name"] for row in rows if row["seen"] is not None and row["seen"] != row["perfect"]}
    literature = {"pushfq; pop rax", "push 2; popfq", "mov eax, cs", "smsw eax", "sgdt [scratch]", "sidt [scratch]"}
    assert literature | {"sldt eax", "str eax"} == bad
    assert not {row["name"] for row in rows if row["name"] == "ud2"}


def test_popf_is_sensitive_in_one_state_only():
    """What an instruction gives away depends on the state that it is tried in."""
    states = {flag: instructions.on_its_own_machine(b"\x6a\x02\x9d", flag)["IF"] for flag in (0, 1)}
    assert states == {0: 0, 1: 0}
    seen = {flag: instructions.in_ring_3("unicorn", b"\x6a\x02\x9d", flag)["IF"] for flag in (0, 1)}
    assert seen == {0: 0, 1: 1}


@pytest.mark.parametrize(
    ("code", "end", "register", "value"),
    [
        ("8c c8 f4", "hlt", "rax", 0x08),
        ("fb 9c 58 f4", "hlt", "rax", 0x202),
        ("fa 9c 58 f4", "hlt", "rax", 0x002),
        ("0f 00 c8", "end of code", "rax", 0x18),
        ("0f 00 c0", "end of code", "rax", 0x28),
        ("b8 00 50 00 00 0f 22 d8 0f 20 db", "end of code", "rbx", 0x5000),
        ("0f 0b", "fault", "rip", START),
        ("f7 f1", "fault", "rip", START),
        ("eb fe", "fuel", "rip", START),
    ],
)
def test_the_reference_is_in_ring_0(code, end, register, value):
    """Selectors, flags and control registers are its own; faults and loops end it."""
    ran = perfect.run(bytes.fromhex(code), fuel=1000)
    assert (ran["end"], ran["registers"][register]) == (end, value)


def test_the_reference_has_a_console_and_keys():
    """Port 0xe9 prints, 0x60 gives keys and then zeros, others give ones."""
    ran = perfect.run(bytes.fromhex("e460 e6e9 e460 e6e9 e460 e6e9 e6 80 e571 f4"), b"ok")
    assert ran["console"] == b"ok\0"
    assert ran["registers"]["rax"] == 0xFFFFFFFF


def test_the_reference_begins_as_it_is_told():
    """Registers and flags may be given; what was executed is told, each instruction once."""
    ran = perfect.run(b"\x90\x90\xf4", registers={"rbx": 7, "rflags": 0x202})
    assert (ran["registers"]["rbx"], ran["registers"]["rflags"] & 0x200) == (7, 0x200)
    assert ran["executed"] == [b"\x90", b"\xf4"]
