"""The zoo, graded as an instructor grades: everybody gets what their answers deserve, and nobody is harmed."""

import pytest

from autograder.zoo import LESSON, Habitat, Kind, specimens
from autograder.zoo.habitat import IMPATIENT

pytestmark = pytest.mark.pipeline


def boxes():
    """Whether this machine can shut hostile code in."""
    from autograder.sandbox import Isolation, probe

    return probe().level in (Isolation.NAMESPACES, Isolation.BUBBLEWRAP)


BOXES = boxes()
SHOWN = [one for one in specimens() if BOXES or not one.box]
QUICK = [one for one in SHOWN if not one.slow][::2]
"""Every second one, which is a hundred; ``python -m tests.bench.grading`` shows all."""
SLOW = [
    one for one in SHOWN if one.name in ("endless-answer", "endless-cell", "uninterruptible-cell", "bad-signatures")
]
"""Of those that use up budgets; ``python -m tests.bench.grading`` shows all."""
CONFIGURATION = "" if BOXES else "\nc.SplitExecute.sandbox = 'none'\n"


class Graded:
    """What came of a batch."""

    def __init__(self, habitat):
        habitat.feedback()
        self.marks = habitat.marks()
        self.harm = habitat.harm()
        self.said = habitat.said


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A habitat whose lesson the others take over."""
    with Habitat() as habitat:
        yield habitat.root


@pytest.fixture(scope="module")
def by_us(built):
    """All that ends soon, graded by ``course grade -j 2``."""
    with Habitat(CONFIGURATION, built=built) as habitat:
        habitat.hand_in(QUICK)
        habitat.release()
        habitat.grade(2, check=False)
        yield Graded(habitat)


@pytest.fixture(scope="module")
def by_nbgrader(built):
    """A part of it, graded by plain ``nbgrader autograde`` with our configuration."""
    with Habitat(CONFIGURATION, built=built) as habitat:
        habitat.hand_in(plainly_graded())
        habitat.release()
        habitat.autograde(check=False)
        yield Graded(habitat)


@pytest.fixture(scope="module")
def impatiently(built):
    """What uses up budgets, graded with small ones."""
    with Habitat(CONFIGURATION + IMPATIENT, built=built) as habitat:
        habitat.hand_in(SLOW)
        habitat.release()
        habitat.grade(4, check=False)
        yield Graded(habitat)


def plainly_graded():
    """Every sixth of them: nbgrader has one worker."""
    return QUICK[::6]


def fair(specimen, marks):
    """Whether a submission got what it deserves."""
    got = marks.get(specimen.whose)
    if not specimen.graded:
        return got is None
    return got is not None and (specimen.marks is None or got == pytest.approx(specimen.marks, abs=0.01))


@pytest.mark.parametrize("specimen", QUICK, ids=lambda one: one.name)
def test_submission_gets_what_it_deserves(by_us, specimen):
    """Neither tricks nor accidents decide on marks; and everybody has marks."""
    assert fair(specimen, by_us.marks), f"{specimen}: {by_us.marks.get(specimen.whose)} instead of {specimen.marks}"


@pytest.mark.parametrize("specimen", plainly_graded(), ids=lambda one: one.name)
def test_plain_nbgrader_gives_the_same_marks(by_nbgrader, by_us, specimen):
    """With our configuration, nbgrader's own command comes to the same marks as ``course grade``."""
    assert fair(specimen, by_nbgrader.marks), f"{specimen}: {by_nbgrader.marks.get(specimen.whose)}"
    if specimen.marks is not None and specimen.graded:
        assert by_nbgrader.marks[specimen.whose] == pytest.approx(by_us.marks[specimen.whose])


@pytest.mark.parametrize("specimen", SLOW, ids=lambda one: one.name)
def test_submission_that_uses_up_budgets_gets_what_is_left(impatiently, specimen):
    """Only what used up a budget costs marks."""
    assert fair(specimen, impatiently.marks), f"{specimen}: {impatiently.marks.get(specimen.whose)}"


@pytest.mark.parametrize("batch", ["by_us", "by_nbgrader", "impatiently"])
def test_nobody_is_harmed(batch, request):
    """No file, process, connection, secret or hidden test of others was touched; another student's marks stand."""
    graded = request.getfixturevalue(batch)
    assert graded.harm == []
    assert graded.marks["ada"] == 12


def test_zoo_has_all_kinds():
    """At least eighty submissions, of every kind, each under its own name, with a sentence."""
    every = specimens()
    assert len(every) >= 80
    assert {one.kind for one in every} == set(Kind)
    assert len({one.name for one in every}) == len(every)
    assert all(one.tries.endswith(".") for one in every)
    assert all(f"{LESSON}" != one.whose for one in every)
