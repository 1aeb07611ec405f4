"""What a student's process must not reach, tried from inside and looked at from both sides."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.sandbox import Box, Isolation, Limits, Zygote, seccomp
from tests.autograder.sandbox.conftest import LEVELS
from tests.autograder.sandbox.student import Student, await_until, processes_of

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = Path(__file__).with_name("hostile.py").read_text()
SECRET = f"secret-{secrets.token_hex(8)}"

# What a level leaves open, and says so: see probing._left_open.
OPEN = {"landlock": {"see", "unix socket", "signal"}}


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Any]]:
    """What there is on the host to be attacked: files, listeners, a process."""
    base = Path(tempfile.mkdtemp(prefix="victim-"))
    base.chmod(0o755)
    gradebook = base / "gradebook.db"
    gradebook.write_text(SECRET)
    gradebook.chmod(0o666)
    abstract = f"\0{base.name}"
    comm = Path(f"/proc/{os.getpid()}/comm")
    was = comm.read_text()
    comm.write_text(base.name)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as named,
    ):
        udp.bind(("127.0.0.1", 0))
        named.bind(abstract)
        named.listen()
        unix.bind(str(base / "host.sock"))
        (base / "host.sock").chmod(0o777)
        unix.listen()
        answering = threading.Thread(target=_echo, args=(udp,), daemon=True)
        answering.start()
        yield {
            "unreadable": [
                str(gradebook),
                "/etc/shadow",
                str(ROOT / "nbgrader_config.py"),
                str(Path.home() / ".bashrc"),
            ],
            "unlistable": [str(ROOT / "source"), str(ROOT / "autograder"), str(ROOT / "release"), str(base), "/home"],
            "unwritable": [
                str(gradebook),
                "/usr/mine",
                "/etc/mine",
                "/mine",
                str(Path.home() / ".ipython" / "profile_default" / "x.py"),
            ],
            "port": tcp.getsockname()[1],
            "udp_port": udp.getsockname()[1],
            "abstract": abstract,
            "unix": str(base / "host.sock"),
            "comm": comm.read_text().strip(),
            "pid": os.getpid(),
            "secret": SECRET,
            "gradebook": str(gradebook),
        }
        udp.sendto(b"", udp.getsockname())
        answering.join(10)
    comm.write_text(was)
    shutil.rmtree(base)


def _echo(udp: socket.socket) -> None:
    while True:
        data, sender = udp.recvfrom(100)
        if not data:
            return
        udp.sendto(data, sender)


@pytest.fixture(scope="module")
def attempted(
    zygotes: Callable[[str], Zygote], targets: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """Return what came of all attempts in one box of a level."""
    results: dict[str, dict[str, Any]] = {}

    def at(level: str) -> dict[str, Any]:
        if level not in results:
            os.environ["GRADER_SECRET"] = SECRET
            base = Path(tempfile.mkdtemp(prefix="t-"))
            base.chmod(0o755)
            for name in ("work", "run"):
                (base / name).mkdir()
            (base / "work" / "problem.ipynb").write_text("hidden tests")
            (base / "work" / "data.txt").write_text("numbers")
            try:
                with zygotes(level).box(base / "work", base / "run") as box, Student(box) as student:
                    results[level] = _attempt(student, box, targets)
            finally:
                shutil.rmtree(base)
                del os.environ["GRADER_SECRET"]
        return results[level]

    return at


def _attempt(student: Student, box: Box, targets: dict[str, Any]) -> dict[str, Any]:
    student.run(HOSTILE)
    return {
        "attempts": student.value(f"attempts({targets!r})"),
        "refusals": student.value(f"refusals({seccomp.denied()!r})"),
        "status": student.value("status()"),
        "files": student.value("os.listdir('.')"),
        "root": student.value("{name: os.access('/' + name, os.W_OK) for name in os.listdir('/')}")
        if box.level.level is not Isolation.LANDLOCK
        else {},
        "uid": box.uid,
    }


@pytest.mark.parametrize("level", LEVELS)
def test_no_attempt_reaches_anything_of_the_host(attempted, level):
    """No file, process, socket, network, identity or right of the host can be had from inside."""
    done = {name for name, said in attempted(level)["attempts"].items() if not said.startswith("refused")}
    assert done - OPEN.get(level, set()) == set(), attempted(level)["attempts"]


@pytest.mark.parametrize("level", LEVELS)
def test_the_gradebook_is_untouched(attempted, targets, level):
    """Seen from outside: what a student wrote did not arrive, though the file is writable for all."""
    attempted(level)
    assert Path(targets["gradebook"]).read_text() == SECRET


@pytest.mark.parametrize("level", LEVELS)
def test_nobody_is_root_or_can_become_it(attempted, level):
    """The student's process is an ordinary user without capabilities, inside and to the host."""
    status = attempted(level)["status"]
    assert "0" not in [*status["Uid"].split(), *status["Gid"].split()]
    assert attempted(level)["uid"] != 0
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("level", LEVELS)
def test_each_listed_system_call_is_refused(attempted, level):
    """The filter answers EPERM before the kernel looks at the arguments (which would make most of them EINVAL)."""
    refusals = attempted(level)["refusals"]
    assert len(refusals) > 30
    assert {name: error for name, error in refusals.items() if error != 1} == {}


@pytest.mark.parametrize("level", LEVELS)
def test_the_submission_comes_without_its_notebook(attempted, level):
    """The working directory has the student's files, but no notebook: nbgrader has put the hidden tests into it."""
    assert attempted(level)["files"] == ["data.txt"]


@pytest.mark.parametrize("level", ["namespaces", "userns", "bubblewrap"])
def test_the_root_cannot_be_written(attempted, level):
    """The root of a box is read-only."""
    writable = {name for name, can in attempted(level)["root"].items() if can}
    assert writable - {"student"} == {"tmp"}


def test_a_fork_bomb_is_bounded_and_ends_with_its_box(enter):
    """No more processes than allowed can be started, and none is left."""
    student = enter(limits=Limits(processes=60))
    count = student.run(
        "import subprocess\n"
        "started = []\n"
        "try:\n"
        "    while len(started) < 500:\n"
        "        started.append(subprocess.Popen(['sleep', '1000']))\n"
        "except OSError:\n"
        "    print(len(started))\n"
    )
    assert 0 < int(count) < 60
    box = student.box
    box.kill()
    if os.getuid() == 0:
        assert processes_of(box.uid) == []


def test_a_memory_blow_up_of_one_process_is_a_memory_error(enter):
    """The limit of one process is met inside, where Python can say so."""
    student = enter(limits=Limits(address_space_mib=2048))
    assert student.run("data = bytearray(4 << 30)").startswith("MemoryError")
    assert student.box.alive()


def test_a_memory_blow_up_of_many_processes_ends_the_box(enter):
    """Processes that share the blame are counted together, and the reason is kept."""
    student = enter(limits=Limits(memory_mib=400))
    student.send(
        "import os, time\n"
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        data = b'x' * (100 << 20)\n"
        "        time.sleep(1000)\n"
        "time.sleep(1000)"
    )
    assert student.box.wait(120)
    assert student.box.why.startswith("memory: ")


def test_a_disk_fill_is_bounded(enter):
    """A box's files live in a memory file system of limited size, wherever in the box they are."""
    student = enter(limits=Limits(disk_mib=32))
    said = student.run(
        "import os\n"
        "written = 0\n"
        "for folder in ('/tmp', os.environ['HOME'], os.environ['COURSE_CACHE'], '/dev/shm'):\n"
        "    try:\n"
        "        with open(folder + '/big', 'wb') as file:\n"
        "            while True:\n"
        "                written += os.write(file.fileno(), bytes(1 << 20))\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
        "print(written >> 20)"
    )
    *errors, written = [int(word) for word in said.split()]
    assert errors == [28] * 4
    assert written <= 32


def test_filling_the_shared_folder_ends_the_box(enter, folders):
    """The run directory lies on the host's disk: it is watched."""
    student = enter(limits=Limits(run_mib=8))
    student.send(
        f"for number in range(100):\n    with open('{folders[1]}/' + str(number), 'wb') as f:\n"
        "        f.write(bytes(1 << 20))\nimport time; time.sleep(1000)"
    )
    assert student.box.wait(120)
    assert student.box.why.startswith("disk: ")


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_left_after_the_end(enter, level):
    """Detached processes that ignore all signals end with the box."""
    student = enter(level)
    student.run(
        "import os, signal, sys, time\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "            os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000)', 'left-over'])\n"
        "        os._exit(0)\n"
    )
    tree = _tree(student.box)
    await_until(lambda: len(_tree(student.box)) >= 7)
    tree = _tree(student.box)
    student.box.kill()
    await_until(lambda: [pid for pid, start in tree.items() if _start_of(pid) == start] == [])


def _tree(box: Box) -> dict[int, str]:
    """Return the processes below the keeper of a box, with when they were started."""
    from autograder.sandbox import linux

    keeper = int(Path(f"/proc/{box.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return {pid: _start_of(pid) for pid in linux.descendants(keeper)[1:]}


def _start_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


@pytest.mark.parametrize("level", ["namespaces", "userns", "bubblewrap"])
def test_students_cannot_end_the_first_process_of_their_box(enter, level):
    """Signals from inside do not reach it, also those that nobody can ignore."""
    student = enter(level)
    said = student.run("import os\nfor number in (9, 19, 15, 1, 3): os.kill(1, number)\nos.kill(1, 0); print('lives')")
    assert said == "lives\n"
    assert student.value("os.getppid()") == 1


def test_nothing_persists_from_one_student_to_the_next(zygotes, folders):
    """A startup file, an environment variable, a changed module: the next box has none of them."""
    work, run = folders
    zygote = zygotes("namespaces")
    with zygote.box(work, run) as box, Student(box) as first:
        first.run(
            "import os, json, course\n"
            "os.makedirs(os.environ['IPYTHONDIR'] + '/profile_default/startup', exist_ok=True)\n"
            "open(os.environ['IPYTHONDIR'] + '/profile_default/startup/00.py', 'w').write('owned = 1')\n"
            "course.owned = json.owned = 1; os.environ['OWNED'] = '1'; open('/tmp/owned', 'w').close()\n"
            "open('owned.py', 'w').close()"
        )
    with zygote.box(work, run) as box, Student(box) as second:
        seen = second.run(
            "import os, json, course\n"
            "print([hasattr(course, 'owned'), hasattr(json, 'owned'), 'OWNED' in os.environ, 'owned' in globals(),"
            " os.path.exists('/tmp/owned'), os.path.exists('owned.py')])"
        )
    assert json.loads(seen.lower()) == [False] * 6
    assert sorted(path.name for path in work.iterdir()) == ["data.txt", "problem.ipynb"]


SWAP = """
import os, pathlib, shutil
place = pathlib.Path(os.environ["COURSE_CACHE"])
said = []
def tried(what, *arguments):
    try: what(*arguments); said.append(f"{what.__name__} {arguments[0]}")
    except OSError: pass
entries = [entry for kind in place.iterdir() if kind.is_dir() and kind.name != "locks" for entry in kind.iterdir()]
for entry in entries:
    tried(os.rename, entry, entry.with_name("moved"))
    tried(os.unlink, entry)
    tried(os.rmdir, entry)
    for file in entry.iterdir() if entry.is_dir() else [entry]:
        tried(open, file, "ab")
for kind in {entry.parent for entry in entries}:
    tried(os.rename, kind, kind.with_name("moved"))
tried(os.rename, place, place.with_name("moved"))
print(len(entries) > 0, said)
"""


@pytest.mark.parametrize("level", ["namespaces", "userns", "bubblewrap"])
def test_no_guest_of_the_cache_can_be_swapped(zygotes, folders, level, tmp_path, monkeypatch):
    """What checks will boot stays what it is: entries are neither changed nor moved away; new ones can be made."""
    tmp_path.chmod(0o755)
    entry = tmp_path / "cache" / "images" / "abc"
    entry.mkdir(parents=True)
    (entry / "guest.img").write_text("the guest")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    with Zygote(zygotes(level).level) as zygote, zygote.box(*folders) as box, Student(box) as student:
        assert student.run(SWAP) == "True []\n"
        assert student.value(f"open({str(entry / 'guest.img')!r}).read()") == "the guest"
        student.run("from course.guest import cache\nmade = cache.image(b'mine', 'mine.img')")
        assert student.value("made.read_bytes().decode()") == "mine"
