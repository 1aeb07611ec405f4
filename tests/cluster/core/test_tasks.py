"""Tasks: their logs, how they end, and what is left of them."""

from __future__ import annotations

import threading

import pytest

from course.cluster.tasks import Tasks, read_log
from course.cluster.upid import Upid
from course.error import ClusterError, ParameterError


@pytest.fixture
def tasks(tmp_path):
    """The tasks of a node that does not run."""
    return Tasks("michael", tmp_path)


def words(tasks, upid):
    """Return a task's log."""
    return [line["t"] for line in read_log(tasks.known(upid)[1])[0]]


def fail(task):
    """Fail with two lines."""
    task.log("trying")
    raise ClusterError("it broke\nbadly")


def test_a_task_says_how_it_ended(tasks):
    """OK, a warning counted, an error on one line."""
    good = tasks.start("qmstart", "169", "root@pam", lambda task: task.log("one\ntwo"))
    warned = tasks.start("qmstart", "169", "root@pam", lambda task: task.warn("careful"))
    bad = tasks.start("qmstart", "169", "alice@pve!ci", fail)
    surprised = tasks.start("qmstart", "169", "root@pam", lambda task: dict[str, str]()["key"])
    for upid in (good, warned, bad, surprised):
        tasks.wait(upid)
    assert words(tasks, good) == ["one", "two", "TASK OK"]
    assert words(tasks, warned) == ["WARN: careful", "TASK WARNINGS: 1"]
    assert words(tasks, bad) == ["trying", "TASK ERROR: it broke badly"]
    ends = [tasks.status(upid)["exitstatus"] for upid in (good, warned, bad, surprised)]
    assert ends == ["OK", "WARNINGS: 1", "it broke badly", "'key'"]
    assert {"user": "alice@pve", "tokenid": "ci"}.items() <= tasks.status(bad).items()
    assert {str(entry.upid) for entry in tasks.archive()} == {good, warned, bad, surprised}


def test_a_running_task_is_on_the_disk_and_can_be_stopped(tasks):
    """It is listed as running; who waits in it hears of the stop."""
    inside = threading.Event()

    def work(task):
        inside.set()
        task.wait(600)

    upid = tasks.start("vzdump", "", "root@pam", work)
    inside.wait(60)
    assert tasks.status(upid)["status"] == "running"
    assert upid in (tasks.folder / "active").read_text()
    tasks.stop(upid)
    tasks.wait(upid)
    assert tasks.status(upid)["exitstatus"] == "received interrupt"


def test_a_node_that_died_leaves_tasks_with_an_unexpected_status(tmp_path):
    """When it is back it says so, once; what had ended stays as it was."""
    before = Tasks("michael", tmp_path)
    done = before.start("qmstop", "169", "root@pam", lambda task: None)
    before.wait(done)
    release = threading.Event()
    running = before.start("qmstart", "169", "root@pam", lambda task: release.wait(60))
    after = Tasks("michael", tmp_path)  # as if the first had ended here
    assert [str(entry.upid) for entry in after.recover()] == [running]
    assert after.status(running)["exitstatus"] == "unexpected status"
    assert after.status(done)["exitstatus"] == "OK"
    assert after.active() == []
    assert Tasks("michael", tmp_path).recover() == []
    release.set()
    before.wait(running)


def test_a_task_whose_log_says_how_it_ended_has_ended_so(tmp_path):
    """The node may have died between the log's last line and the list."""
    tasks = Tasks("michael", tmp_path)
    upid = Upid("michael", 1, 1, 1, "qmstart", "169", "root@pam")
    tasks.path(upid).parent.mkdir(parents=True, exist_ok=True)
    tasks.path(upid).write_text("TASK ERROR: no\n")
    (tmp_path / "active").write_text(f"{upid} 0\n")
    tasks.recover()
    assert tasks.status(str(upid))["exitstatus"] == "no"


@pytest.mark.parametrize(
    ("upid", "message"),
    [
        ("UPID:michael:00000001:00000001:00000001:x::root@pam:", "no such task"),
        ("UPID:trevor:00000001:00000001:00000001:x::root@pam:", "no such task"),
        ("../../x", "unable to parse worker upid '../../x'"),
    ],
)
def test_an_unknown_task_is_refused(tasks, upid, message):
    """Of another node, of no node, or no UPID at all."""
    with pytest.raises(ParameterError) as refused:
        tasks.status(upid)
    assert refused.value.errors == {"upid": message}


def test_a_log_is_read_in_pieces(tmp_path):
    """From any line, so many; an empty one says that it is."""
    path = tmp_path / "log"
    path.write_text("".join(f"{n}\n" for n in range(1, 101)))
    lines, total = read_log(path, 10, 3)
    assert (lines, total) == ([{"n": 11, "t": "11"}, {"n": 12, "t": "12"}, {"n": 13, "t": "13"}], 100)
    assert len(read_log(path)[0]) == 50
    assert len(read_log(path, 0, 0)[0]) == 100
    path.write_text("")
    assert read_log(path) == ([{"n": 1, "t": "no content"}], 1)
