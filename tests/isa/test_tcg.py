"""QEMU's log, compared with a trace of Unicorn and with capstone."""

from __future__ import annotations

import random

import pytest

from autograder.answers.emulation.counting import by_regular_expressions
from course import isa
from course.check.emulation import loops
from course.error import UsageError
from course.isa import tcg
from course.isa.userland import program_file

pytestmark = pytest.mark.qemu
MAKERS = [loops.nested, loops.two_exits, loops.asking]


@pytest.mark.parametrize("make", MAKERS)
def test_qemu_executes_the_blocks_that_a_trace_shows(make):
    """Translations and executions in the log are those of an instruction trace cut at branches, in both modes."""
    program = make(random.Random(7), 3)
    truth = loops.count(program)
    with program_file(program) as path:
        blocks = tcg.log(path, "in_asm,exec,nochain").splitlines()
        steps = tcg.log(path, "in_asm,exec,nochain", tcg.single_step_option()).splitlines()
    counts = [sum(line.startswith(word) for line in lines) for lines in (blocks, steps) for word in ("IN:", "Trace ")]
    assert counts == [truth.translated, truth.executed, truth.instructions, truth.executed_instructions]


def test_the_counting_loop_is_what_the_lesson_says():
    """A loop of n rounds: 3 blocks and n + 1 executions; 8 instructions and 3n + 5 executed."""
    counts = loops.count(tcg.counting(50))
    assert (counts.translated, counts.executed, counts.instructions, counts.executed_instructions) == (3, 51, 8, 155)


def test_the_guest_instructions_of_a_log_are_those_of_capstone():
    """Under IN: stands what capstone disassembles in the same blocks."""
    with program_file(tcg.counting(5)) as path:
        log = tcg.log(path, "in_asm,op,out_asm")
        first = isa.disassemble(path.read_bytes()[120:], "x86_64", 0x400078)
    got = by_regular_expressions(log)
    loop = 3  # the block of the loop is translated apart, for it is entered in the middle of the first
    assert got["guest"] == len(first) + loop
    assert got["host"] > got["guest"]


def test_an_unknown_item_is_told():
    """QEMU's own words are in the error."""
    with program_file(tcg.counting(1)) as path, pytest.raises(UsageError, match="wrote no log"):
        tcg.log(path, "no_such_item")


def test_a_program_without_an_end_is_stopped():
    """The time limit holds."""
    with program_file(tcg.program("again: jmp again")) as path, pytest.raises(UsageError, match="still running"):
        tcg.log(path, "in_asm", timeout_s=0.5)
