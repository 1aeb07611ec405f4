"""Marks leave the gradebook in the form that Moodle and Canvas read."""

import csv

import pytest
from nbgrader.api import Gradebook

from autograder.export import CanvasExport, MoodleExport

from .report.conftest import course, made  # noqa: F401 - fixtures


def exported(plugin, url, path, **options):
    """Run a plugin as ``nbgrader export`` does, and read its file."""
    with Gradebook(url) as gradebook:
        plugin(to=str(path), **options).export(gradebook)
    return list(csv.reader(path.read_text().splitlines()))


def test_moodle_gets_one_row_a_student(course, tmp_path):  # noqa: F811
    """Marks after penalties; nothing handed in is an empty field, not a 0."""
    head, *rows = exported(MoodleExport, course[0], tmp_path / "m.csv")
    assert head[:1] == ["username"]
    assert head[-1] == "05-emulation (6)"
    assert {row[0]: row[-1] for row in rows} == {"ada": "4.0", "bob": "3.0", "cyd": "0.0", "dee": "0.5", "eve": ""}
    assert next(row for row in rows if row[0] == "eve")[2] == "'=cmd()"


def test_canvas_gets_the_points_possible(course, tmp_path):  # noqa: F811
    """The second row holds what is possible; rows are matched by the login."""
    head, possible, *rows = exported(CanvasExport, course[0], tmp_path / "c.csv")
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "05-emulation"]
    assert possible[0].strip() == "Points Possible"
    assert float(possible[-1]) == 6
    assert ["Ng, Ada", "", "", "ada", "", "4.0"] in rows


@pytest.mark.parametrize("plugin", [MoodleExport, CanvasExport])
def test_one_student_and_one_lesson_can_be_chosen(plugin, course, tmp_path):  # noqa: F811
    """The options of ``nbgrader export`` are kept."""
    rows = exported(plugin, course[0], tmp_path / "x.csv", student=["bob"], assignment=["05-emulation"])
    assert sum("bob" in row for row in rows) == 1
    assert not any("ada" in row for row in rows)
