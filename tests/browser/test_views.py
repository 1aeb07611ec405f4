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

PAGEWALK = """
from course.vcpu.paging import P, U, W, Tables
from course.widgets.pagewalk import PageWalk
ram = bytearray(1 << 16)
tables = Tables(ram, first=0x1000)
tables.map(0x7f1234567abc, 0x8000, P | W | U)
PageWalk(tables.root, 0x7f1234567abc, lambda address, size: ram[address:address + size])
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


def test_the_page_walk_goes_from_read_to_read(page, course_folder):
    """The address's bits, the entry and the sentence belong together; the outcome comes last."""
    view, frame, status = show(page, course_folder, "pagewalk", PAGEWALK)
    status.get_by_text("cr3 is 0x1000. The address 0x7f1234567abc chooses one entry per level.").wait_for()
    frame.press("ArrowRight")
    frame.press("n")
    status.get_by_text("Level 3 (PDPT): bits 38–30 of the address are 72.").wait_for()
    assert "bits 38–30" in view.locator(".part[aria-current=step]").inner_text()
    assert view.locator("tr[aria-current=step] th").inner_text() == "3 PDPT"
    page.screenshot("pagewalk")
    frame.press("End")
    status.get_by_text("physical address 0x8abc").wait_for()
    view.get_by_role("button", name="One read back").click()
    status.get_by_text("Level 1 (PT)").wait_for()
    assert page.page.locator(".jp-Cell").count() == 1
    assert page.complaints == []


def test_the_nested_walk_is_a_grid_that_can_be_walked(page, course_folder):
    """Every reference has its cell; a click selects one."""
    source = "from course.widgets.pagewalk import PageWalk\nPageWalk.nested(0x7f0000, [0x1000 * n for n in range(24)])"
    view, frame, status = show(page, course_folder, "grid", source, "pagewalk")
    frame.press("p")
    frame.press("ArrowRight")
    status.get_by_text("Reference 1 of 24, at 0x0: level 4 of the host's tables, on the way to").wait_for()
    view.get_by_text("10: 0x9000").click()
    status.get_by_text("Reference 10 of 24, at 0x9000: the guest's tables, the guest's level 3 entry").wait_for()
    assert view.locator("td[aria-current=step]").inner_text() == "▶ 10: 0x9000"
    page.screenshot("pagewalk-nested")
    frame.press("End")
    status.get_by_text("24 references in all: 20 to the host's tables, 4 to the guest's.").wait_for()
