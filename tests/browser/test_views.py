"""The course's views as a person uses them: buttons, keys, and words for those who do not see them."""

import pytest
from nbformat.v4 import new_code_cell, new_output

from course.vcpu.paging import Tables
from course.widgets.interpreter import Interpreter
from course.widgets.pagewalk import PageWalk
from course.widgets.timeline import Timeline

from .lab import LabPage
from .test_lab import write

pytestmark = pytest.mark.browser

TIMELINE = """
from course.widgets.timeline import Timeline
exits = [{"reason": "Privileged" if n == 5 else "Io", "rip": 0x100006 + n, "detail": f"out 0xe9, {n}",
          "guest_s": 2e-6 * (n + 1), "vmm_s": 3e-5} for n in range(40)]
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
NESTED = "PageWalk.nested(0x7f0000, [0x1000 * n for n in range(24)])"


@pytest.fixture(scope="module")
def lab(_chromium, lab_server, course_folder):
    """One notebook with a view in each cell, run once for all tests of this module."""
    sources = {"timeline": TIMELINE, "interpreter": INTERPRETER, "pagewalk": PAGEWALK, "nested": NESTED}
    cells = [new_code_cell(source.strip(), id=name) for name, source in sources.items()]
    write(course_folder / "scratch" / "views.ipynb", *cells)
    context = _chromium.new_context(viewport={"width": 1400, "height": 1000})
    opened = LabPage(context.new_page(), lab_server)
    opened.open("scratch/views.ipynb")
    opened.run_all()
    assert opened.errors() == []
    yield opened
    context.close()


@pytest.fixture(autouse=True)
def keys_are_the_view_s_own(request):
    """No key reaches the notebook, where it would make or move cells; nothing complains."""
    yield
    if "lab" in request.fixturenames:
        lab = request.getfixturevalue("lab")
        assert lab.page.locator(".jp-Cell").count() == 4
        assert lab.complaints == []


def find(lab, number):
    """Scroll to a cell's view; return it, its frame and its live region."""
    view = lab.page.locator(".jp-Cell").nth(number).locator(".course-view")
    view.scroll_into_view_if_needed()
    return view, view.get_by_role("group").first, view.locator("[role=status]")


def test_the_timeline_goes_from_exit_to_exit(lab):
    """Arrows, Home and End select; plus zooms; t shows times to scale; the tables follow."""
    view, frame, status = find(lab, 0)
    status.get_by_text("Exit 1 of 41: Io (at 0x100006, out 0xe9, 0). The guest ran 2 µs, then waited 30 µs.").wait_for()
    frame.press("ArrowRight")
    frame.press("n")
    status.get_by_text("Exit 3 of 41: Io").wait_for()
    assert view.locator(".event.selected").count() == 2
    assert view.locator(".lanes").get_attribute("aria-label") == "Lanes guest, VMM, from exit 1 to exit 16"
    frame.press("+")
    assert view.locator(".lanes").get_attribute("aria-label") == "Lanes guest, VMM, from exit 1 to exit 8"
    lab.screenshot("timeline")
    frame.press("End")
    status.get_by_text("Exit 41 of 41: Hlt. The guest ran 1 ms, then waited 0 ns.").wait_for()
    frame.press("t")
    view.get_by_role("button", name="Show times to scale").and_(view.locator("[aria-pressed=true]")).wait_for()
    assert view.locator("tr[aria-current=true] th").inner_text() == "▶ Hlt"
    lab.screenshot("timeline-times")
    view.get_by_role("button", name="One exit back").click()
    status.get_by_text("Exit 40 of 41").wait_for()
    frame.press("Home")
    status.get_by_text("Exit 1 of 41").wait_for()


def test_the_interpreter_shows_where_it_differs_and_fails(lab):
    """The verdict is there from the beginning; d leads to the difference, End to the exception."""
    view, frame, status = find(lab, 1)
    status.get_by_text("Before the first of 8 steps").wait_for()
    view.get_by_text("First difference from Unicorn at step 4, addi x5, x5, -1: x6: yours 0x1004").wait_for()
    frame.press("d")
    said = "Step 4 of 8, addi x5, x5, -1: x5 became 0x1, x6 became 0x1004. ✗ Differs from here on."
    status.get_by_text(said).wait_for()
    assert view.locator("tr.changed th").all_inner_texts() == ["x5", "x6"]
    lab.screenshot("interpreter")
    frame.press("ArrowRight")
    status.get_by_text("pc became 0x8").wait_for()
    frame.press("End")
    status.get_by_text("✗ It raised ValueError: ebreak is missing, in line 8 of step").wait_for()
    lab.screenshot("interpreter-end")
    view.get_by_role("button", name="first difference").click()
    status.get_by_text("Step 4 of 8").wait_for()


def test_the_page_walk_goes_from_read_to_read(lab):
    """The address's bits, the entry and the sentence belong together; the outcome comes last."""
    view, frame, status = find(lab, 2)
    status.get_by_text("cr3 is 0x1000. The address 0x7f1234567abc chooses one entry per level.").wait_for()
    frame.press("ArrowRight")
    frame.press("n")
    status.get_by_text("Level 3 (PDPT): bits 38–30 of the address are 72.").wait_for()
    assert "bits 38–30" in view.locator(".part[aria-current=step]").inner_text()
    assert view.locator("tr[aria-current=step] th").inner_text() == "3 PDPT"
    lab.screenshot("pagewalk")
    frame.press("End")
    status.get_by_text("physical address 0x8abc").wait_for()
    view.get_by_role("button", name="One read back").click()
    status.get_by_text("Level 1 (PT)").wait_for()


def test_the_nested_walk_is_a_grid_that_can_be_walked(lab):
    """Every reference has its cell; a click selects one."""
    view, frame, status = find(lab, 3)
    frame.press("ArrowRight")
    status.get_by_text("Reference 1 of 24, at 0x0: level 4 of the host's tables, on the way to").wait_for()
    view.get_by_text("10: 0x9000").click()
    status.get_by_text("Reference 10 of 24, at 0x9000: the guest's tables, the guest's level 3 entry").wait_for()
    assert view.locator("td[aria-current=step]").inner_text() == "▶ 10: 0x9000"
    lab.screenshot("pagewalk-nested")
    frame.press("End")
    status.get_by_text("24 references in all: 20 to the host's tables, 4 to the guest's.").wait_for()


def test_committed_outputs_say_it_without_a_kernel(page, course_folder):
    """A notebook that somebody else has run shows each view's static form, and no error."""
    tables = Tables(bytearray(1 << 16), first=0x1000)
    tables.map(0x7F1234567ABC, 0x8000)
    views = [
        Timeline.of_exits([{"reason": "Io"}, {"reason": "Hlt"}]),
        Interpreter(lambda state: {**state, "halted": True}, "ebreak"),
        PageWalk.of_reads(tables.root, 0x7F1234567ABC, [(0x17F0, 0x2007)]),
    ]
    cells = []
    for number, view in enumerate(views):
        data, _ = view._repr_mimebundle_()
        output = new_output("execute_result", data, execution_count=number + 1)
        cells.append(new_code_cell("view", id=f"view-{number}", execution_count=number + 1, outputs=[output]))
    write(course_folder / "scratch" / "committed.ipynb", *cells)
    page.open("scratch/committed.ipynb")
    for text in ("by reason: 1 Hlt, 1 Io", "halted at 0x0 after 1 steps", "Your interpreter", "table 0x2000"):
        page.page.locator(".jp-OutputArea").get_by_text(text).first.wait_for()
    page.screenshot("views-committed")
    assert page.complaints == []
