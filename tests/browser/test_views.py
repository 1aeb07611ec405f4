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

INTERPRETER = """
from course.isa import rv32
from course.widgets.interpreter import Interpreter
def step(state):
    after = rv32.step(state)
    if after["regs"][5] == 1:
        after["regs"][6] += 4
    if after["pc"] == 0x14:
        raise ValueError("ebreak is missing")
    return after
program = ["addi x5, x0, 2", "lui x6, 1", "loop: sw x5, 0x100(x6)", "addi x5, x5, -1", "bne x5, x0, loop", "ebreak"]
Interpreter(step, "\\n".join(program), compare=True)
"""


def show(page, course_folder, name, source, css=None):
    """Run one cell that shows a view; returns the view, its frame and its live region."""
    write(course_folder / "scratch" / f"{name}.ipynb", new_code_cell(source.strip(), id=name))
    page.open(f"scratch/{name}.ipynb")
    page.run_all()
    assert page.errors() == []
    view = page.scroll_to(f".course-{css or name}")
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


def test_the_interpreter_shows_where_it_differs_and_fails(page, course_folder):
    """The verdict is there from the beginning; d leads to the difference, End to the exception."""
    view, frame, status = show(page, course_folder, "interpreter", INTERPRETER, "stepper")
    status.get_by_text("Before the first of 8 steps").wait_for()
    view.get_by_text("First difference from Unicorn at step 4, addi t0, t0, -1: x6: yours 0x1004").wait_for()
    frame.press("d")
    status.get_by_text(
        "Step 4 of 8, addi t0, t0, -1: x5 became 0x1, x6 became 0x1004. ✗ Differs from here on."
    ).wait_for()
    assert view.locator("tr.changed th").all_inner_texts() == ["x5", "x6"]
    page.screenshot("interpreter")
    frame.press("ArrowRight")
    status.get_by_text("pc became 0x8").wait_for()
    frame.press("End")
    status.get_by_text("✗ It raised ValueError: ebreak is missing, in line 8 of step").wait_for()
    page.screenshot("interpreter-end")
    view.get_by_role("button", name="first difference").click()
    status.get_by_text("Step 4 of 8").wait_for()
    assert page.page.locator(".jp-Cell").count() == 1
    assert page.complaints == []
