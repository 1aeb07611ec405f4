"""The datacenter view as a person uses it, with a stand-in for the cluster: tree, buttons, forms, log, refusals."""

import pytest
from nbformat.v4 import new_code_cell

from .lab import LabPage
from .test_lab import write

pytestmark = pytest.mark.browser

STAND = """
from contextlib import ExitStack
from course.widgets.datacenter import Datacenter
from tests.widgets.pve import standing
kept = ExitStack()
stand, api = kept.enter_context(standing())
stand.refuse = (500, "VM 169 not running", None)
Datacenter(api, interval_s=0.1)
"""


@pytest.fixture
def view(_chromium, lab_server, course_folder):
    """A notebook with the view in it; nothing may complain."""
    write(course_folder / "scratch" / "datacenter.ipynb", new_code_cell(STAND.strip(), id="datacenter"))
    context = _chromium.new_context(viewport={"width": 1400, "height": 1000})
    lab = LabPage(context.new_page(), lab_server)
    lab.open("scratch/datacenter.ipynb")
    lab.run_all()
    assert lab.errors() == []
    found = lab.page.locator(".course-datacenter")
    found.scroll_into_view_if_needed()
    yield lab, found
    assert lab.page.locator(".jp-Cell").count() == 1
    assert lab.complaints == []
    context.close()


def test_a_guest_is_found_and_driven_by_keys_and_buttons(view):
    """Arrows walk the tree; Start is refused, then works; the log grows; a form migrates."""
    lab, found = view
    status, tree = found.locator("p[role=status]"), found.get_by_role("tree")
    assert tree.get_by_role("treeitem").count() == 6
    tree.get_by_role("treeitem").first.press("ArrowDown")
    tree.locator("[aria-selected=true]").get_by_text("michael").wait_for()
    tree.locator("[aria-selected=true]").press("ArrowDown")
    found.get_by_role("heading", name="169 (vm169)").wait_for()
    found.get_by_role("rowheader", name="status").wait_for()
    found.get_by_role("button", name="Start").click()
    status.get_by_text("✗ 500 VM 169 not running").wait_for()
    found.get_by_role("button", name="Start").click()
    found.get_by_label("Task log").get_by_text("starting").wait_for()
    tree.get_by_text("169 (vm169): running").wait_for()
    lab.screenshot("datacenter")
    found.get_by_role("button", name="Hardware").click()
    found.get_by_role("cell", name="virtio=BC:24:11:00:00:01").wait_for()
    found.get_by_role("button", name="Snapshots").click()
    found.get_by_role("button", name="Roll back to before").wait_for()
    found.get_by_role("button", name="Migrate").click()
    form = found.get_by_role("form", name="Migrate now")
    form.get_by_role("combobox").locator("option").get_by_text("trevor").wait_for(state="attached")
    lab.screenshot("datacenter-form")
    form.get_by_role("button", name="Migrate now").click()
    status.get_by_text("migrate: the cluster has accepted it as a task").or_(status.get_by_text("running")).wait_for()


def test_nothing_is_for_the_mouse_alone(view):
    """Every control has a name and is reached by Tab; the tree is one stop."""
    _, found = view
    unnamed = found.evaluate(
        """view => [...view.querySelectorAll('button, input, select')].filter(e =>
            !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim())).length"""
    )
    assert unnamed == 0
    assert found.locator("[role=treeitem][tabindex='0']").count() == 1
