"""The instructor's report says what the gradebook and the graded notebooks say."""

import csv
import html.parser

import pytest

from autograder import report
from autograder.report import pages, tables
from autograder.report.items import discrimination
from autograder.report.records import MANUAL, ReportError

from .conftest import CLASS, LESSON


@pytest.fixture
def lesson(course):
    """The lesson's record."""
    [lesson] = report.read(*course)
    return lesson


def test_marks_states_and_mistakes_are_read(lesson):
    """Each student has the gradebook's marks with the verdict's reason."""
    assert lesson.max_score == 6
    assert lesson.missing == ("eve",)
    assert [one.student for one in lesson.submissions] == list(CLASS)
    bob = lesson.submissions[1]
    assert bob.marks["step_correct"].state == "correct"
    assert (bob.marks["uart_correct"].misconception, bob.marks["uart_correct"].points) == ("x0-writable", 0)
    assert bob.sandbox == "namespaces"
    assert bob.seconds == 4


def test_items_come_in_the_notebook_s_order(lesson):
    """The order is that of the lesson, not of the alphabet."""
    assert [item.cell for item in lesson.items] == ["step_correct", "uart_correct", "explain"]


def test_late_submission_loses_its_penalty(lesson):
    """The penalty that nbgrader gave is taken off once."""
    dee = lesson.submissions[3]
    assert (dee.score, dee.penalty, dee.total, dee.late_s) == (1.0, 0.5, 0.5, 7200)


def test_cell_for_a_person_waits(lesson):
    """A cell that nobody has graded has no marks yet, and is in no mean."""
    assert lesson.submissions[0].marks["explain"].points is None
    assert lesson.submissions[0].marks["explain"].state == MANUAL
    assert report.measure(lesson).items[2].share is None


def test_figures_are_those_worked_out_by_hand(lesson):
    """Mean, median, shares, and the correlation with the rest of the marks."""
    figures = report.measure(lesson)
    assert figures.mean == pytest.approx((4 + 3 + 0 + 0.5) / 4)
    assert figures.median == pytest.approx(1.75)
    step, uart, _ = figures.items
    assert step.share == pytest.approx(0.5)
    assert uart.share == pytest.approx(0.5)
    assert step.discrimination == pytest.approx(0.0)
    assert step.misconceptions == {"x0-writable": 2}
    assert sum(figures.histogram) == 4
    assert figures.histogram[0] == 2


def test_discrimination_tells_students_apart():
    """1 when those with the item are those with the rest, -1 the other way round, None without variation."""
    assert discrimination([0, 0, 1, 1], [1, 1, 5, 5]) == pytest.approx(1)
    assert discrimination([1, 1, 0, 0], [1, 1, 5, 5]) == pytest.approx(-1)
    assert discrimination([1, 1, 1], [1, 2, 3]) is None
    assert discrimination([0, 1], [0, 1]) is None


class Page(html.parser.HTMLParser):
    """Collects a page's words and counts its tags."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Count a tag."""
        self.tags.append(tag)

    def handle_data(self, data):
        """Keep the words."""
        self.words.append(data)


def test_pages_show_marks_mistakes_and_plots(lesson, tmp_path):
    """The lesson's page has a row for each student and the messages, as text and not as markup."""
    lesson_page, index = pages.write([report.measure(lesson)], tmp_path / "pages")
    page = Page(lesson_page.read_text())
    text = " ".join(page.words)
    assert all(student in text for student in CLASS)
    assert "step obtained <b>7</b>" in text
    assert "<b>7</b>" not in lesson_page.read_text(), "a message must not become markup"
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags
    assert "http" not in lesson_page.read_text().replace("http://www.w3.org", ""), "nothing is loaded"
    assert f'href="{LESSON}.html"' in index.read_text()
    assert "eve" in index.read_text()


def test_tables_open_in_a_spreadsheet(lesson, tmp_path):
    """A row for each student with numbers as numbers; a name cannot become a formula."""
    files = tables.write([report.measure(lesson)], tmp_path)
    assert [file.name for file in files] == [f"{LESSON}-students.csv", f"{LESSON}-exercises.csv", "class.csv"]
    students = list(csv.DictReader(files[0].read_text().splitlines()))
    assert {row["student"]: float(row["score"]) for row in students[:4]} == {"ada": 4, "bob": 3, "cyd": 0, "dee": 0.5}
    assert students[4]["student"] == "eve"
    assert students[4]["score"] == ""
    exercises = {row["cell"]: row for row in csv.DictReader(files[1].read_text().splitlines())}
    assert exercises["uart_correct"]["misconceptions"] == "x0-writable: 2"
    assert tables.safe("=cmd()") == "'=cmd()"
    assert tables.safe("ada") == "ada"


def test_missing_gradebook_is_named(tmp_path):
    """Nothing is made by asking for a report; the message says what to run."""
    with pytest.raises(ReportError, match="course grade"):
        report.read(f"sqlite:///{tmp_path}/none.db", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_lesson_is_named(course):
    """The message lists the lessons that there are."""
    with pytest.raises(ReportError, match=r"'13-x'.*it has 05-emulation"):
        report.read(*course, ["13-x"])


def test_notebook_that_cannot_be_read_costs_its_reasons_only(course):
    """The marks come from the gradebook."""
    _, graded = course
    (graded / "ada" / LESSON / f"{LESSON}.ipynb").write_text("{")
    [lesson] = report.read(*course)
    assert lesson.submissions[0].score == 4
    assert lesson.submissions[0].marks["step_correct"].state == "no verdict"
