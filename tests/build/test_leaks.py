"""Nothing that students must not have is in what they get; and a planted leak is found, wherever it hides."""

import json
import zipfile

import pytest

from course.build.layout import Layout
from course.build.leaks import Secrets, normalise, release_leaks

from .conftest import LESSON, ROOT

CHECKS = '''"""Hidden checks of the small course."""


def doubled_in_secret(answer):
    """Compare with addition."""
    for number in (11, -17, 2**61):
        if answer(number) != number + number:
            raise ValueError(f"not the double of {number}")
'''
MUTANTS = """from . import mutant


@mutant("double", "squares-instead")
def squares_its_argument_instead(number):
    squared_number_which_is_wrong = number**2
    return squared_number_which_is_wrong
"""


@pytest.fixture
def course(layout):
    """A course with hidden checks, answers and a public package; nothing built."""
    for folder, name, text in (("checks", "counting", CHECKS), ("answers", "counting", MUTANTS)):
        path = layout.root / "autograder" / folder / f"{name}.py"
        path.parent.mkdir()
        path.write_text(text)
    (layout.root / "course" / "sums.py").write_text("def public_sum(numbers):\n    return sum(numbers)\n")
    return layout


def search(course, folder):
    """What is found in a folder, as text."""
    return "\n".join(map(str, Secrets.of(course).search(folder)))


PLANTS = {  # what is planted: part of the origin that the finding names
    "    secret_doubling_rule = 2": "the solution of cell double in 01-counting",
    "Pairs of the first and the last number all have the same sum.": "the solution of cell explain_total",
    'assert double(-1717171717) == -3434343434, "of negative numbers too"': "the hidden tests of cell correct_double",
    "        if answer(number) != number + number:": "autograder/checks/counting.py",
    "    squared_number_which_is_wrong = number**2": "autograder/answers/counting.py",
    "# squared_number_which_is_wrong  =  number**2": "autograder/answers/counting.py",
}


@pytest.mark.parametrize("secret", PLANTS)
def test_planted_line_is_found_in_a_notebook(course, tmp_path, secret):
    """A line of a solution, hidden test, check or mutant is found in any cell of a notebook."""
    folder = tmp_path / "given"
    folder.mkdir()
    cell = {"cell_type": "code", "source": ["x = 1\n", f"{secret}\n"], "outputs": [], "metadata": {}}
    (folder / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert PLANTS[secret] in search(course, folder)


def test_planted_line_is_found_in_an_output_in_a_text_and_in_a_wheel(course, tmp_path):
    """Outputs, plain files and archives inside archives are all looked into."""
    secret = "squared_number_which_is_wrong = number**2"
    folder = tmp_path / "given"
    folder.mkdir()
    cell = {"cell_type": "code", "source": "", "outputs": [{"text": [f"line\n{secret}"]}]}
    (folder / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    (folder / "b.txt").write_text(f"see: {secret};")
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("deep/c.py", secret)
    with zipfile.ZipFile(folder / "d.whl", "w") as outer:
        outer.write(tmp_path / "inner.zip", "x.zip")
    found = search(course, folder)
    for path in ("a.ipynb", "b.txt", "d.whl!x.zip!deep/c.py"):
        assert f"{path}: leaks" in found


def test_solution_pasted_into_the_public_package_is_found(course, tmp_path):
    """Being in the package does not make a whole function of the autograder public."""
    body = "\n".join(CHECKS.splitlines()[5:])
    (course.root / "course" / "sums.py").write_text(f"def check(answer):\n{body}\n")
    assert "doubled_in_secret" in search(course, course.root / "course")


def test_lines_that_are_public_anyway_are_no_leak(course, tmp_path):
    """A line that the lesson's own prose or the package shows is not a secret."""
    (course.root / "autograder" / "checks" / "more.py").write_text(
        "def public_sum(numbers):\n    return sum(numbers)\n"
    )
    assert search(course, course.root / "course" / "lessons" / "figures") == ""
    assert not [line for line in Secrets.of(course).lines if "public_sum" in line]


def test_authors_files_are_leaks_by_name(course, tmp_path):
    """A lesson text or an autograder file is a leak whatever it holds."""
    folder = tmp_path / "given"
    (folder / "course" / "lessons").mkdir(parents=True)
    (folder / "course" / "lessons" / "x.md").write_text("")
    (folder / "gradebook.db").write_bytes(b"")
    found = search(course, folder)
    assert "course/lessons/x.md: leaks" in found
    assert "gradebook.db: leaks" in found


def test_marker_left_in_a_release_is_a_leak(course):
    """A region that nbgrader did not recognise leaves its marker behind."""
    path = course.release_notebook(LESSON)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": [{"source": "### BEGIN SOLUTION"}]}))
    assert "nbgrader's markers" in "\n".join(map(str, release_leaks(course)))


def test_normalising_ignores_what_an_editor_changes():
    """Indentation, spaces, comment marks and empty lines do not hide a secret."""
    assert normalise("  # a   =  1\n\n\t> b") == "a = 1\nb"


@pytest.mark.skipif(not (ROOT / "release" / "en").is_dir(), reason="there is no release yet")
def test_real_releases_leak_nothing():
    """No solution, hidden test, check or mutant of the course is anywhere in release/."""
    secrets = Secrets.of(Layout(ROOT))
    assert len(secrets.lines) > 100
    assert release_leaks(Layout(ROOT)) == []


@pytest.mark.skipif(not (ROOT / "release" / "en").is_dir(), reason="there is no release yet")
def test_real_secrets_are_found_when_planted(tmp_path):
    """Every hundredth secret of the real course, put into a copy of a real release, is found."""
    layout = Layout(ROOT)
    secrets = Secrets.of(layout)
    lesson = layout.all_lessons()[0]
    planted = sorted(secrets.lines)[::100]
    for number, line in enumerate(planted):
        path = tmp_path / "given" / f"{number}.ipynb"
        path.parent.mkdir(exist_ok=True)
        notebook = json.loads(layout.release_notebook(lesson).read_text())
        notebook["cells"][number % len(notebook["cells"])]["source"].append(f"\n    {line}")
        path.write_text(json.dumps(notebook))
    found = {leak.path for leak in secrets.search(tmp_path / "given")}
    assert found == {f"{number}.ipynb" for number in range(len(planted))}
