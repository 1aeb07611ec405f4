"""Fixtures for tests that look at JupyterLab as a person does: `course_folder`, `lab_server`, `page`."""

import shutil

import pytest

from .lab import FLAGS, ROOT, LabPage, LabServer, find_browser


@pytest.fixture(scope="session")
def course_folder(tmp_path_factory):
    """A copy of the lessons that may be written to: source/ and release/ as they are committed."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("source", "release"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    (folder / "release" / "en").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab_server(course_folder, tmp_path_factory):
    """JupyterLab on that copy, running until the last test of this folder is done."""
    with LabServer(course_folder, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
def _chromium():
    # Not for the session: Playwright keeps an event loop running in this thread, where others could start none.
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed (make test installs Debian's)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(_chromium, lab_server):
    """A fresh tab, 1400 by 1000 points."""
    context = _chromium.new_context(viewport={"width": 1400, "height": 1000})
    yield LabPage(context.new_page(), lab_server)
    context.close()
