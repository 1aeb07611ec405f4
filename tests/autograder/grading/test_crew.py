"""Workers: what one had in hand is known when it is killed; nothing is lost, and none outlives its crew."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from autograder.grading import crew
from autograder.grading.course import GradingError, Submission
from autograder.grading.execution import Executed

pytestmark = pytest.mark.pipeline


@pytest.fixture(params=["forked", "spawned"])
def works(request, monkeypatch, tmp_path):
    """Have workers do other work than executing: return what makes a crew for some students, and their names."""
    forked = request.param == "forked"
    if forked and not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    monkeypatch.setattr(crew, "_may_fork", lambda: forked)
    monkeypatch.setattr(crew, "warm", lambda course, lessons: None)
    monkeypatch.setattr(crew, "_work", _deadly)

    class Course:
        root = tmp_path

    def make(students, size=2):
        return crew.Crew(Course(), [Submission("lesson", name) for name in students], size)

    return make


def _deadly(root, orders, parent, forked, anew):
    """Do what the students' names say: end this process always, or once, or nothing."""
    while (one := orders.recv()) is not None:
        mark = Path(root, one.student)
        if one.student.startswith("always") or (one.student.startswith("once") and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        orders.send(Executed({}, (one.student,)))


def test_killed_worker_costs_only_what_it_had(works):
    """Who kills his worker is tried once more; the one waiting behind him is none the worse; all others get through."""
    names = [f"h{number}" for number in range(12)]
    students = [*names[:3], "once-a", *names[3:6], "always-b", *names[6:]]
    done = list(works(students))
    assert sorted(one.student for one, _ in done) == sorted(students)
    said = {one.student: result for one, result in done}
    assert isinstance(said.pop("always-b"), GradingError)
    assert all(result.remarks == (name,) for name, result in said.items())


def test_nobody_to_work_for(works):
    """No submissions, no workers."""
    assert list(works([])) == []


def test_closed_crew_leaves_no_process(works):
    """A crew that is closed in the middle has ended its workers."""
    before = set(psutil.Process().children())
    made = works([f"h{number}" for number in range(9)])
    next(iter(made))
    made.close()
    left = set(psutil.Process().children()) - before
    assert not [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]
