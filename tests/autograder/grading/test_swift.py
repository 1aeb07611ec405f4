"""nbgrader with shared engines and validators: the same gradebook, the same refusals."""

import contextlib
import sqlite3

import pytest

from autograder.grading.course import Submission
from autograder.grading.gradebook import Gradebook
from autograder.grading.swift import swift
from tests.build.conftest import LESSON

pytestmark = [pytest.mark.pipeline, pytest.mark.filterwarnings("ignore")]


def rows(course):
    """What the gradebook holds of marks, without what is different each time: ids and times."""
    with contextlib.closing(sqlite3.connect(course.root / "autograder" / "gradebook.db")) as base:
        return base.execute(
            "select base_cell.name, grade.auto_score, grade.manual_score, grade.needs_manual_grade from grade "
            "join base_cell on base_cell.id = grade.cell_id order by 1, 2"
        ).fetchall()


def test_the_same_is_written(course):
    """Marks written swiftly are those that nbgrader writes by itself."""
    book = Gradebook(course)
    book.enter(LESSON)
    for name in ("ada", "bob"):
        assert book.grade(Submission(LESSON, name)) == ""
    plain = rows(course)
    (course.root / "autograder" / "gradebook.db").unlink()
    with swift():
        book.enter(LESSON)
        for name in ("ada", "bob"):
            assert book.grade(Submission(LESSON, name)) == ""
    assert rows(course) == plain
    assert plain


def test_wrong_metadata_are_refused_as_before():
    """The validator says what nbgrader's own says, and everything is put back at the end."""
    from jsonschema import ValidationError
    from nbformat.v4 import new_code_cell
    from nbgrader import api
    from nbgrader.nbgraderformat import common
    from nbgrader.nbgraderformat.v3 import MetadataValidatorV3

    flags = {"schema_version": 3, "grade": True, "solution": False, "locked": True, "grade_id": "a b", "points": -1}
    flags |= {"cell_type": "code", "task": False}
    cell = new_code_cell(metadata={"nbgrader": flags})
    with pytest.raises(ValidationError) as plainly:
        MetadataValidatorV3().validate_cell(cell)
    before = common.jsonschema, api.create_engine, api.Base.metadata.create_all
    with swift(), pytest.raises(ValidationError) as swiftly:
        MetadataValidatorV3().validate_cell(cell)
    assert swiftly.value.message == plainly.value.message
    assert (common.jsonschema, api.create_engine, api.Base.metadata.create_all) == before
