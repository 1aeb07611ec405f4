"""Feedback: hidden tests and what quotes them go, verdicts stay, nothing of a student's runs in the page."""

import nbformat
import pytest

from autograder.feedback import HideHiddenTests, clean

TEST = """check.step(step)
### BEGIN HIDDEN TESTS
from autograder.checks import secret as hidden
hidden.step(step)
### END HIDDEN TESTS"""


def processed(*outputs, source=TEST):
    """The text of a cell's source and outputs after the preprocessor."""
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs))
    nb, _ = HideHiddenTests().preprocess(nbformat.v4.new_notebook(cells=[cell]), {})
    return nb.cells[0]


def test_hidden_region_is_replaced():
    """The visible check stays, the hidden one is named."""
    assert processed().source == "check.step(step)\n# (hidden checks ran here)"


def test_traceback_through_the_grader_is_shortened():
    """A traceback that shows hidden code keeps the exception's name and message."""
    colours = "\x1b[0;31m"
    lines = [f"{colours}Cell In[3], line 4\x1b[0m", "----> 4 \x1b[32mhidden.step\x1b[0m(step)", "ValueError: no"]
    cell = processed(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=lines))
    assert cell.outputs[0].traceback == ["ValueError: no"]


def test_other_traceback_stays():
    """A student's own error is shown in full."""
    lines = ["Cell In[3], line 1", "ValueError: no"]
    cell = processed(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=lines))
    assert cell.outputs[0].traceback == lines


def test_printed_test_is_censored():
    """A student's code that prints the test cell gets nothing on paper."""
    printed = nbformat.v4.new_output("stream", name="stdout", text=TEST)
    assert "hidden.step(step)" not in processed(printed).outputs[0].text


@pytest.mark.parametrize(
    "evil",
    [
        "<script>steal()</script>",
        "<img src=x onerror=steal()>",
        "<a href='javascript:steal()'>x</a>",
        "<iframe src='//steal'></iframe>",
        "<svg onload=steal()></svg>",
        "<div style='background:url(//steal)'>x</div>",
        "<form action='//steal'><input></form>",
        "<style>body{background:url(//steal)}</style>",
        "<details open ontoggle=steal()>x</details>",
    ],
)
def test_nothing_runs_or_loads(evil):
    """No tag or attribute that acts is left."""
    from html.parser import HTMLParser

    class Tags(HTMLParser):
        seen = ""

        def handle_starttag(self, tag, attrs):
            self.seen += f"{tag} {attrs}"

    tags = Tags()
    tags.feed(clean(evil))
    assert "steal" not in tags.seen


def test_formatting_stays():
    """Headings, tables, hints and the verdict's box are shown as they were."""
    kept = (
        '<h2>a</h2><table><thead><tr><th scope="col">b</th></tr></thead></table>'
        "<details><summary>c</summary></details>"
        '<pre role="status" style="margin: 0; padding: .4em .8em; border-left: 4px solid #1a7f37;">✔</pre>'
    )
    assert clean(kept) == kept
