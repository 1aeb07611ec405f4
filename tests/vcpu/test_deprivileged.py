"""Guests in the wrong ring: right when their silent instructions trap, wrong when not, on every engine."""

import random

import capstone
import pytest

from course.error import UsageError
from course.isa import assemble
from course.vcpu import flawed, sensitive
from course.vcpu.deprivileged import Deprivileged, Translated

BASE = 0x100000
KINDS = [sensitive.straight, sensitive.switching]


def patched(guest):
    """The image with int3 in the place of each instruction that the builder calls sensitive."""
    code = bytearray(guest.code)
    for address, old in guest.sensitive.items():
        code[address - guest.base : address - guest.base + len(old)] = b"\xcc" * len(old)
    return bytes(code)


def test_the_self_test_fails_as_it_is_and_passes_patched(engine):
    """Three of four answers are wrong without a trap; patched, all are right."""
    guest = sensitive.self_test()
    with Deprivileged(engine, guest.code) as machine:
        seen = machine.run()
    assert (seen["result"], seen["output"], seen["ended"]) == (0, b"fcgN", "hlt")
    with Deprivileged(engine, patched(guest), guest.sensitive) as machine:
        seen = machine.run()
    assert (seen["result"], seen["output"], seen["ended"]) == (1, b"FCGN", "hlt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_a_guest_computes_what_its_builder_says(engine, kind, seed):
    """What construction promises, every engine confirms; unpatched, the guest computes something else."""
    guest = kind(random.Random(seed))
    with Deprivileged(engine, patched(guest), guest.sensitive) as machine:
        seen = machine.run()
    assert (seen["result"], seen["output"], seen["ended"]) == (guest.result, guest.output, "hlt")
    with Deprivileged(engine, guest.code) as machine:
        assert machine.run()["output"] != guest.output


@pytest.mark.parametrize("kind", KINDS)
def test_builders_mark_what_capstone_calls_sensitive(kind):
    """At each address that is called sensitive stands one whole instruction, of a kind that the text names."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for seed in range(10):
        guest = kind(random.Random(seed))
        for address, code in guest.sensitive.items():
            found = next(decoder.disasm(code, address, 1))
            assert found.size == len(code)
            assert found.mnemonic in sensitive.SILENT or found.op_str.endswith(", cs")
            assert not any(begin <= address < end for begin, end in guest.data)


def test_blocks_can_be_trapped_while_the_guest_runs(engine):
    """A trapped jump brings control back behind it; what was not trapped runs by itself."""
    code = assemble("mov eax, 1\njmp far\n.byte 0x06\nfar: pushf\npop rax\nhlt", "x86_64")
    with Translated(engine, code) as guest:
        guest.trap([BASE + 5])
        guest.run_block()
        assert guest.pc == BASE + 8
        guest.trap([BASE + 8])
        guest.run_block()
        report = guest.report()
    assert guest.pc is None
    assert report["ended"] == "hlt"
    assert report["trapped"] == [BASE + 5, BASE + 8]
    assert report["entries"] == [BASE, BASE + 8]
    assert report["exits"] == {"block end": 1, "pushfq": 1, "hlt": 1}


@pytest.mark.parametrize("address", [BASE - 1, BASE + 100, BASE + 1])
def test_a_trap_needs_an_instruction(address):
    """Outside the image, or where no instruction can be read, no trap is set."""
    with Translated("unicorn", b"\xf4\x06") as guest, pytest.raises(UsageError, match=hex(address)):
        guest.trap([address])


@pytest.mark.parametrize(
    ("code", "table", "words"),
    [
        (b"\xcc", {}, "Breakpoint at 0x100000"),
        (b"\xcc", {BASE: b"\x90"}, "cannot emulate 90 (nop)"),
        (b"\xcc", {BASE: b""}, "cannot emulate nothing"),
        (b"\x0f\x0b", {}, "Undefined at 0x100000"),
        (b"\xeb\xfe", {}, "it was stopped"),
        (b"\xfa\xeb\xfd", {}, "it was stopped: it had used up its exits"),
        (b"\x0f\x32", {}, "cannot emulate 0f 32 (rdmsr)"),
    ],
)
def test_a_guest_that_cannot_go_on_says_why(code, table, words):
    """Whatever ends a guest is a sentence, not an exception."""
    endless = code == b"\xeb\xfe"
    with Deprivileged("unicorn", code, table, exits=50, seconds=0.5 if endless else 60) as machine:
        assert words in machine.run()["ended"]


def test_the_flawed_patcher_keeps_numbers_and_ruins_data():
    """It is better than replacing bytes, and has the flaw that it was made for."""
    number = assemble("mov eax, 0x9d9c9d9c\nhlt", "x86_64")
    assert flawed.sweep(number) == {"code": number, "table": {}}
    data = assemble("mov eax, [0x100008]\nhlt\n.byte 0x9c", "x86_64")
    assert flawed.sweep(data)["table"] == {BASE + 8: b"\x9c"}
