"""The gradebook may be a PostgreSQL server's, for instructors on several machines."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from autograder import report
from autograder.grading import command
from autograder.grading.course import Course
from tests.build.conftest import LESSON

from .test_grade import marks

pytestmark = pytest.mark.pipeline


def program(name):
    """Find a program of the server, which distributions keep out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture
def server():
    """A PostgreSQL server on a Unix socket in a folder of its own, ended afterwards; the address of its database."""
    if not program("initdb"):
        pytest.skip("no PostgreSQL server is installed here (Debian's package: postgresql)")
    pytest.importorskip("psycopg", reason="the driver is not installed (extra: grader)")
    # It refuses to run as root.
    user = pwd.getpwuid(65534 if os.getuid() == 0 else os.getuid())
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        data = f"{folder}/data"
        initialised = [program("initdb"), "-D", data, "-U", "grader", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(initialised, check=True, capture_output=True, cwd=folder, **options)
        quiet = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with subprocess.Popen(
            [program("postgres"), "-D", data, *quiet], cwd=folder, stderr=subprocess.DEVNULL, **options
        ) as process:
            try:
                wait_for(folder)
                yield f"postgresql+psycopg://grader@/postgres?host={folder}"
            finally:
                process.terminate()


def wait_for(folder):
    """Return when the server answers."""
    import psycopg

    address = f"host={folder} user=grader dbname=postgres"
    end = time.monotonic() + 120
    while True:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(address):
            return
        assert time.monotonic() < end, "PostgreSQL did not come up"
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore")
def test_marks_go_to_a_server(course, server):
    """`course grade` and the report work on a gradebook in PostgreSQL as on a file; no file is made."""
    path = course.root / "nbgrader_config.py"
    path.write_text(f"{path.read_text()}\nc.CourseDirectory.db_url = {server!r}\n")
    course = Course(course.root)
    batch = command.run(course, jobs=2)
    assert batch.failed == {}
    assert marks(course) == {"ada": 5.0, "bob": 0.0, "cyd": 0.0}
    assert len(command.run(course).unchanged) == 3
    [lesson] = report.read(server, course.work / "autograded")
    assert {one.student: one.total for one in lesson.submissions}["ada"] == 5.0
    assert lesson.name == LESSON
    assert not (course.root / "autograder" / "gradebook.db").exists()
