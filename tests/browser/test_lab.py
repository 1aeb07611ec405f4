"""JupyterLab as `course lab` starts it: the lessons in order, a working kernel, widgets, pictures, Validate."""

import urllib.request

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .lab import TOKEN

pytestmark = pytest.mark.browser


def graded(source, name, *, test):
    """Make a cell that nbgrader knows: an answer, or a test worth a point."""
    metadata = {
        "schema_version": 3,
        "grade_id": name,
        "grade": test,
        "solution": not test,
        "locked": test,
        "task": False,
    }
    if test:
        metadata["points"] = 1
    return new_code_cell(source, id=name, metadata={"nbgrader": metadata})


def write(path, *cells):
    """Write a notebook for the course's kernel."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells), metadata={"kernelspec": kernel}), path)


@pytest.fixture
def scratch(course_folder):
    """A notebook with a widget, a picture, an answer and its test."""
    path = course_folder / "scratch" / "scratch.ipynb"
    write(
        path,
        new_code_cell("import ipywidgets\nipywidgets.IntSlider(value=42, description='vCPUs')", id="widget"),
        new_code_cell("from course.capability import probe\nprobe()", id="badge"),
        graded("def double(x):\n    return x + x", "double", test=False),
        graded("assert double(21) == 42", "correct_double", test=True),
    )
    return "scratch/scratch.ipynb"


def test_lab_opens_on_the_lessons(page, course_folder):
    """Without being told where, JupyterLab shows the lessons' folder."""
    (course_folder / "release" / "en" / "98-a-lesson").mkdir(parents=True, exist_ok=True)
    (course_folder / "release" / "en" / "99-another-lesson").mkdir(exist_ok=True)
    with urllib.request.urlopen(f"{page.server.address}/?token={TOKEN}", timeout=10) as answer:
        assert answer.url.partition("?")[0].endswith("/lab/tree/release/en")
    page.open("release/en")
    names = page.page.locator(".jp-DirListing-itemName")
    names.filter(has_text="99-another-lesson").wait_for()
    listed = [name.strip() for name in names.all_inner_texts()]
    assert listed == sorted(path.name for path in (course_folder / "release" / "en").iterdir())


def test_a_notebook_runs_and_validates(page, scratch):
    """Run all cells, see a widget and the badge, press Validate: it passes."""
    page.open(scratch)
    page.run_all()
    assert page.errors() == []
    page.page.wait_for_selector(".jp-OutputArea .jupyter-widgets")
    badge = page.scroll_to(".jp-OutputArea svg[role=img]")
    assert badge.get_attribute("aria-label").startswith("T0 pure Python: yes")
    page.screenshot("lab-scratch")
    assert "pass" in page.validate().lower()
    page.screenshot("lab-scratch-validated")


def test_validate_finds_a_wrong_answer(page, course_folder):
    """The Validate button says which test fails."""
    write(
        course_folder / "scratch" / "wrong.ipynb",
        graded("def double(x):\n    return x * x", "double", test=False),
        graded("assert double(21) == 42", "correct_double", test=True),
    )
    page.open("scratch/wrong.ipynb")
    assert "fail" in page.validate().lower()


def test_the_browser_asks_nobody_else(page, scratch):
    """Everything comes from this machine: no fonts, news or updates from elsewhere."""
    hosts = set()
    page.page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.open(scratch)
    assert {host for host in hosts if host} == {f"127.0.0.1:{page.server.port}"}
