"""A small course with submissions, as an instructor has it on the morning after the deadline."""

import json
import shutil

import pytest

from autograder.grading.course import Course
from course.build.pipeline import build
from tests.build.conftest import LESSON, small_course
from tests.pipeline.conftest import Course as Root
from tests.pipeline.submissions import Submissions


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A built course with three submissions: ``(root, what makes submissions)``."""
    layout = small_course(tmp_path_factory.mktemp("grading") / "course")
    assert build(layout, [LESSON]).errors == []
    made = Submissions(layout.source_notebook(LESSON), layout.release_notebook(LESSON))
    root = Root(layout.root)
    root.submit("ada", LESSON, json.dumps(made.perfect()))
    root.submit("bob", LESSON, json.dumps(made.untouched()))
    root.submit("cyd", LESSON, "this is no notebook")
    return layout.root, made


@pytest.fixture
def course(built, tmp_path):
    """An own copy of that course."""
    shutil.copytree(built[0], tmp_path / "course")
    return Course(tmp_path / "course")
