"""Formgrader as an instructor opens it: the lessons, the marks, a submission to look into."""

import shutil

import pytest

from tests.pipeline.conftest import Course

from .lab import TOKEN

pytestmark = [pytest.mark.browser, pytest.mark.pipeline, pytest.mark.qemu]

LESSON = "00-passport"


@pytest.fixture(scope="module")
def graded(course_folder):
    """The course's folder after the untouched release of a lesson was handed in by ada, and graded."""
    (course_folder / "autograder").mkdir(exist_ok=True)
    course = Course(course_folder)
    course.nbgrader("generate_assignment", LESSON, "--force")
    course.submit("ada", LESSON, (course_folder / "release" / "en" / LESSON / f"{LESSON}.ipynb").read_text())
    course.nbgrader("autograde", LESSON)
    yield course
    shutil.rmtree(course_folder / "autograder")


def open_formgrader(page, path):
    """Log in as `make lab` does, open one of formgrader's pages and wait until its table is filled."""
    page.page.goto(f"{page.server.address}/lab?token={TOKEN}")
    page.page.goto(f"{page.server.address}/formgrader/{path}")
    page.page.wait_for_selector("tbody tr")
    page.page.wait_for_function("() => !/Loading/.test(document.querySelector('tbody').innerText)")
    return page.page.inner_text("tbody")


def test_formgrader_lists_the_lessons(page, graded):
    """Each lesson of source/ is an assignment; the graded one counts its submission."""
    shown = open_formgrader(page, "manage_assignments")
    lessons = sorted(folder.name for folder in (graded.root / "source").iterdir())
    assert [name for name in lessons if name not in shown] == []
    page.screenshot("formgrader-assignments")


def test_formgrader_shows_marks_and_the_submission(page, graded):
    """An untouched release has its zero marks, and its page opens with the verdict of the check."""
    shown = open_formgrader(page, f"manage_submissions/{LESSON}")
    assert "ada" in shown
    assert "graded" in shown
    page.screenshot("formgrader-submissions")
    open_formgrader(page, f"gradebook/{LESSON}/{LESSON}")
    page.page.locator("tbody a", has_text="Submission").first.click()
    page.page.get_by_text("not answered yet").first.wait_for()
    page.screenshot("formgrader-submission")
