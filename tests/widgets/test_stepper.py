"""The stepper, without a front end: what it holds, and what it says in text."""

from __future__ import annotations

import json

import pytest

from course import isa
from course.widgets.stepper import Stepper

STORE = "lis r4, 0x1234\nori r4, r4, 0x5678\nstw r4, 0(r3)\nblr"


def test_moving_back_and_forth_replays_registers_and_memory():
    """Any position shows what the processor held then."""
    stepper = Stepper(STORE, "ppc", 0x30000, data=bytes(4))
    assert stepper.length == 4
    assert stepper.moment(0).registers["r3"] == 0x30000
    assert stepper.moment(1).registers["r4"] == 0x12340000
    after = stepper.moment(3)
    assert after.memory["data"] == bytes.fromhex("12345678")
    assert after.written == frozenset(range(0x30000, 0x30004))
    assert stepper.moment(2).memory["data"] == bytes(4)


def test_positions_stay_within_the_run():
    """Beyond the ends there is nothing."""
    stepper = Stepper(STORE, "ppc", 0x30000, position=99)
    assert stepper.position == 4
    stepper.position = -3
    assert stepper.position == 0


def test_what_the_browser_gets_is_json_without_large_numbers():
    """64-bit registers travel as text: JavaScript's numbers have 53 bits."""
    stepper = Stepper("lea rax, [rdi+rdi*2]\nret", "x86_64", 0xFFFFFFFFFFFFFFF0)
    run = json.loads(json.dumps(stepper.run))
    assert run["start"]["rdi"] == "fffffffffffffff0"
    assert run["steps"][0]["changes"] == {"rax": "ffffffffffffffd0"}
    assert run["roles"]["rdi"] == "argument 1"


def test_without_a_front_end_the_run_is_a_table():
    """The text says every step, what it changed, and how it ended."""
    text = Stepper("add r3, r3, r4\nblr", "ppc", 2, 3)._repr_mimebundle_()[0]["text/plain"]
    assert text.splitlines()[0] == "PowerPC 32: f(2, 3)"
    assert "add r3, r3, r4" in text
    assert "r3=0x5" in text
    assert text.splitlines()[-1].startswith("end:  returned. <ppc: returned 5")


def test_code_that_loops_is_shown_as_far_as_its_fuel_went():
    """A loop is cut off, long runs are shortened in text."""
    stepper = Stepper("l: jmp l", "x86", fuel=50)
    assert stepper.length == 50
    assert "… 26 more steps" in str(stepper)
    assert "ran out of fuel" in str(stepper)


def test_a_line_that_cannot_be_assembled_is_named():
    """The assembler's message reaches the student."""
    with pytest.raises(isa.AssemblyError, match="line 1"):
        Stepper("addx r3, r3, r4", "ppc")
