"""A judge steps into the whole box of a student: its processes, files and network, as the student, without rights."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from autograder import session
from autograder.judge import Court, JudgeError
from tests.autograder.sandbox.student import await_until

LEVELS = ["namespaces", "userns", "bubblewrap"]
LOOK = """
import json, os, pathlib
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
def reads(path):
    try: return pathlib.Path(path).read_text()
    except OSError as error: return type(error).__name__
def writes(path):
    try: return bool(pathlib.Path(path).write_text("x"))
    except OSError as error: return type(error).__name__
spaces = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in "user mnt net ipc uts pid cgroup".split()}
print(json.dumps([spaces, os.getuid(), status["CapPrm"], status["CapEff"], status["NoNewPrivs"], status["Seccomp"],
                  reads("@secret"), writes("@outside"), writes("@inside"), sorted(os.environ)]))
"""


@pytest.fixture(scope="module")
def court():
    """One usher for all tests."""
    with Court() as court:
        yield court


def look(judge, source):
    """Run a test cell that prints JSON."""
    result = judge.run(session.Test(name="t", source=source, points=1.0, answers="/nowhere"), 120)
    assert result.marks == 1, result.outputs
    return json.loads(result.outputs[0]["text"])


@pytest.mark.parametrize("level", LEVELS)
def test_a_judge_is_where_its_student_is(enter, court, level, tmp_path, monkeypatch):
    """The same namespaces, user and files; nothing of the host, neither a file nor a variable."""
    monkeypatch.setenv("COURSE_SECRET", "a secret")
    secret, outside = tmp_path / "secret", tmp_path / "outside"
    secret.write_text("a secret")
    student = enter(level)
    source = LOOK.replace("@secret", str(secret)).replace("@outside", str(outside))
    source = source.replace("@inside", str(student.box.run_dir / "inside"))
    with court.judge(student.box.run_dir, box=student.box) as judge:
        spaces, uid, *rights, read, written, shared, names = look(judge, source)
    asked = f"{{kind: __import__('os').readlink('/proc/self/ns/' + kind) for kind in {list(spaces)}}}"
    assert spaces == student.value(asked)
    assert uid == student.value("__import__('os').getuid()")
    assert rights == ["0" * 16, "0" * 16, "1", "2"]
    assert (read, written, shared) == ("FileNotFoundError", "FileNotFoundError", True)
    assert not outside.exists()
    assert "COURSE_SECRET" not in names


@pytest.mark.parametrize("level", [*LEVELS, "landlock"])
def test_a_student_cannot_look_into_a_judge(enter, court, level):
    """It is seen, as the same user, and yet neither read nor traced; what it starts may be looked at."""
    student = enter(level)
    with court.judge(student.box.run_dir, box=student.box) as judge:
        judge_pid, child_pid = look(
            judge,
            "import os, subprocess\n"
            "child = subprocess.Popen(['sh', '-c', 'echo; sleep 1000; :'], stdout=subprocess.PIPE)\n"
            "child.stdout.readline()\n"
            "print([os.getpid(), child.pid])",
        )
        looked = student.value(
            f"[__import__('os').access(f'/proc/{{pid}}/{{what}}', 4) for pid in ({judge_pid}, {child_pid})"
            " for what in ('mem', 'environ', 'fd')]"
        )
        traced = student.run(f"import ctypes; print(ctypes.CDLL(None).ptrace(16, {judge_pid}, 0, 0))")
    assert looked == [False] * 3 + [True] * 3
    assert traced == "-1\n"


@pytest.mark.parametrize("level", ["namespaces", "landlock"])
def test_a_judge_ends_with_its_box(enter, court, level):
    """Its processes are the box's: what it has started is gone with it."""
    student = enter(level)
    with court.judge(student.box.run_dir, box=student.box) as judge:
        mark = str(student.box.run_dir / "mark")
        look(judge, f"import subprocess, sys\nsubprocess.Popen(['sh', '-c', 'sleep 1000; : {mark}'])\nprint(1)")
        assert marked(mark)
        student.box.kill()
        assert not marked(mark)


@pytest.mark.parametrize("level", ["namespaces", "landlock"])
def test_a_judge_that_is_ended_leaves_nothing(enter, court, level):
    """A test that hangs is killed with what it had started; the box lives on and gets another judge."""
    student = enter(level)
    mark = str(student.box.run_dir / "mark")
    source = f"import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 1000; : {mark}'])\nwhile True: pass"
    with court.judge(student.box.run_dir, box=student.box) as judge, pytest.raises(JudgeError):
        judge.run(session.Test(name="t", source=source, points=1.0, answers="/nowhere"), 2)
    await_until(lambda: not marked(mark))
    assert student.value("6 * 7") == 42
    with court.judge(student.box.run_dir, box=student.box) as judge:
        assert look(judge, "print(2)") == 2


def test_a_judge_behind_a_door_reads_no_file_of_the_grader(enter, court, tmp_path):
    """At level landlock it lives by the student's rules; the hidden checks came through the door."""
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    student = enter("landlock")
    with court.judge(student.box.run_dir, modules=["autograder.checks.passport"], box=student.box) as judge:
        source = f"""
import json, pathlib
from autograder.checks import passport
def reads(path):
    try: return pathlib.Path(path).read_text()[:1]
    except OSError as error: return type(error).__name__
print(json.dumps([reads(path) for path in ({str(secret)!r}, passport.__file__)]))
"""
        assert look(judge, source) == ["PermissionError"] * 2
    assert student.run("from autograder.checks import passport").startswith(("PermissionError", "ModuleNotFound"))


def marked(mark: str) -> list[str]:
    """Return the processes of the host with this word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found
