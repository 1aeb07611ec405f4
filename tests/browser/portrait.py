"""``python -m tests.browser.portrait LESSON HEADING``: take the README's picture, course/figures/notebook.png.

Runs the lesson in JupyterLab and shows it from the heading (a part of its text) on. Needs what the browser tests need.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from .lab import FLAGS, ROOT, LabPage, LabServer, find_browser

PICTURE = ROOT / "course" / "figures" / "notebook.png"


def main(lesson: str, heading: str) -> None:
    """Run the lesson and keep the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root, home = Path(folder) / "course", Path(folder) / "home"
        home.mkdir()
        shutil.copytree(ROOT / "source", root / "source")
        (root / "release" / "en").mkdir(parents=True)
        with LabServer(root, home) as server:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
            page = LabPage(browser.new_page(viewport={"width": 1200, "height": 1060}), server)
            page.open(f"source/{lesson}/{lesson}.ipynb")
            page.run_all()
            page.page.evaluate("() => { window.jupyterapp.commands.execute('application:toggle-left-area') }")
            title = page.page.locator(".jp-Notebook :is(h2, h3)").filter(has_text=heading).first
            title.evaluate("heading => heading.scrollIntoView({block: 'start'})")
            page.page.wait_for_timeout(1000)  # the layout settles: nothing announces that
            PICTURE.parent.mkdir(exist_ok=True)
            page.page.screenshot(path=PICTURE)
            browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
