"""Names in tests: what a test reads and binds, and which names would come from the student's side."""

import pytest

from course.build.names import Names, Origins, bare_truths

TEST = """
import a.b, c as d
from x import y, z as w
async def f(q):
    def g():
        return q + u + len(q)
    return [k for k in r if k + q]
class K(Base):
    field = zz
    def m(self):
        return self.p(vv)
await foo(y)
assert n == (lambda e: e + h)(1)
s = s0
"""
SOURCE = Origins.of(
    ["def double(n):\n    return 2 * n", "LIMIT = 3", "async def wait():\n    pass", "%time 1\nclass Page:\n    pass"],
    [
        "import time\nfrom course.check import counting as check\n%matplotlib inline",
        "predicted = 1",
        "not python at all",
    ],
)


def test_names_are_those_that_python_would_look_up():
    """Arguments and locals are no names of the cell; globals read in functions are."""
    names = Names.of(TEST)
    assert names.read == {"Base", "foo", "h", "len", "n", "r", "s0", "u", "vv", "y", "zz"}
    assert names.bound == {"a", "d", "y", "w", "f", "K", "s"}
    assert names.functions == {"f", "K"}
    assert names.imports == {
        "a": "import a.b",
        "d": "import c as d",
        "y": "from x import y",
        "w": "from x import z as w",
    }


def test_answers_are_told_from_values_and_imports():
    """What def and class bind is called; what is assigned is a value; ordinary cells give imports only."""
    assert SOURCE.answers == {"double", "LIMIT", "wait", "Page"}
    assert SOURCE.functions == {"double", "wait", "Page"}
    assert SOURCE.imports == {"time": "import time", "check": "from course.check import counting as check"}


@pytest.mark.parametrize(
    ("test", "foreign"),
    [
        ("check.double(double)", []),
        ("assert double(LIMIT) == len([1]) * time.time()", []),
        ("from autograder.checks import x as hidden\nhidden.double(double)", []),
        ("assert np.isclose(double(1), 2)", ["np"]),
        ("assert double(predicted) == helper(2)", ["helper", "predicted"]),
        ("def f():\n    return judge(1)\nf()", ["judge"]),
        ("expected = 4\nassert double(2) == expected", []),
    ],
)
def test_judges_from_the_student_s_side_are_found(test, foreign):
    """Only built-ins, own names, the instructor's imports and answers may be named."""
    assert SOURCE.foreign(Names.of(test)) == foreign


def test_what_earlier_tests_bind_may_be_named():
    """Locked cells and tests share one namespace, the judge's."""
    assert SOURCE.foreign(Names.of("assert double(2) == four"), {"four"}) == []


def test_assertions_that_hold_for_anything_are_found():
    """`assert double(2)` accepts any object that is not empty."""
    source = "assert double(2)\nassert double(2) == 4\nassert not double(0)\nassert len([1])"
    assert bare_truths(source, SOURCE.answers) == ["assert double(2)"]
