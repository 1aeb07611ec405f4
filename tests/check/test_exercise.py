"""The check framework, seen from an answer's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from course.check import CheckFailed, Exercise, State, Trial

square = Exercise("square", deadline_s=1.0)


@square.step("a number is multiplied by itself")
def _multiplied(trial: Trial) -> None:
    number = trial.rng.randrange(2, 100)
    trial.equal(number * number, trial.call(number), "doubled", f"The square of {number} was asked for.")


@square.step("zero is a number too")
def _zero(trial: Trial) -> None:
    trial.equal(0, trial.call(0), "zero")


def _crash(n: int) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _loop(n: int) -> None:
    while True:
        pass


def _swallow(n: int) -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def _not_yet(n: int) -> int:
    raise NotImplementedError


async def _async(n: int) -> int:
    return n * n


class _Bribe:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("answer", [lambda n: n * n, lambda n: n**2, _async, lambda n: True * n * n])
def test_right_answers_are_accepted(answer):
    """However an answer computes the value, it is accepted."""
    verdict = square.examine(answer, seed=3)
    assert (verdict.state, verdict.passed, verdict.total) == (State.CORRECT, 2, 2)
    assert verdict.headline == "✔ correct · square · visible checks 2 of 2; hidden checks run at grading"


@pytest.mark.parametrize(
    ("answer", "state", "misconception", "says"),
    [
        (_not_yet, State.UNANSWERED, "unanswered", "NotImplementedError"),
        (lambda n: 2 * n + 1, State.WRONG, "doubled", "expected:"),
        (lambda n: print(n * n), State.WRONG, "printed", "return hands it to the caller"),
        (lambda n: None, State.WRONG, "forgot-return", "forget return"),
        (lambda n: 1 / 0, State.WRONG, "raised", "ZeroDivisionError: division by zero"),
        (_loop, State.WRONG, "endless", "after 1 s"),
        (_swallow, State.WRONG, "endless", "after 1 s"),
        (_crash, State.WRONG, "died", "SIGSEGV"),
        (lambda n: os._exit(0), State.WRONG, "died", "exit code 0"),
        (lambda n: sys.exit(), State.WRONG, "raised", "SystemExit"),
        (lambda n: _Bribe(), State.WRONG, "not-plain", "_Bribe"),
        (lambda n: b"x" * (33 << 20), State.WRONG, "not-plain", "33 MiB"),
    ],
)
def test_wrong_answers_get_their_own_message(answer, state, misconception, says):
    """Each way of being wrong is told apart, and none harms the process that checks."""
    verdict = square.examine(answer)
    assert (verdict.state, verdict.misconception) == (state, misconception)
    assert says in str(verdict)


def test_a_failed_check_raises_a_verdict_without_a_traceback():
    """A notebook shows the message alone."""
    with pytest.raises(CheckFailed) as caught:
        square(lambda n: n + 1)
    lines = caught.value._render_traceback_()
    assert "✘ wrong · square · visible checks 0 of 2" in lines[0]
    assert not any("Traceback" in line or "File " in line for line in lines)


def test_the_same_seed_makes_the_same_inputs():
    """A verdict can be reproduced from its seed."""
    assert square.examine(lambda n: n + 1, seed=5) == square.examine(lambda n: n + 1, seed=5)


def test_no_child_is_left_behind():
    """After a call that had to be killed, no process remains."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    square.examine(_loop)
    assert set(me.children(recursive=True)) <= before


def test_an_answer_dies_with_the_process_that_checks_it():
    """Killing the checking process, as a notebook's kernel may be, leaves no answer running."""
    program = (
        "import os, time; from course.check import call; call(lambda: (print_pid(), time.sleep(60)), deadline_s=60)"
    )
    program = f"def print_pid():\n    os.write(1, f'{{os.getpid()}}\\n'.encode())\n{program}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as checker:
        answer = psutil.Process(int(checker.stdout.readline()))
        checker.kill()
        psutil.wait_procs([answer], timeout=10)
        assert not answer.is_running() or answer.status() == psutil.STATUS_ZOMBIE
