"""One set of guests over all engines: the same exits, registers and memory."""

import dataclasses

import capstone
import pytest

from course.vcpu import conformance, find
from course.vcpu.availability import Report, tables

PROGRAMS = {program.name: program for program in conformance.PROGRAMS}


@pytest.mark.parametrize("name", PROGRAMS)
def test_listings_say_what_capstone_says(name):
    """The disassembly beside the bytes is capstone's: nobody wrote a wish there."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    address = conformance.START
    for code, text in PROGRAMS[name].lines:
        instruction = next(decoder.disasm(code, address, 1))
        assert (f"{instruction.mnemonic} {instruction.op_str}".strip(), instruction.size) == (text, len(code))
        address += len(code)


@pytest.mark.parametrize("name", PROGRAMS)
def test_engine_does_what_the_architecture_says(engine, name):
    """Exits, registers and memory are those that the manual fixes."""
    assert conformance.check(PROGRAMS[name], engine) == ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_engine_leaves_the_same_registers_as_the_emulator(engine, name):
    """Every register, also those that the program does not name, agrees with Unicorn's (undefined flags apart)."""
    if not find("unicorn"):
        pytest.skip("unicorn is not here to compare with")
    expected, actual = (conformance.run(PROGRAMS[name], which).registers for which in ("unicorn", engine))
    assert {**actual, "rflags": 0} == {**expected, "rflags": 0}


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [("exits", ("hlt",), "exits"), ("registers", {"rax": 1}, "rax"), ("memory", {conformance.START: b"?"}, "memory")],
)
def test_check_notices(field, value, complaint):
    """A wrong expectation is noticed; otherwise the tests above would prove nothing."""
    wrong = dataclasses.replace(PROGRAMS["output"], **{field: value})
    assert conformance.check(wrong, "unicorn").startswith(complaint)


def test_tables_show_engines_and_failures():
    """What differs stands in the table."""
    from rich.console import Console

    results = {name: {"unicorn": "exits differ" if name == "output" else ""} for name in PROGRAMS}
    report = Report((find("unicorn"),), results)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(*tables(report))
        text = console.export_text()
    assert not report.conforms
    assert "exits differ" in text
    assert text.count("as it must") == len(PROGRAMS) - 1
