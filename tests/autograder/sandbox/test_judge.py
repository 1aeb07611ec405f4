"""Trusted processes beside a student's: the same pids, nothing to steal."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autograder.sandbox import Box, Judge, JudgeError, judge_in

LEVELS = ["namespaces", "userns", "bubblewrap", "landlock"]

SLEEPER = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])"


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("level", LEVELS)
def test_a_pid_means_the_same_on_both_sides(enter, level):
    """The judge finds the student's child under the number that the student says, and reads of it."""
    student = enter(level)
    student.run(SLEEPER)
    with judge_in(student.box, _name, student.value("child.pid")) as judge:
        assert judge.result(60) == "sleep"
        assert judge.shares_pids


@pytest.mark.parametrize("level", ["namespaces", "userns", "bubblewrap"])
def test_a_child_of_the_judge_is_visible_inside(enter, level):
    """The other direction: what a check starts, an answer can find (where it has the same user, look at)."""
    student = enter(level)
    with judge_in(student.box, os.getpid) as judge:
        inside = judge.result(60)
    assert 1 < inside < 1000


@contextlib.contextmanager
def _waiting(box: Box) -> Iterator[tuple[Judge, int, Callable[[], object]]]:
    """Yield a judge that waits, its pid inside the box, and what lets it go on."""
    ready, go = os.pipe(), os.pipe()

    def wait() -> str:
        os.write(ready[1], str(os.getpid()).encode())
        os.read(go[0], 1)
        return "lived"

    try:
        with judge_in(box, wait) as judge:
            yield judge, int(os.read(ready[0], 20)), lambda: os.write(go[1], b"x")
    finally:
        for fd in (*ready, *go):
            os.close(fd)


READ = """
import ctypes, os
for name in ('mem', 'environ', 'maps', 'fd', 'root'):
    try:
        os.listdir(f'/proc/{pid}/{name}/') if name in ('fd', 'root') else open(f'/proc/{pid}/{name}').read(1)
        print('read', name)
    except OSError:
        pass
print(ctypes.CDLL(None).ptrace(16, pid, 0, 0))
"""


@pytest.mark.parametrize("level", ["namespaces", "userns", "bubblewrap"])
def test_the_judge_cannot_be_read(enter, level):
    """Its memory, files and environment stay closed, also where it is the student's own user to the kernel."""
    student = enter(level)
    with _waiting(student.box) as (judge, pid, go_on):
        assert student.run(f"pid = {pid}\n{READ}") == "-1\n"
        go_on()
        assert judge.result(60) == "lived"


def test_the_judge_of_a_root_grader_cannot_be_signalled(enter):
    """The student is another user; elsewhere `guarded` says that it is not so."""
    student = enter()
    with _waiting(student.box) as (judge, pid, go_on):
        assert judge.guarded == (os.getuid() == 0)
        if judge.guarded:
            assert student.run(f"import os; os.kill({pid}, 9)").startswith("PermissionError")
        go_on()
        assert judge.result(60) == "lived"


def test_results_and_exceptions_come_back(enter):
    """The judge returns what its callable does, or raises what it raises."""
    box = enter().box
    with judge_in(box, divmod, 7, 2) as judge:
        assert judge.result(60) == (3, 1)
    with judge_in(box, divmod, 7, 0) as judge, pytest.raises(ZeroDivisionError):
        judge.result(60)
    with judge_in(box, lambda: lambda: 0) as judge, pytest.raises(JudgeError, match="cannot be handed back"):
        judge.result(60)


def test_a_judge_ends_when_its_time_is_over_or_its_box_ends(enter):
    """No judge is waited for without end."""
    box = enter().box
    with judge_in(box, signal.pause) as judge, pytest.raises(JudgeError, match="did not end within"):
        judge.result(0.2)
    with judge_in(box, signal.pause) as judge:
        box.kill()
        with pytest.raises(JudgeError, match=r"ended without a result|could not enter"):
            judge.result(60)
    with pytest.raises(JudgeError, match="cannot enter"):
        judge_in(box, os.getpid)
