"""House rules: the small lesson, mended, keeps them all; each broken rule is named with its cell and a remedy."""

import pytest

from course.build.expand import load
from course.build.layout import Layout
from course.build.lint import RULES, lint

from .conftest import LESSON, ROOT

HINTS = "".join(f"<details><summary>Hint {n}</summary>\n\ntext\n</details>\n" for n in (1, 2, 3))
HIDDEN = 'assert double(-1717171717) == -3434343434, "of negative numbers too"'
END = "- counted.\n\n## Words\n\n| English | French |\n\n## Sources\n\n- none"
GOOD = [  # what the small lesson, made for the build, lacks
    ("the first numbers\n\nComplete the function.\n", f"the first numbers\n\nComplete the function.\n\n{HINTS}"),
    ("- counted.", END),
]
CODE = "```{code-cell}\n1\n```\n\n"
BREAKS = [  # rule, old text, new text, part of the remedy
    ("one-title", "## How long", "# How long", "make 'How long does a cell take?' a section"),
    ("one-title", "# Counting: how far do numbers go?", "", "begin the lesson with its title"),
    ("heading-order", "## How long", "#### How long", "jumps from level 1 to 4"),
    ("opening-block", "**Runs on** tier T0", "", "no *Runs on*"),
    ("closing-block", "## Sources", "## Books", "no section `## Sources`"),
    ("alternative-text", "![Three boxes in a row hold the numbers 1, 2 and 3]", "![]", "what is to be seen"),
    ("alternative-text", "![Three boxes in a row hold the numbers 1, 2 and 3]", "![figure]", "what is to be seen"),
    ("code-runs", "A program refuses", CODE * 4 + "A program refuses", "code cells in a row"),
    ("headings-often", "A program refuses", (CODE + "text\n\n") * 5 + "A program refuses", "without a heading"),
    ("short-code", "object()", "object()\n" * 30, "at most 25"),
    ("short-code", "predicted_seconds = 1.0", "predicted_seconds = 1.0\n" * 9, "(median), at most 5"),
    ("no-star-import", "import os\n", "from os import *\n", "name what is used"),
    ("no-installation", "import os\n", "!pip install x\n", "installs nothing"),
    ("no-installation", "import os\n", "%pip install x\n", "installs nothing"),
    ("no-bare-sleep", "object()", "time.sleep(1)", "wait for an event"),
    ("no-absolute-path", "object()", "open('/home/anna/x')", "/home/anna/x"),
    ("typed-stubs", "def total(last: int) -> int:", "def total(last) -> int:", "type hints (last)"),
    ("typed-stubs", "def total(last: int) -> int:", "def total(last: int):", "type hints (what it returns)"),
    ("typed-stubs", '    """Return 1 + 2 + ... + last."""\n', "", "docstring"),
    ("tested-answers", ":ng: test correct_double 2", ":ng: locked correct_double", "no test cell follows"),
    ("hidden-tests", f"### BEGIN HIDDEN TESTS\n{HIDDEN}\n### END HIDDEN TESTS\n", "", "no hidden check"),
    ("hidden-tests", '"""`total` adds the numbers from 1 to its argument."""', "", "docstring"),
    (
        "trusted-judges",
        "assert double(3) == 6",
        "assert double(3) == 6 * predicted_seconds",
        "predicted_seconds: define",
    ),
    ("trusted-judges", "assert double(3) == 6", "assert double(3)", "holds for nearly anything"),
    ("three-hints", "<details><summary>Hint 3: nearly", "<p>Hint 3: nearly", "2 hints"),
    (
        "three-hints",
        "`3 * 2` is 6.",
        "secret_doubling_rule = 2\nreturn number * secret_doubling_rule",
        "whole solution",
    ),
    ("predictions", "predicted_seconds = 1.0", "seconds = 1.0", "no prediction"),
]


@pytest.fixture
def good(layout):
    """The small lesson with all that the house rules want."""
    for old, new in GOOD:
        replace(layout, old, new)
    return layout


def replace(layout, old, new):
    """Change the text."""
    path = layout.text(LESSON)
    text = path.read_text()
    assert old in text
    text = text.replace(old, new, 1)
    if new == ":ng: locked correct_double":  # nbgrader allows hidden tests in test cells only
        start = text.index("### BEGIN HIDDEN")
        text = text[:start] + text[text.index("### END HIDDEN TESTS", start) + len("### END HIDDEN TESTS") :]
    path.write_text(text)


def test_good_lesson_has_no_complaint(good):
    """A lesson that keeps the rules is left in peace."""
    assert lint(load(good.text(LESSON))) == []


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: f"{broken[0]}: {broken[3]}")
def test_broken_rule_is_named(good, broken):
    """The complaint names the file, a line, the cell, the rule and a remedy."""
    rule, old, new, remedy = broken
    replace(good, old, new)
    lesson = load(good.text(LESSON))
    complaints = [complaint for complaint in lint(lesson) if complaint.rule == rule]
    assert remedy in "\n".join(map(str, complaints))
    assert complaints[0].cell in {cell.id for cell in lesson.cells}
    assert str(complaints[0]).startswith(f"{good.text(LESSON)}:{complaints[0].line}: ")


def test_locked_prose_is_refused_before_it_is_linted(good):
    """Nbgrader-locked Markdown cannot even be written; the rule guards what is made otherwise."""
    lesson = load(good.text(LESSON))
    cell = next(cell for cell in lesson.cells if cell.kind == "markdown")
    flags = {"locked": True, "grade": False, "solution": False, "task": False}
    cell.metadata["nbgrader"] = {"grade_id": "x", **flags}
    assert [complaint.rule for complaint in lint(lesson)] == ["no-locked-prose"]


def test_every_rule_has_a_breaking_example():
    """No rule is without a test that sees it fail."""
    broken = {example[0] for example in BREAKS} | {"no-locked-prose"}
    assert broken == {rule.__name__.replace("_", "-") for rule in RULES}


@pytest.mark.parametrize("lesson", Layout(ROOT).all_lessons())
def test_real_lesson_keeps_the_house_rules(lesson):
    """Every lesson of the course."""
    complaints = lint(load(Layout(ROOT).text(lesson)))
    assert complaints == [], "\n".join(map(str, complaints))
