"""What was named once is not named again until something that it depends on has changed."""

import pytest

from autograder.grading import execution
from autograder.grading.course import Submission
from autograder.grading.naming import Names, canonical
from tests.build.conftest import LESSON

pytestmark = pytest.mark.pipeline
ONE = Submission(LESSON, "ada")


@pytest.fixture
def named(course):
    """A course in which a submission has been named."""
    naming = Names(course)
    assert naming.known(ONE) is None
    naming.keep(ONE, execution.names(str(course.root), ONE))
    assert Names(course).known(ONE) == execution.names(str(course.root), ONE)
    return course


@pytest.mark.parametrize("step", ["submitted", "source", "release"])
def test_other_files_need_other_names(named, step):
    """Nothing is known any more when a file of the student's, the instructor's or the release was changed."""
    student = ONE.student if step == "submitted" else "."
    [path] = named.path(step, student, LESSON).glob("*.ipynb")
    path.write_text(path.read_text() + "\n")
    assert Names(named).known(ONE) is None


def test_other_settings_need_other_names(named):
    """Nothing is known any more when the configuration was changed."""
    named.config.CachedExecute.course_secret = "another"
    assert Names(named).known(ONE) is None


def test_links_are_told_apart_by_where_they_lead(named, tmp_path):
    """What a link leads to is not read; where it leads counts."""
    folder = named.path("submitted", ONE.student, LESSON)
    (folder / "link").symlink_to(tmp_path / "nowhere")
    assert Names(named).known(ONE) is None


def test_submission_that_changes_meanwhile_keeps_no_names(course):
    """What was found out about the files before is not kept for those that are there now."""
    naming = Names(course)
    assert naming.known(ONE) is None
    (course.path("submitted", ONE.student, LESSON) / "late.txt").write_text("late")
    naming.keep(ONE, ["of the files before"])
    assert Names(course).known(ONE) is None


def test_settings_are_written_the_same_way_in_every_process():
    """Neither the order of keys nor that of sets counts; values do."""
    assert canonical({"a": {("x",), ("y", "z")}, "b": 1}) == canonical({"b": 1, "a": {("y", "z"), ("x",)}})
    assert canonical({"a": {1}}) != canonical({"a": {2}})
