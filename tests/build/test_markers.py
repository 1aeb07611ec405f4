"""Regions of a cell, compared with what nbgrader's own preprocessors take away."""

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

from course.build.markers import MarkerError, Region, regions, without

LINES = st.sampled_from(
    ["x = 1", "", "### BEGIN SOLUTION", "### END SOLUTION", "  ### BEGIN HIDDEN TESTS", "# END HIDDEN TESTS", "y"]
)


@given(st.lists(LINES, max_size=12))
def test_accepted_regions_are_those_that_nbgrader_removes(lines):
    """Whatever `regions` accepts, nbgrader removes exactly the same lines of it."""
    source = "\n".join(lines)
    try:
        regions(source)
    except MarkerError:
        return
    cell = nbformat.v4.new_code_cell(source)
    clear = ClearSolutions(code_stub={"python": "STUB"})
    clear._replace_solution_region(cell, "python")
    ClearHiddenTests()._remove_hidden_test_region(cell)
    left = [line for line in cell.source.split("\n") if line.strip() != "STUB"]
    expected = without(source, Region.SOLUTION, Region.HIDDEN_TESTS)
    assert left == expected.split("\n") or (not expected and left == [])


def test_what_nbgrader_misreads_is_refused():
    """An END without BEGIN, which nbgrader drops in silence, is an error here, at its line."""
    with pytest.raises(MarkerError, match="END SOLUTION without its BEGIN") as caught:
        regions("a\n### END SOLUTION")
    assert caught.value.index == 1
