"""Honest submissions get from us what they get from nbgrader itself."""

import pytest

from autograder.zoo import Habitat
from autograder.zoo.habitat import PLAIN
from autograder.zoo.honest import generated

pytestmark = pytest.mark.pipeline
COUNT = 40


@pytest.fixture(scope="module")
def marks():
    """What 40 generated submissions deserve, get from ``course grade``, and from nbgrader's own preprocessors."""
    with Habitat() as ours:
        made = generated(ours.lesson, COUNT)
        with Habitat(PLAIN, built=ours.root) as theirs:
            for habitat in (ours, theirs):
                for student, (notebook, _) in made.items():
                    habitat.submit(student, notebook)
                habitat.release()
            ours.grade(2)
            theirs.autograde()
            return {student: deserved for student, (_, deserved) in made.items()}, ours.marks(), theirs.marks()


def test_our_marks_are_nbgraders(marks):
    """The same notebooks, executed by nbgrader in one kernel each, get the same marks."""
    _, ours, theirs = marks
    assert len(ours) == COUNT
    assert ours == pytest.approx(theirs)


def test_marks_are_what_answers_deserve(marks):
    """The generator knows which answers are right."""
    deserved, ours, _ = marks
    assert ours == pytest.approx(deserved)
    assert len({round(mark, 2) for mark in deserved.values()}) > COUNT / 4
