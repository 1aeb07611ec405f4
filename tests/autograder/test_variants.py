"""Each student gets their own inputs, and every one of them is fair."""

import functools

import pytest

from autograder import variants
from course.check import Exercise, State
from course.check.exercise import variant

from .test_answers import ALTERNATIVES, EXERCISES, checks, namespace, solutions

STUDENTS = ("ada", "bob", "cyd")


VARYING = [names for names in EXERCISES if checks(*names)[1].varies]


def test_seed_depends_on_secret_student_and_lesson():
    """The same for the same three, another for any other; none without a secret."""
    base = variants.seed("secret", "ada", "02-isa")
    assert base == variants.seed("secret", "ada", "02-isa")
    others = {
        variants.seed("other", "ada", "02-isa"),
        variants.seed("secret", "bob", "02-isa"),
        variants.seed("secret", "ada", "05-emulation"),
        variants.seed("secret", "ada0", "2-isa"),
    }
    assert len(others) == 4
    assert base not in others
    assert variants.seed("", "ada", "02-isa") is None


def test_only_exercises_that_vary_take_the_students_seed():
    """The others get the same inputs in every variant."""
    seen = []
    for varies in (True, False):
        exercise = Exercise("double", hidden=True, varies=varies, seed=7)

        @exercise.step("its input is noted")
        def _(trial):
            seen.append(trial.seed)

        with variant(42):
            exercise(abs)
        exercise(abs)
    assert seen == [42, 7, 7, 7]


def test_many_exercises_vary():
    """Half of the lessons' checks are made of inputs that a seed may choose."""
    assert len(VARYING) >= 12


@functools.cache
def right_answers(lesson, exercise):
    """All answers to an exercise that are right."""
    mine = [namespace(lesson)[name] for where, what, name in solutions() if (where, what) == (lesson, exercise)]
    return mine + [a.function for a in ALTERNATIVES if (a.lesson, a.exercise) == (lesson, exercise)]


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize(("lesson", "exercise"), VARYING)
def test_every_variant_accepts_right_answers(lesson, exercise, student):
    """No student's inputs are unfair: every right answer is accepted on them."""
    _, hidden = checks(lesson, exercise)
    seed = variants.seed("a secret", student, lesson)
    for answer in right_answers(lesson, exercise):
        got = hidden.examine(answer, seed=seed)
        assert got.state is State.CORRECT, f"{answer.__name__} was told:\n{got}"
