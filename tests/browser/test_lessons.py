"""Every lesson as a person meets it: opened in JupyterLab, run from top to bottom, validated."""

import pytest

from .lab import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.qemu]

LESSONS = [path.stem for path in sorted(ROOT.glob("source/*/*.ipynb"))]


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_runs_in_the_browser(page, name):
    """All cells run without an exception, something is to be seen, and Validate is content."""
    page.open(f"source/{name}/{name}.ipynb")
    page.run_all()
    assert page.errors() == []
    page.scroll_to(".jp-OutputArea svg, .jp-OutputArea img, .jp-OutputArea .jupyter-widgets")
    page.screenshot(f"{name}-run")
    verdict = page.validate()
    page.screenshot(f"{name}-validated")
    assert "pass" in verdict.lower()


@pytest.mark.parametrize("name", LESSONS)
def test_release_opens_unanswered(page, name):
    """The students' version opens without a complaint and, unanswered, does not validate."""
    page.open(f"release/en/{name}/{name}.ipynb")
    assert page.page.locator(".jp-Notebook h1").first.inner_text().strip() != ""
    verdict = page.validate()
    page.screenshot(f"{name}-unanswered")
    assert "fail" in verdict.lower()
