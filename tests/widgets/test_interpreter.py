"""The stepper of a student's interpreter, without a front end."""

from __future__ import annotations

import json
import sys

import pytest

from course import isa
from course.error import UsageError
from course.isa import rv32
from course.widgets.interpreter import Interpreter

PROGRAM = """
    addi x5, x0, 3
    lui x6, 1
loop:
    sw x5, 0x100(x6)
    addi x5, x5, -1
    bne x5, x0, loop
    ebreak
"""


def right(state):
    """Do what Unicorn does: the right answer."""
    return rv32.step(state)


def unsigned(state):
    """Make a common mistake: the immediate's sign is lost."""
    after = rv32.step(state)
    word = rv32.word_at(state["memory"], state["pc"])
    if word & 0x7F == 0x13 and word >> 31:
        after["regs"][word >> 7 & 31] = (state["regs"][word >> 15 & 31] + (word >> 20)) & rv32.MASK
    return after


def test_a_run_is_recorded_step_by_step():
    """Registers, memory and the jump back are told, and the state given stays as it is."""
    state = rv32.state(PROGRAM)
    shown = Interpreter(right, state)
    assert (state["pc"], state["regs"][5], state["halted"]) == (0, 0, False)
    assert shown.length == 12
    assert shown.record.end == "halted at 0x14 after 12 steps"
    assert dict(shown.record.steps[0].changes) == {"pc": 4, "x5": 3}
    assert shown.record.steps[2].writes == ((0x1100, b"\x03"),)
    assert str(shown.record.steps[4]).endswith("pc=0x8")
    assert "pc=" not in str(shown.record.steps[3])


def test_a_right_interpreter_agrees_with_unicorn():
    """Every step is compared, the last one too."""
    shown = Interpreter(right, PROGRAM, compare=True)
    assert shown.record.difference is None
    assert shown.record.verdict == "Nothing differs from Unicorn in 12 of 12 steps."


def test_the_first_difference_is_marked():
    """A lost sign shows at the first negative number, with both values."""
    shown = Interpreter(unsigned, PROGRAM, compare=True, fuel=20)
    assert shown.record.difference.step == 4
    assert shown.record.difference.rows == (("x5", "0x1002", "0x2"),)
    assert "First difference from Unicorn at step 4, addi x5, x5, -1: x5: yours 0x1002" in str(shown)
    assert [step["note"] for step in shown.run["steps"][2:5]] == ["", "differs from here on", ""]
    assert shown.run["end"] == "out of fuel after 20 steps"


def test_differences_in_memory_and_in_halting_are_seen():
    """Not only registers count."""

    def forgets_to_store(state):
        return {**rv32.step(state), "memory": state["memory"]}

    def never_halts(state):
        return {**rv32.step(state), "halted": False}

    stores = Interpreter(forgets_to_store, PROGRAM, compare=True).record.difference
    assert stores.rows == (("memory 0x1100", "00", "03"),)
    halts = Interpreter(never_halts, PROGRAM, compare=True).record
    assert halts.difference.rows == (("halted", "False", "True"),)
    assert halts.end == "nothing changes any more: pc stays at 0x14"


def test_another_function_may_judge():
    """A lesson may compare two interpreters, such as the student's first and second."""
    shown = Interpreter(unsigned, PROGRAM, compare=right)
    assert shown.record.verdict.startswith("First difference from right at step 4")


def test_what_unicorn_cannot_execute_ends_the_comparison():
    """A step that goes on where no processor does differs there."""

    def skips(state):
        return {**state, "pc": state["pc"] + 4}

    record = Interpreter(skips, b"\xff\xff\xff\xff" * 2, compare=True, fuel=2).record
    assert record.difference.rows[0][2].startswith("cannot execute it (at 0x0: ")


def raises(state):
    """Do one step, then fail."""
    if state["pc"]:
        table = {}
        return table[state["pc"]]
    return rv32.step(state)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (raises, "it raised KeyError: 4, in line "),
        (lambda state: None, "it returned None; expected a state"),
        (lambda state: {"pc": 0}, "its state has no regs and no memory; it has pc"),
        (lambda state: {**state, "regs": [0] * 31}, "its regs are [0, 0"),
        (lambda state: {**state, "regs": [0.5] * 32}, "its regs[0] is 0.5; expected an integer"),
        (lambda state: {**state, "memory": None}, "its memory is None; expected a bytearray"),
        (lambda state: 1 // 0, "it raised ZeroDivisionError: "),
        (lambda state: (_ for _ in ()).throw(NotImplementedError), "it is not written yet"),
        (lambda state: sys.exit(), "it raised SystemExit"),
    ],
)
def test_a_step_that_goes_wrong_is_told(step, said):
    """The run is shown up to there, and the message says which call, what it did and where."""
    shown = Interpreter(step, PROGRAM, compare=True)
    last = shown.record.steps[-1]
    assert last.note.startswith(said)
    assert shown.record.end == f"step {shown.length} went wrong"
    assert last.note.splitlines()[0][:30] in str(shown)


def test_the_line_that_raised_is_shown():
    """As in a traceback, but only the student's own line."""
    note = Interpreter(raises, PROGRAM).record.steps[-1].note
    assert note.endswith(' of raises: return table[state["pc"]]')


def test_a_step_may_change_the_state_in_place():
    """What is recorded is what held then, not what became of it."""

    def in_place(state):
        after = rv32.step(state)
        state.update(after)
        return state

    assert Interpreter(in_place, PROGRAM).record.steps == Interpreter(right, PROGRAM).record.steps


def test_other_states_are_read_by_an_adapter():
    """A student who keeps the state elsewhere says how to read it."""

    def step(pair):
        return ("machine", rv32.step(pair[1]))

    shown = Interpreter(step, ("machine", rv32.state(PROGRAM)), read=lambda pair: pair[1], compare=True)
    assert shown.record.verdict.endswith("12 of 12 steps.")


def test_no_state_to_begin_with_is_refused():
    """The lesson's author, or a student who experiments, sees what is missing."""
    with pytest.raises(UsageError, match="no state to begin with: got 7; expected a state"):
        Interpreter(right, 7)
    with pytest.raises(isa.AssemblyError, match="line 1"):
        Interpreter(right, "addx x1, x1, x1")


def test_a_halted_machine_has_no_steps():
    """Nothing is called then."""
    shown = Interpreter(right, {**rv32.state("ebreak"), "halted": True})
    assert (shown.length, shown.record.end) == (0, "halted at 0x0 after 0 steps")


def test_a_pc_outside_the_memory_is_shown():
    """A program that jumps away is not an error of the view."""
    shown = Interpreter(lambda state: {**state, "pc": state["pc"] + 0x4000}, PROGRAM, fuel=3)
    assert shown.record.steps[1].text == "nothing: the memory has ended"


def test_what_the_browser_gets_is_what_the_stepper_shows():
    """The same front end, with notes and a verdict besides; memory only where something is written."""
    run = json.loads(json.dumps(Interpreter(unsigned, PROGRAM, compare=True).run))
    assert run["memory"][0] == {"name": "0x1100 to 0x110f", "base": 0x1100, "bytes": "00" * 16}
    assert run["steps"][0]["changes"] == {"pc": "4", "x5": "3"}
    assert run["difference"] == {"step": 4, "rows": [["x5", "0x1002", "0x2"]]}


def test_watched_memory_is_shown_whether_written_or_not():
    """A lesson may show a buffer that is only read."""
    shown = Interpreter(right, PROGRAM, watch=[("code", 0, 8)])
    assert [(one["name"], one["bytes"]) for one in shown.run["memory"]] == [("code", "9302300037130000")]


def test_without_a_front_end_the_run_is_a_table():
    """As text, and as HTML that is escaped."""
    bundle, _ = Interpreter(raises, PROGRAM, title="Mine & yours")._repr_mimebundle_()
    text = bundle["text/plain"].splitlines()
    assert text[0] == "Mine & yours"
    assert "addi x5, x0, 3" in text[1]
    assert text[-1] == "end:  step 2 went wrong"
    assert "<caption>Mine &amp; yours</caption>" in bundle["text/html"]
    assert "✗ it raised KeyError: 4" in bundle["text/html"]


def test_long_runs_are_shortened_in_text():
    """400 steps are kept, two dozen are written."""
    shown = Interpreter(lambda state: {**state, "pc": state["pc"] ^ 4}, PROGRAM, fuel=5000)
    assert shown.length == 400
    assert "… 376 more steps" in str(shown)
    assert "376 more steps are not shown" in shown.static()["text/html"]
