"""The judge's process: marks that nbgrader reads back, an end to everything, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from nbformat import from_dict
from nbgrader.utils import determine_grade

from autograder import session
from autograder.judge import Court, JudgeError

from .tiny import cell

PARTIAL = """
from course.check import Exercise

def steps(name, held, total, hidden=False, partial=True):
    exercise = Exercise(name, hidden=hidden, partial=partial)
    for number in range(total):
        exercise.step(f"step {number}")(lambda trial, number=number: trial.expect(number < held, "no", "no"))
    return exercise

check, hidden = steps("a", %d, 4), steps("a", %d, 2, True)
check(None)
hidden(None)
"""


@pytest.fixture(scope="module")
def court():
    """One usher for all tests."""
    with Court() as court:
        yield court


@pytest.fixture
def judge(court, tmp_path):
    """A judge for one submission."""
    with court.judge(tmp_path, modules=["json", "no.such.module"]) as judge:
        yield judge


def asked(source, points=4.0, **more):
    """A test cell that asks no answer."""
    return session.Test(name="t", source=source, points=points, answers="/nowhere", **more)


@pytest.mark.parametrize(
    ("source", "marks"),
    [
        ("", 4),
        ("assert 1 == 1", 4),
        ("assert 1 == 2", 0),
        ("1 / 0", 0),
        ("raise SystemExit", 0),
        ("this is no Python", 0),
        ("'a text'", 4),
        ("None", 4),
        ("True", 4),
        ("2.5", 2.5),
        ("0", 0),
        ("4", 4),
        ("1000", 4),
        ("-5", 0),
        ("float('nan')", 0),
        ("-float('inf')", 0),
        ("10 ** 400", 4),
        ("import sys; print('a warning', file=sys.stderr)", 4),
        ("print('3.0')", 4),
        ("import asyncio\nawait asyncio.sleep(0)\n3", 3),
        (PARTIAL % (4, 2), 4),
        (PARTIAL % (4, 1), 3),
        (PARTIAL % (2, 2), 1),
        (PARTIAL % (0, 0), 0),
        (PARTIAL.replace("partial=True", "partial=False") % (4, 1), 0),
    ],
)
def test_marks_are_what_nbgrader_reads(judge, source, marks):
    """All, nothing, or a part that a check or the test's last expression says; never more than all."""
    result = judge.run(asked(source), 60)
    made = cell("t", source, grade=True, locked=True, points=4)
    made.outputs = [from_dict(output) for output in result.outputs]
    assert determine_grade(made)[0] == result.marks == marks


def test_what_a_test_shows_is_kept_in_order(judge):
    """Prints, displays, images as notebooks keep them; no more than a person can read."""
    source = (
        "from IPython.display import Image, display\nprint('one')\nprint('two')\ndisplay(5)\n"
        "display(Image(b'\\x89PNG', format='png'))\nprint('x' * 10**6)\nfor _ in range(500): display(1)"
    )
    outputs = judge.run(asked(source), 60).outputs
    assert outputs[0]["text"] == "one\ntwo\n"
    assert outputs[1]["data"]["text/plain"] == "5"
    assert outputs[2]["data"]["image/png"].strip() == "iVBORw=="
    assert len(outputs[3]["text"]) < 200_000
    assert len(outputs) <= 100


def test_names_last_from_test_to_test(judge):
    """A preamble binds what is missing, and leaves alone what is there."""
    judge.run(asked("seen = []", preamble=[("seen", "seen = [1]")]), 60)
    assert judge.run(asked("len(seen)", preamble=[("seen", "seen = [1]")]), 60).marks == 0
    assert judge.run(asked("len(other)", preamble=[("other", "other = [1, 2]")]), 60).marks == 2


@pytest.mark.parametrize("source", ["while True: pass", "import os; os._exit(0)", "import os; os.kill(0, 9)"])
def test_a_test_that_does_not_end_well_ends_its_judge(court, tmp_path, source):
    """It is told apart from a failed test; the next judge is fresh."""
    with court.judge(tmp_path) as judge:
        with pytest.raises(JudgeError):
            judge.run(asked(source), 1)
        assert not judge.alive
    with court.judge(tmp_path) as judge:
        assert judge.run(asked("2"), 60).marks == 2


def test_what_a_judge_started_ends_with_it(court, tmp_path):
    """Processes in its group, and files where it is told to put them."""
    source = "import subprocess, tempfile\nprint(subprocess.Popen(['sleep', '1000']).pid)\nprint(tempfile.mkdtemp())"
    with court.judge(tmp_path) as judge:
        said = judge.run(asked(source), 60).outputs[0]["text"].split()
        assert psutil.pid_exists(int(said[0]))
        assert said[1].startswith(str(tmp_path))
    gone(int(said[0]))


def test_nothing_outlives_a_killed_grader(tmp_path):
    """The usher and its judges notice when their grader is gone, whatever killed it."""
    code = (
        "import pathlib, time\nfrom autograder.judge import Court\nfrom autograder.session import Test\n"
        f"judge = Court().judge(pathlib.Path({str(tmp_path)!r}))\n"
        "said = judge.run(Test('t', 'import os; print(os.getpid(), os.getppid())', 1.0, '/nowhere'), 60)\n"
        "print(said.outputs[0]['text'], flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as grader:
        pids = [int(pid) for pid in grader.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(grader.pid, signal.SIGKILL)
    for pid in pids:
        gone(pid)


def gone(pid):
    """Wait until a process has ended, or is only waiting to be collected."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")
