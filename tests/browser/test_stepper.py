"""The stepper as a person uses it: buttons, keys, and words for those who do not see it."""

import pytest
from nbformat.v4 import new_code_cell

from .test_lab import write

pytestmark = pytest.mark.browser

STORE = "lis r4, 0x1234\\nori r4, r4, 0x5678\\nstw r4, 0(r3)\\nblr"


def test_the_stepper_moves_by_button_and_by_key(page, course_folder):
    """Next, right arrow, End and back change the registers, the memory and the sentence that is read aloud."""
    source = f"from course.widgets.stepper import Stepper\nStepper('{STORE}', 'ppc', 0x30000, data=bytes(4))"
    write(course_folder / "scratch" / "stepper.ipynb", new_code_cell(source, id="stepper"))
    page.open("scratch/stepper.ipynb")
    page.run_all()
    stepper = page.scroll_to(".course-stepper")
    status = stepper.locator("[role=status]")
    frame = stepper.get_by_role("group", name="Stepper")
    status.get_by_text("Before the first of 4 steps").wait_for()
    stepper.get_by_role("button", name="One step on").click()
    status.get_by_text("Step 1 of 4, lis r4, 0x1234: r4 became 0x12340000.").wait_for()
    frame.press("ArrowRight")
    status.get_by_text("r4 became 0x12345678").wait_for()
    frame.press("n")
    status.get_by_text("memory 0x30000 became 12 34 56 78").wait_for()
    assert stepper.locator("mark").all_inner_texts() == ["12", "34", "56", "78"]
    page.screenshot("stepper")
    frame.press("End")
    status.get_by_text("The end: ppc: returned").wait_for()
    stepper.get_by_role("button", name="One step back").click()
    status.get_by_text("Step 3 of 4").wait_for()
    assert page.page.locator(".jp-Cell").count() == 1  # the keys were not JupyterLab's
    assert page.complaints == []
