"""The small RISC-V machine: states as plain data, Unicorn as its judge, devices, ladders and faults."""

from __future__ import annotations

import random

import pytest

from autograder.answers.emulation.devices import one_loop
from autograder.answers.emulation.stepping import execute
from autograder.answers.emulation.translating import empties_its_cache
from course.error import CourseError, UsageError
from course.isa import bus, ladder, rv32, sabotage

SUM = "li t0, 100\nagain: add a0, a0, t0\naddi t0, t0, -1\nbnez t0, again\nebreak"


def test_a_state_is_plain_data_with_the_program_in_its_memory():
    """pc, 32 registers, memory, halted; registers given by number."""
    machine = rv32.state("addi x5, x6, 1", at=8, memory_bytes=64, regs={6: -1})
    assert (machine["pc"], len(machine["regs"]), machine["regs"][6], machine["halted"]) == (8, 32, rv32.MASK, False)
    assert bytes(machine["memory"]) == bytes(8) + (0x00130293).to_bytes(4, "little") + bytes(52)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"program": bytes(100), "memory_bytes": 64}, "100 bytes at 0x0 do not fit"),
        ({"program": "nop", "at": -4}, "do not fit"),
        ({"program": "nop", "regs": {0: 1}}, "register 0 cannot be set"),
        ({"program": "nop", "regs": {32: 1}}, "register 32 cannot be set"),
    ],
)
def test_a_state_that_cannot_be_meant_is_refused(arguments, says):
    """Programs that do not fit and registers that do not exist are named."""
    with pytest.raises(UsageError, match=says):
        rv32.state(**arguments)


def test_a_program_runs_to_ebreak_and_is_traced():
    """The sum, its 302 instructions, and the state at the end; the first state stays as it was."""
    machine = rv32.state(SUM)
    done, after = rv32.trace(machine)
    assert (after["regs"][10], after["pc"], after["halted"], len(done)) == (5050, 16, True, 302)
    assert rv32.run(machine) == after
    assert machine["regs"] == [0] * 32


def test_one_step_and_a_halted_machine():
    """A step changes what the instruction says; ebreak halts where it is."""
    after = rv32.step(rv32.state("sub x7, x0, x6", regs={6: 5}))
    assert (after["regs"][7], after["pc"], after["halted"]) == (0xFFFFFFFB, 4, False)
    halted = rv32.step(rv32.state("ebreak"))
    assert (halted["pc"], halted["halted"]) == (0, True)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"\0\0\0\0", "at 0x0: no instruction"),
        ("lui x5, 0x80000\nlw x5, 0(x5)", "at 0x4: lw x5, 0"),
        ("again: j again", "still running after 500 instructions"),
    ],
)
def test_a_program_that_goes_astray_says_where(source, says):
    """No instruction, no memory, no end."""
    with pytest.raises(rv32.AstrayError, match=says):
        rv32.run(rv32.state(source), fuel=500)


def test_a_processor_asks_its_device():
    """Loads from and stores to the device's page reach a function, with the address."""
    seen = []

    def device(address, value):
        seen.append((address, value))
        return 77

    processor = rv32.Processor(device=device, device_at=0x100000)
    processor.load(rv32.state("lui x5, 0x100\nlw x6, 4(x5)\nsw x6, 8(x5)"))
    for _ in range(3):
        processor.step()
    assert processor.read()["regs"][6] == 77
    assert seen == [(0x100004, None), (0x100008, 77)]


def test_the_wire_brings_a_program_and_a_port_together():
    """The greeting comes out, what is typed comes back as capitals, and every event is kept."""
    done = bus.drive(execute, bus.GREETING, one_loop, b"abc\n")
    assert done.sent == b"Hello from a computer that does not exist. ABC"
    assert done.halted
    assert sum(event[0] == "receive" for event in done.events) == 4


def test_the_wire_runs_on_fuel_and_wants_a_reply_per_read():
    """A port that is never ready costs fuel; one that does not answer is an error."""
    never = bus.drive(execute, bus.GREETING, lambda events: one_loop([e for e in events if e[0] == "nothing"] or []) | {
        "replies": [0] * sum(e[0] == "read" for e in events)}, fuel=200)  # fmt: skip
    assert (never.halted, never.steps, never.sent) == (False, 200, b"")
    with pytest.raises(UsageError, match="gave 0 replies"):
        bus.drive(execute, bus.GREETING, lambda events: {"replies": []})


def test_every_rung_of_the_ladder_gives_its_runs():
    """Rounds and seconds for each engine; a student's wrong sum is an error."""
    samples = ladder.measure(execute, empties_its_cache, repeats=2, scale=0.01)
    assert {ladder.UNICORN, ladder.TRANSLATOR, ladder.INTERPRETER} <= set(samples)
    assert all(len(runs) == 2 and all(n > 0 and s > 0 for n, s in runs) for runs in samples.values())
    with pytest.raises(CourseError, match="a0 is 0; expected"):
        ladder.measure(run=lambda machine, budget: machine, repeats=1, scale=0.001)


@pytest.mark.parametrize("fault", sabotage.FAULTS)
def test_a_broken_emulator_is_right_for_other_registers(fault):
    """The fault shows for its register, and every program without that register ends as on Unicorn."""
    from autograder.answers.emulation.devices import sources
    from course import isa

    machine = rv32.state(isa.assemble(sources("x9")[fault], "riscv32", 0))
    right = rv32.run(machine)
    assert sabotage.run(machine, fault, 10)["regs"] == right["regs"]
    assert sabotage.run(machine, fault, 9)["regs"] != right["regs"]


def test_the_answers_interpreter_agrees_with_unicorn_on_whole_programs():
    """Programs of the checks give the same end on two emulators that share no code."""
    from course.check.emulation import programs

    for make in (programs.counting, programs.nested, programs.calls, programs.rewriting, programs.generating):
        machine = make(random.Random(5))
        truth = rv32.run(machine)
        now = machine
        while not now["halted"]:
            now = execute(now)
        assert now["regs"] == truth["regs"], make.__name__
        assert bytes(now["memory"]) == bytes(truth["memory"])
