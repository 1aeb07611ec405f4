"""A cell that ends, blocks or floods its kernel costs itself; what was right before and behind it keeps its marks."""

from __future__ import annotations

import pytest

from autograder.going_on import _writable
from autograder.judge import Court

from .tiny import ANSWERS, FULL, cell, graded, marks, own, shown, submission

ZERO = dict.fromkeys(FULL, 0.0)
ENDS = {
    "exits": "import os\nos._exit(0)",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "kills-its-group": "import os, signal\nos.kill(0, signal.SIGKILL)",
    "floods-in-one-line": "print('x' * 3_000_000)",
    "floods-with-displays": "from IPython.display import HTML, display\nfor _ in range(200):\n"
    "    display(HTML('x' * 10_000))",
    "swallows-interrupts": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n"
    "        pass",
    "ignores-interrupts": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass",
}
HARMLESS = {
    "leaves": "import sys\nsys.exit()",
    "asks": "input()",
    "raises": "1 / 0",
    "is-no-python": "def (",
    "loops": "while True:\n    pass",
    "lowers-the-guard": "import sys\nsys.setrecursionlimit(10**5)",
}


@pytest.fixture(scope="module")
def court():
    """One usher for all submissions."""
    with Court() as court:
        yield court


def patience(one):
    """Seconds for a cell: few for those that never end, many for the others, since hosts can be busy."""
    return 2 if own(one) in {"swallows-interrupts", "ignores-interrupts", "loops"} else 120


def with_cells(codes, answers=ANSWERS):
    """A submission with cells of the student's own between the instructor's first cell and the answers."""
    made = submission(answers)
    made.cells[2:2] = [cell(f"own-{name}", f"# {name}\n{code}") for name, code in codes.items()]
    return made


def run(made, court, **options):
    """Grade with few restarts forbidden and short patience for loops."""
    options = {"timeout_func": patience, "interrupt_timeout": 8, "max_restarts": 30} | options
    return graded(made, court, **options)


def test_no_cell_takes_the_others_with_it(court):
    """Exits, crashes, loops and floods in one notebook: each says what it did, all answers get their marks."""
    done = run(with_cells(ENDS), court, output_limit=10_000)
    assert marks(done) == FULL
    for name in ENDS:
        assert "KernelEnded" in shown(done, name), name
        assert len(shown(done, name)) < 40_000
    assert "output cut" in shown(done, "floods-in-one-line")


def test_cells_that_only_misbehave_need_no_other_kernel(court):
    """Errors, exits that Python catches, questions, loops that can be interrupted."""
    done = run(with_cells(HARMLESS), court, max_restarts=1)
    assert marks(done) == FULL
    assert "ZeroDivisionError" in shown(done, "raises")


def test_an_answer_that_ends_the_kernel_costs_its_test(court):
    """What ran before is run again for the tests behind it."""
    answers = ANSWERS | {"total": "import os\n\nos._exit(1)"}
    done = run(submission(answers, first="# helper\ndef helper():\n    return 1"), court)
    assert marks(done) == FULL | {"correct_total": 0.0}
    assert "ended the Python process that ran the notebook" in shown(done, "total")


def test_a_trap_for_the_next_cell_is_found(court):
    """A cell that ends the kernel after its reply is left out; no cell behind it is blamed."""
    trap = "import asyncio, os\nasyncio.get_running_loop().call_later(0, os._exit, 1)"
    done = run(with_cells({"trap": trap}), court)
    assert marks(done) == FULL
    assert "KernelEnded" in shown(done, "trap")
    assert all("KernelEnded" not in shown(done, name) for name in (*ANSWERS, "setup"))


def test_a_kernel_that_was_broken_is_no_later_cell_s_fault(court):
    """After this cell IPython answers no request any more, which shows at the next one."""
    made = with_cells({"breaks": "import sys\nsys.stdout = sys.stderr = None"})
    made.cells.insert(3, cell("own-next", "# next\nnumber = 1"))
    done = run(made, court, timeout_func=lambda one: 2 if own(one) == "next" else 120, interrupt_timeout=8)
    assert marks(done) == FULL
    assert "KernelEnded" in shown(done, "breaks")


def test_half_a_character_can_be_written():
    """What no file can hold is replaced before it gets into a notebook."""
    assert _writable({"text": ["a\ud800b", 1, None]}) == {"text": ["a?b", 1, None]}


def test_too_many_ends_are_enough(court):
    """When no kernel is left, cells say why they did not run; marks given before stay."""
    made = submission(ANSWERS)
    at = next(index for index, one in enumerate(made.cells) if one.id == "total")
    made.cells[at:at] = [cell("own-1", "# one\nimport os\nos._exit(1)"), cell("own-2", "# two\nimport os\nos._exit(1)")]
    done = run(made, court, max_restarts=1)
    assert marks(done) == ZERO | {"correct_double": 2.0}
    assert "could not run" in shown(done, "total")
    assert "could not be run" in shown(done, "correct_total")


def test_a_notebook_has_a_budget(court):
    """When it is used up, nothing is run any more, and every cell says so."""
    done = run(submission(ANSWERS), court, notebook_timeout=0)
    assert marks(done) == ZERO
    assert "used up" in shown(done, "double")
    assert "used up" in shown(done, "correct_double")


def test_a_notebook_s_outputs_have_a_limit_together(court):
    """Many cells with a little too much each do not add up to a huge notebook."""
    codes = {f"talks-{number}": "print('x' * 5_000)" for number in range(8)}
    done = run(with_cells(codes), court, notebook_output_limit=20_000)
    assert marks(done) == FULL
    assert sum(len(shown(done, name)) for name in codes) < 30_000
