"""``course grade``: the marks of plain nbgrader, nothing executed twice, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autograder.cache import Cache
from autograder.grading import command, execution, pool
from autograder.grading.course import Course, GradingError, Submission, find_root
from autograder.grading.gradebook import Gradebook, writing
from tests.build.conftest import LESSON
from tests.pipeline.conftest import Course as Root

pytestmark = pytest.mark.pipeline
COURSE = Path(sys.executable).parent / "course"


@pytest.fixture(autouse=True)
def _nbgraders_own_warnings(recwarn):
    """Nbgrader's warnings about its own database objects are not ours to mend."""


def marks(course):
    """Marks by student."""
    book = Gradebook(course)
    return {one.student: book.marks(one)[0] for one in book.known()}


@pytest.mark.filterwarnings("ignore")
def test_marks_are_those_of_plain_nbgrader(course, built, tmp_path):
    """The same submissions get the same marks by both roads, and a second run finds nothing to do."""
    batch = command.run(course, jobs=2)
    assert sorted(one.student for one in batch.graded) == ["ada", "bob", "cyd"]
    assert batch.failed == {}
    assert "cannot be read" in batch.remarks[Submission(LESSON, "cyd")][0]
    ours = marks(course)
    assert ours == {"ada": 5.0, "bob": 0.0, "cyd": 0.0}
    again = command.run(course, jobs=2)
    assert (again.graded, len(again.unchanged), again.failed) == ([], 3, {})

    plain = Root(course.root)
    (course.root / "autograder" / "gradebook.db").unlink()
    for folder in ("autograded", "cache"):
        subprocess.run(["rm", "-rf", str(course.work / folder)], check=True)
    plain.nbgrader("generate_assignment", LESSON, "--force")
    plain.nbgrader("autograde", LESSON)
    assert plain.marks() == ours


@pytest.mark.filterwarnings("ignore")
def test_writer_finds_every_submission_executed(course, monkeypatch):
    """The names that workers give to executions are those that nbgrader's own road asks for."""
    one = Submission(LESSON, "ada")
    [(_, done)] = pool.local(course, [one], 1)
    cache = Cache(course.work / "cache")
    for name, outcome in done.outcomes.items():
        cache.put(name, outcome)
    assert list(done.outcomes) == execution.names(str(course.root), one)

    from autograder.execute import SplitExecute

    def forbidden(*_):
        raise AssertionError("executed though the outcome is known")

    monkeypatch.setattr(SplitExecute, "preprocess", forbidden)
    book = Gradebook(course)
    assert book.enter(LESSON) == f"{LESSON} was entered into the gradebook"
    assert book.grade(one) == ""
    assert marks(course) == {"ada": 5.0}


@pytest.mark.filterwarnings("ignore")
def test_new_version_of_a_submission_is_graded_anew(course, built):
    """What a student hands in later replaces the marks; the others are left alone."""
    command.run(course, jobs=1)
    path = course.path("submitted", "bob", LESSON) / f"{LESSON}.ipynb"
    path.write_text(json.dumps(built[1].perfect()))
    batch = command.run(course, jobs=1)
    assert [one.student for one in batch.graded] == ["bob"]
    assert marks(course)["bob"] == 5.0


@pytest.mark.filterwarnings("ignore")
def test_lesson_that_changed_after_release_is_entered_anew(course):
    """The gradebook takes the new tests, and says so."""
    book = Gradebook(course)
    assert "was entered" in book.enter(LESSON)
    assert book.enter(LESSON) == ""
    [path] = course.source_notebooks(LESSON)
    text = path.read_text()
    notebook = json.loads(text)
    test = next(
        cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") == "correct_double"
    )
    test["source"] = "assert double(4) == 8\n"
    path.write_text(json.dumps(notebook))
    assert "has changed" in book.enter(LESSON)
    assert book.enter(LESSON) == ""


@pytest.mark.filterwarnings("ignore")
def test_killed_command_goes_on_where_it_ended(course):
    """Kill -9 in the middle loses nothing: the next run finishes, and no process is left."""
    first = subprocess.Popen([str(COURSE), "grade", "-j", "1"], cwd=course.root, stderr=subprocess.DEVNULL)
    cache = course.work / "cache"
    end = time.monotonic() + 240
    while not list(cache.glob("*/*.json.gz")) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    executed = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.json.gz")}
    assert executed
    batch = command.run(course, jobs=1)
    assert batch.failed == {}
    assert marks(course) == {"ada": 5.0, "bob": 0.0, "cyd": 0.0}
    assert all(path.stat().st_mtime_ns == when for path, when in executed.items()), "executed twice"


def test_two_graders_do_not_write_at_once(course):
    """The second is told who writes, and changes nothing."""
    with writing(course), pytest.raises(GradingError, match=f"process {os.getpid()}"), writing(course):
        pass


@pytest.mark.parametrize(
    ("lessons", "told"),
    [(["77-none"], r"no lesson '77-none'; the course has 01-counting"), ([], "nothing was handed in")],
)
def test_nothing_to_grade_is_told(course, lessons, told):
    """A lesson that there is not, or nothing handed in: the message says what was expected."""
    if not lessons:
        subprocess.run(["rm", "-rf", str(course.work / "submitted")], check=True)
    with pytest.raises(GradingError, match=told):
        command.run(course, lessons)


@pytest.mark.filterwarnings("ignore")
def test_gradebook_that_is_no_database_is_left_alone(course):
    """The file is named and not touched."""
    path = course.root / "autograder" / "gradebook.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(GradingError, match=r"gradebook\.db cannot be used"):
        command.run(course)
    assert path.read_bytes() == b"not a database" * 100


def test_configuration_errors_are_told(tmp_path):
    """No configuration, or one with a mistake: the file is named."""
    with pytest.raises(GradingError, match=r"no nbgrader_config\.py"):
        find_root(tmp_path)
    (tmp_path / "nbgrader_config.py").write_text("c = get_config(\n")
    with pytest.raises(GradingError, match="SyntaxError"):
        Course(tmp_path)


def test_outcome_that_cannot_be_read_is_no_outcome(tmp_path):
    """Half a file, as after a full disk, is executed again."""
    cache = Cache(tmp_path)
    cache.put("ab12", {"cells": []})
    assert cache.get("ab12") == {"cells": []}
    path = tmp_path / "ab" / "ab12.json.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert cache.get("ab12") is None
    assert cache.get("cd34") is None


def test_files_outside_and_links_are_not_taken_along(course, tmp_path):
    """What a submission links to stays where it is."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = course.path("submitted", "ada", LESSON)
    (folder / "data.txt").write_text("mine")
    (folder / "link").symlink_to(secret)
    assert set(execution.pack(folder)) == {f"{LESSON}.ipynb", "data.txt"}


@pytest.mark.filterwarnings("ignore")
def test_dask_workers_give_the_same_outcomes(course):
    """Real workers of a Dask cluster on this machine's loopback execute what local ones do."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None,
        env={"COURSE_ROOT": str(course.root)},
    ) as cluster:  # fmt: skip
        batch = command.run(course, dask=cluster.scheduler_address)
    assert len(batch.graded) == 3
    assert marks(course) == {"ada": 5.0, "bob": 0.0, "cyd": 0.0}


def test_dask_that_is_not_there_is_told(course):
    """The address is named."""
    pytest.importorskip("distributed")
    with pytest.raises(GradingError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        list(pool.dask(course, [], "tcp://127.0.0.1:9"))
