"""The zygote and its boxes, seen from the grader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from autograder.sandbox import Isolation, Level, Limits, SandboxError, Zygote, probing
from course.error import UsageError
from tests.autograder.sandbox.conftest import allowed
from tests.autograder.sandbox.student import Student, await_until


def test_the_zygote_survives_what_its_children_do(zygotes, folders):
    """A kernel that crashes costs itself only; its exit status tells how it ended."""
    zygote = zygotes("namespaces")
    for code, status in (("import os; os._exit(3)", 3), ("import os; os.kill(os.getpid(), 11)", 139)):
        with zygote.box(*folders) as box, Student(box) as student:
            student.send(code)
            assert box.wait(120)
            assert box.exitcode == status
            assert box.why == ""
    with zygote.box(*folders) as box, Student(box) as student:
        assert student.value("1 + 1") == 2


def test_a_killed_zygote_is_replaced(folders):
    """Its boxes end with it; the next box comes from a new one."""
    with Zygote(allowed("namespaces")) as zygote:
        with zygote.box(*folders) as box:
            os.kill(zygote.pid, signal.SIGKILL)
            assert box.wait(120)
            assert "keeper was killed" in box.why
        with zygote.box(*folders) as box:
            assert box.alive()


def test_threads_get_boxes_at_the_same_time(zygotes, tmp_path_factory, folders):
    """Each has users and processes of its own."""
    made = []

    def make(number: int) -> None:
        run = folders[1] / str(number)
        run.mkdir(mode=0o755)
        made.append(zygotes("namespaces").box(folders[0], run))

    zygotes("namespaces")
    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({box.pid for box in made}) == 4
    if os.getuid() == 0:
        assert len({box.uid for box in made}) == 4
    for box in made:
        assert box.alive()
        box.kill()
        assert not box.alive()


def test_a_box_tells_what_it_used(enter):
    """Processor time and memory grow with use, and the time is still known afterwards."""
    student = enter()
    before = student.box.memory
    student.run(
        "import time\ndata = b'x' * (64 << 20)\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    )
    assert student.box.memory > before + (48 << 20)
    assert student.box.cpu_s >= 0.5
    student.box.kill()
    assert student.box.cpu_s >= 0.5
    assert student.box.memory == 0
    assert student.box.why == "asked for"


def test_the_grader_may_die_without_a_word(folders):
    """Whatever ends the grader ends the zygote, the boxes and what runs in them."""
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from autograder.sandbox import *\n"
        "zygote = Zygote(Level(Isolation.NAMESPACES, userns=os.getuid() != 0), modules=())\n"
        f"box = zygote.box(Path({str(folders[0])!r}), Path({str(folders[1])!r}))\n"
        "print(zygote.pid, box.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    allowed("namespaces")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as grader:
        assert grader.stdout is not None
        started = [psutil.Process(int(word)) for word in grader.stdout.readline().split()]
        assert len(started) == 2
        grader.kill()
    await_until(lambda: not any(process.is_running() for process in started))


def test_what_cannot_be_meant_is_refused(zygotes, folders, tmp_path):
    """A missing folder, a path too long for sockets, a zygote that is closed."""
    zygote = zygotes("namespaces")
    with pytest.raises(UsageError, match="there is no folder"):
        zygote.box(folders[0] / "none", folders[1])
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    with pytest.raises(UsageError, match="too long for the paths of sockets"):
        zygote.box(folders[0], deep)
    closed = Zygote(zygote.level, modules=())
    closed.close()
    with pytest.raises(UsageError, match="is closed"):
        closed.box(*folders)


def test_a_submission_that_does_not_fit_is_an_error_not_a_crash(zygotes, folders):
    """More files than the box may hold: the reason is told."""
    (folders[0] / "big").write_bytes(os.urandom(4 << 20))
    with pytest.raises(SandboxError, match="No space left"):
        zygotes("namespaces").box(*folders, Limits(disk_mib=2))


def test_links_in_a_submission_are_not_followed(enter, folders):
    """A link to the gradebook stays a link, and leads nowhere inside."""
    secret = folders[0].parent / "secret"
    secret.write_text("secret")
    (folders[0] / "link").symlink_to(secret)
    os.mkfifo(folders[0] / "pipe")
    student = enter()
    assert student.value("sorted(__import__('os').listdir('.'))") == [
        "data.txt",
        "link",
    ]
    assert student.run("open('link').read()").startswith("FileNotFoundError")


def test_a_zygote_says_what_it_could_not_import(folders):
    """A module that is missing is no reason to fail."""
    with Zygote(allowed("namespaces"), modules=("no.such.module",)) as zygote:
        assert "no.such.module: ModuleNotFoundError" in zygote.missing


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look which namespaces they are")
def test_a_box_in_a_user_namespace_hands_over_all_of_its_namespaces(folders):
    """An ordinary user's judge steps into the box's root too: no link of a student's leads it out."""
    with Zygote(allowed("userns")) as zygote, zygote.box(*folders) as box:
        assert set(box.namespaces) == {"user", "mnt", "net", "ipc", "uts", "pid"}
        for kind, fd in box.namespaces.items():
            assert os.fstat(fd).st_ino == Path(f"/proc/{box.pid}/ns/{kind}").stat().st_ino
            assert os.fstat(fd).st_ino != Path(f"/proc/self/ns/{kind}").stat().st_ino


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_can_grade_too(folders, tmp_path_factory):
    """The probe and a box, by a user without rights: a Python that he may read is needed."""
    python = sys.executable if not probing.closed(sys.base_prefix) else f"/usr/bin/python3.{sys.version_info.minor}"
    if not Path(python).exists() or probing.closed(Path(__file__).parent):
        pytest.skip(f"there is no {python} that everybody may start, or no way to this checkout")
    places = [path for path in sys.path if path.endswith("site-packages")] + [str(Path(__file__).parents[3])]
    home = folders[0].parent / "home"
    home.mkdir()
    for path in (*folders, home):
        os.chown(path, 65534, 65534)
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            python,
            "-W",
            "ignore",
            "-c",
            _ORDINARY,
            *folders,
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    level, said = done.stdout.strip().split("\n", 1)
    if level != "namespaces True":
        pytest.skip(f"user namespaces are refused here: {level}")
    assert said == "1000 False ['data.txt']"


_ORDINARY = """
import sys
from pathlib import Path
from autograder import sandbox
from tests.autograder.sandbox.student import Student
level = sandbox.probe()
print(level.level, level.userns)
with sandbox.Zygote(level) as zygote, zygote.box(Path(sys.argv[1]), Path(sys.argv[2])) as box, Student(box) as student:
    print(student.run("import os; print(os.getuid(), os.path.exists('/home'), os.listdir())"))
"""


def test_a_level_without_isolation_warns():
    """Who grades there is told what students can do."""
    level = Level(Isolation.NONE, ("namespaces refused: EPERM",))
    assert "YOUR RIGHTS" in level.warning
    assert "EPERM" in level.warning
    assert Level(Isolation.NAMESPACES).warning == ""


def test_even_without_isolation_a_kernel_runs_and_ends(folders):
    """Level none is the ordinary way, and still leaves nothing behind."""
    with Zygote(Level(Isolation.NONE)) as zygote, zygote.box(*folders) as box:
        with Student(box) as student:
            assert student.value("1 + 1") == 2
            student.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
        tree = psutil.Process(box.pid).children(recursive=True)
        assert tree
        box.kill()
        await_until(lambda: not any(process.is_running() for process in tree))
