"""The course's views as a person uses them: buttons, keys, and words for those who do not see them."""

import pytest
from nbformat.v4 import new_code_cell

from .test_lab import write

pytestmark = pytest.mark.browser

EXITS = """
from course.widgets.timeline import Timeline
exits = [{"reason": "Io", "rip": 0x100006 + n, "detail": f"out 0xe9, {n}", "guest_s": 2e-6 * (n + 1), "vmm_s": 3e-5}
         for n in range(40)]
Timeline.of_exits(exits + [{"reason": "Hlt", "guest_s": 1e-3, "vmm_s": 0.0}], title="A guest that talks")
"""


def show(page, course_folder, name, source):
    """Run one cell that shows a view; returns its frame, its live region and its class."""
    write(course_folder / "scratch" / f"{name}.ipynb", new_code_cell(source.strip(), id=name))
    page.open(f"scratch/{name}.ipynb")
    page.run_all()
    assert page.errors() == []
    view = page.scroll_to(f".course-{name}")
    return view, view.get_by_role("group").first, view.locator("[role=status]")


def test_the_timeline_goes_from_exit_to_exit(page, course_folder):
    """Arrows, Home and End select; plus zooms; t shows times to scale; the tables follow."""
    view, frame, status = show(page, course_folder, "timeline", EXITS)
    status.get_by_text("Exit 1 of 41: Io (at 0x100006, out 0xe9, 0). The guest ran 2 µs, then waited 30 µs.").wait_for()
    frame.press("ArrowRight")
    frame.press("n")
    status.get_by_text("Exit 3 of 41: Io").wait_for()
    assert view.locator(".event.selected").count() == 2
    assert view.locator(".lanes").get_attribute("aria-label") == "Lanes guest, VMM, from exit 1 to exit 24"
    frame.press("+")
    assert view.locator(".lanes").get_attribute("aria-label") == "Lanes guest, VMM, from exit 1 to exit 12"
    page.screenshot("timeline")
    frame.press("End")
    status.get_by_text("Exit 41 of 41: Hlt. The guest ran 1 ms, then waited 0 ns.").wait_for()
    frame.press("t")
    view.get_by_role("button", name="Show times to scale").and_(view.locator("[aria-pressed=true]")).wait_for()
    assert view.locator("tr[aria-current=true] th").inner_text() == "▶ Hlt"
    page.screenshot("timeline-times")
    view.get_by_role("button", name="One exit back").click()
    status.get_by_text("Exit 40 of 41").wait_for()
    frame.press("Home")
    status.get_by_text("Exit 1 of 41").wait_for()
    assert page.page.locator(".jp-Cell").count() == 1  # the keys were not JupyterLab's
    assert page.complaints == []
