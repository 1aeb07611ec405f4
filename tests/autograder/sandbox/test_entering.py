"""A judge steps into the whole box of a student: its processes, files and network, as the student, without rights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from autograder import session
from autograder.judge import Court

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
spaces = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "mnt", "net", "ipc", "uts", "pid")}
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
    assert spaces == student.value(
        "{kind: __import__('os').readlink(f'/proc/self/ns/{kind}') for kind in %r}" % list(spaces)
    )
    assert uid == student.value("__import__('os').getuid()")
    assert rights == ["0" * 16, "0" * 16, "1", "2"]
    assert (read, written, shared) == ("FileNotFoundError", "FileNotFoundError", True)
    assert not outside.exists()
    assert "COURSE_SECRET" not in names


@pytest.mark.parametrize("level", LEVELS)
def test_a_student_cannot_look_into_a_judge(enter, court, level):
    """It is seen, as the same user, and yet neither read nor traced; what it starts may be looked at."""
    student = enter(level)
    with court.judge(student.box.run_dir, box=student.box) as judge:
        judge_pid, child_pid = look(
            judge, "import os, subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nprint([os.getpid(), child.pid])"
        )
        looked = student.value(
            f"[__import__('os').access(f'/proc/{{pid}}/{{what}}', 4) for pid in ({judge_pid}, {child_pid})"
            " for what in ('mem', 'environ', 'fd')]"
        )
        traced = student.run(f"import ctypes; print(ctypes.CDLL(None).ptrace(16, {judge_pid}, 0, 0))")
    assert looked == [False] * 3 + [True] * 3
    assert traced == "-1\n"


def test_a_judge_ends_with_its_box(enter, court):
    """Its processes are the box's: none is left when the box has ended."""
    student = enter()
    with court.judge(student.box.run_dir, box=student.box) as judge:
        look(judge, "print(1)")
        uid = student.box.uid
        student.box.kill()
        left = [pid for pid in Path("/proc").glob("[0-9]*") if uid != os.getuid() and _owner(pid) == uid]
    assert left == []


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return -1
