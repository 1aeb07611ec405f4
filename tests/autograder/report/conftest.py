"""A gradebook and graded notebooks made by hand: their figures can be worked out on paper."""

import datetime
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

LESSON = "05-emulation"
POINTS = {"step_correct": 3.0, "uart_correct": 1.0}
CLASS = {  # student -> marks per cell, in the cells' order
    "ada": (3.0, 1.0),
    "bob": (3.0, 0.0),
    "cyd": (0.0, 0.0),
    "dee": (0.0, 1.0),
}
DUE = datetime.datetime(2026, 1, 10, 12, 0)


def verdict(ok, exercise, misconception=""):
    """What the judge leaves of one check."""
    return {
        "state": "correct" if ok else "wrong",
        "exercise": exercise,
        "misconception": "" if ok else misconception,
        "message": "" if ok else f"{exercise} obtained <b>7</b>",
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with the gradebook and the graded notebooks of a class of four and one who handed in nothing."""
    folder = tmp_path_factory.mktemp("class")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # nbgrader starts `alembic` by name when it makes a gradebook, and hears warnings about its own objects.
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        warnings.simplefilter("ignore")
        with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
            fill(gradebook, folder / "autograded")
    return folder


def fill(gradebook, autograded):
    """Hand in and grade."""
    gradebook.add_assignment(LESSON, duedate=DUE)
    gradebook.add_notebook(LESSON, LESSON)
    for cell, points in POINTS.items():
        gradebook.add_grade_cell(cell, LESSON, LESSON, max_score=points, cell_type="code")
    gradebook.add_grade_cell("explain", LESSON, LESSON, max_score=2.0, cell_type="markdown")
    gradebook.add_solution_cell("explain", LESSON, LESSON)
    gradebook.add_student("eve", first_name="Eve", last_name="=cmd()")
    for student, marks in CLASS.items():
        gradebook.add_student(student, first_name=student.title(), last_name="Ng", email=f"{student}@example.org")
        late = datetime.timedelta(hours=2 if student == "dee" else -2)
        submission = gradebook.add_submission(LESSON, student, timestamp=DUE + late)
        for cell, mark in zip(POINTS, marks, strict=True):
            grade = gradebook.find_grade(cell, LESSON, LESSON, student)
            grade.auto_score, grade.needs_manual_grade = mark, False
        if student == "dee":
            submission.notebooks[0].late_submission_penalty = 0.5
        gradebook.db.commit()
        graded = autograded / student / LESSON
        graded.mkdir(parents=True)
        (graded / f"{LESSON}.ipynb").write_text(json.dumps(notebook(marks)))


@pytest.fixture
def course(made, tmp_path):
    """Return ``(db_url, folder of graded notebooks)`` of an own copy of the class."""
    shutil.copytree(made, tmp_path / "class")
    return f"sqlite:///{tmp_path}/class/gradebook.db", tmp_path / "class" / "autograded"


def notebook(marks):
    """A graded notebook as the grader leaves it."""
    names = [*POINTS, "explain"]
    cells = [{"cell_type": "code", "metadata": {"nbgrader": {"grade": True, "grade_id": name}}} for name in names]
    said = {
        cell: {
            "marks": mark,
            "seconds": 2.0,
            "checks": [verdict(mark > 0, cell.removesuffix("_correct"), "x0-writable")],
        }
        for cell, mark in zip(POINTS, marks, strict=True)
    }
    return {"cells": cells, "metadata": {"course": {"verdicts": said, "sandbox": "namespaces"}}, "nbformat": 4}
