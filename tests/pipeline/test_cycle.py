"""From release to feedback with plain nbgrader commands: every submission gets the marks that it deserves."""

import html
import json
import re
import shutil
import subprocess
import sys

import pytest

from course.build.layout import Layout
from course.build.pipeline import build
from tests.build.conftest import LESSON, ROOT, small_course

from .conftest import Course
from .submissions import BROKEN, Submissions, broken

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The small course after `generate_assignment`, `autograde` and `generate_feedback` of many submissions."""
    layout = small_course(tmp_path_factory.mktemp("cycle") / "course")
    assert build(layout, [LESSON]).errors == []
    course = Course(layout.root)
    course.nbgrader("generate_assignment", LESSON, "--force")
    made = Submissions(layout.source_notebook(LESSON), layout.release_notebook(LESSON))
    for student, text in special(made).items():
        course.submit(student, LESSON, text)
    for student, (text, _) in broken(made).items():
        course.submit(student, LESSON, text)
    course.said = course.nbgrader("autograde", LESSON).stderr
    course.nbgrader("generate_feedback", LESSON)
    course.found = course.marks()
    course.made = made
    return course


def special(made):
    """Sound submissions, and one that only the hidden checks reject."""
    nearly = made.perfect()
    cell = next(cell for cell in nearly["cells"] if cell["id"] == "total")
    cell["source"] = "def total(last: int) -> int:\n    return 6 if last else 7\n"
    return {
        "perfect": json.dumps(made.perfect()),
        "untouched": json.dumps(made.untouched()),
        "half": json.dumps(made.with_answers(made.first_half())),
        "nearly": json.dumps(nearly),
    }


def test_every_broken_submission_is_looked_at(graded):
    """The list of names is that of the submissions."""
    assert tuple(broken(graded.made)) == BROKEN


def test_perfect_submission_gets_full_marks(graded):
    """The lesson's own answers are right."""
    assert graded.found["perfect"] == graded.made.full_marks == 5


def test_untouched_release_gets_nothing(graded):
    """No check can be passed without an answer."""
    assert graded.found["untouched"] == 0


def test_half_of_the_answers_get_their_marks(graded):
    """Each test counts for itself."""
    assert graded.found["half"] == graded.made.marks_of(["double"]) == 2


def test_hidden_check_takes_the_points(graded):
    """An answer made for the visible check fails the hidden one."""
    assert graded.found["nearly"] == 2


@pytest.mark.parametrize("name", BROKEN)
def test_broken_submission_gets_what_its_answers_deserve(graded, name):
    """Neither a student's accident nor a trick with cells decides on the marks."""
    assert graded.found[name] == broken(graded.made)[name][1]


@pytest.mark.parametrize("name", ["truncated", "empty", "no-notebook", "cells-of-no-kind", "newer-format"])
def test_unreadable_file_is_reported_to_both(graded, name):
    """The instructor's log and the student's page say that the file could not be read, and why."""
    assert re.search(rf"{name}, {LESSON}/{LESSON}: cannot be read \(\w+: .+\); graded as not answered", graded.said)
    assert "is not a readable notebook" in html.unescape(graded.feedback(name, LESSON))


def test_end_of_the_kernel_is_reported_to_both(graded):
    """An answer that ends the kernel has a page, which says so, like the instructor's log."""
    last = graded.made.ids("answer")[-1]
    assert f"kernel-ended, {LESSON}/{LESSON}: cell {last} ended the kernel" in graded.said
    assert "ended the Python process that ran the notebook" in html.unescape(graded.feedback("kernel-ended", LESSON))


def test_repairs_are_reported_to_both(graded):
    """What was mended is said in the log and on the page."""
    assert (
        "copied-answer, 01-counting/01-counting: double: 2 copies; the last one that was edited counts" in graded.said
    )
    assert "correct_double: missing; put back" in graded.feedback("deleted-test", LESSON)


def test_sound_submission_is_not_repaired(graded):
    """Nothing is said of what needs no mending."""
    for student in ("perfect", "untouched", "half", "nearly"):
        assert f"{student}, {LESSON}" not in graded.said
        assert "Note of the grader" not in graded.feedback(student, LESSON)


def visible_text(page):
    """A page's text without its markup and style."""
    page = re.sub(r"<style.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page)))


@pytest.mark.parametrize("student", ["perfect", "untouched", "nearly", "copied-answer", "truncated"])
def test_feedback_shows_no_hidden_test(graded, student):
    """The page says that hidden checks ran, never how they test; that also holds for tracebacks."""
    text = visible_text(graded.feedback(student, LESSON))
    assert "(hidden checks ran here)" in text
    for secret in ("1717171717", "3434343434", "trial.equal", "_no_numbers", "HIDDEN TESTS"):
        assert secret not in text


def test_feedback_shows_what_the_hidden_check_said(graded):
    """The verdict, made from observed values, reaches the student."""
    text = visible_text(graded.feedback("nearly", LESSON))
    assert "✘ wrong · total · hidden checks 0 of 1" in text
    assert "expected: 0 obtained: 7" in text


def test_feedback_carries_no_script_of_a_student(graded):
    """HTML of a student's output or text is shown, never run; headings and tables stay."""
    course = Course(graded.root)
    evil = graded.made.perfect()
    code = "from IPython.display import HTML\nHTML('<script>steal()</script><b onclick=\"steal()\">x</b>')"
    evil["cells"].append(
        {"cell_type": "code", "id": "evil", "metadata": {}, "source": code, "outputs": [], "execution_count": 1}
    )
    evil["cells"].append({"cell_type": "markdown", "id": "evil2", "metadata": {}, "source": "<script>steal()</script>"})
    course.submit("evil", LESSON, json.dumps(evil))
    course.nbgrader("autograde", LESSON, "--student=evil")
    course.nbgrader("generate_feedback", LESSON, "--student=evil")
    page = course.feedback("evil", LESSON)
    assert "<script>steal" not in page
    assert not re.search(r"<[^>]*steal", page)
    assert "<h2>kept" in page or "<h2 id" in page


def test_validate_says_what_the_checks_say(graded):
    """The Validate button's engine accepts the source and rejects the release."""
    assert "Success!" in graded.nbgrader("validate", f"source/{LESSON}/{LESSON}.ipynb").stdout
    done = graded.nbgrader("validate", f"release/en/{LESSON}/{LESSON}.ipynb", check=False)
    assert "VALIDATION FAILED ON 3 CELL(S)" in done.stdout


def test_formgrader_api_sees_the_same(graded):
    """What formgrader's pages are made of: the assignment, its marks and the written answers to grade."""
    code = (
        "import json\n"
        "from nbgrader.apps import NbGrader\n"
        "from nbgrader.apps.api import NbGraderAPI\n"
        "app = NbGrader(); app.initialize([])\n"
        f"api = NbGraderAPI(app.coursedir, parent=app); a = api.get_assignment('{LESSON}')\n"
        "print(json.dumps([a['status'], a['max_score'], a['num_submissions'] > 10]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=graded.root, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == ["draft", 9.0, True]


def test_exchange_from_release_to_collect(tmp_path):
    """With an exchange: release, fetch, submit, collect and grade, as the manual says."""
    layout = small_course(tmp_path / "course")
    assert build(layout, [LESSON]).errors == []
    course = Course(layout.root)
    (layout.root / "exchange").mkdir(mode=0o777)
    (layout.root / "exchange").chmod(0o777)
    course.nbgrader("generate_assignment", LESSON, "--force")
    course.nbgrader("release_assignment", LESSON)
    student = tmp_path / "student"
    student.mkdir()
    options = ("--course", "virtualization", f"--Exchange.root={layout.root / 'exchange'}")
    course.nbgrader("fetch_assignment", LESSON, *options, cwd=student)
    notebook = student / LESSON / f"{LESSON}.ipynb"
    assert notebook.read_bytes() == layout.release_notebook(LESSON).read_bytes()
    made = Submissions(layout.source_notebook(LESSON), layout.release_notebook(LESSON))
    notebook.write_text(json.dumps(made.perfect()))
    course.nbgrader("submit", LESSON, *options, cwd=student)
    course.nbgrader("collect", LESSON)
    course.nbgrader("autograde", LESSON)
    assert list(course.marks().values()) == [made.full_marks]


def errors_of(course, student, lesson):
    """Names of the exceptions that a graded notebook shows, those that the lesson raises on purpose left out."""
    folder = course.root / "autograder" / "work" / "autograded" / student / lesson
    on_purpose = {
        cell["id"]
        for cell in json.loads(REAL.source_notebook(lesson).read_text())["cells"]
        if "raises-exception" in cell["metadata"].get("tags", [])
    }
    return {
        output["ename"]
        for cell in json.loads((folder / f"{lesson}.ipynb").read_text())["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "error" and cell["id"] not in on_purpose
    }


REAL = Layout(ROOT)


@pytest.mark.qemu
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lesson", [name for name in REAL.all_lessons() if REAL.source_notebook(name).exists()])
def test_real_lesson_marks(lesson, tmp_path):
    """A real lesson: its own answers get full marks, none nothing, half of them exactly theirs."""
    for name in ("source", "release/en"):
        shutil.copytree(ROOT / name / lesson, tmp_path / name / lesson)
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / "autograder").mkdir()
    course = Course(tmp_path)
    course.nbgrader("generate_assignment", lesson, "--force")
    made = Submissions(REAL.source_notebook(lesson), REAL.release_notebook(lesson))
    assert course.root.joinpath("release", "en", lesson, f"{lesson}.ipynb").read_bytes() == (
        REAL.release_notebook(lesson).read_bytes()
    )
    course.submit("perfect", lesson, json.dumps(made.perfect()))
    course.submit("untouched", lesson, json.dumps(made.untouched()))
    course.submit("half", lesson, json.dumps(made.with_answers(made.first_half())))
    course.nbgrader("autograde", lesson)
    assert errors_of(course, "untouched", lesson) <= {"NotImplementedError", "CheckFailed", "NameError"}
    expected = {"perfect": made.full_marks, "untouched": 0.0, "half": made.marks_of(made.first_half())}
    assert course.marks() == expected
