"""nbval with our plugin compares a display as it ends up."""

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output


@pytest.fixture
def notebook(tmp_path):
    """A notebook whose display begins as 'old' and ends as 'new', which is what its stored output says."""
    cell = new_code_cell("handle = display('old', display_id=True)\nhandle.update('new')", id="display")
    cell.execution_count = 1
    cell.outputs = [new_output("display_data", {"text/plain": "'new'"})]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    path = tmp_path / "display.ipynb"
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    return path


def nbval(path, *options):
    """Run nbval in a process of its own and return pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).returncode


@pytest.mark.pipeline
def test_an_updated_display_is_compared_as_it_ends_up(notebook):
    """With the plugin the notebook passes."""
    assert nbval(notebook, "-p", "tests.notebooks.updates") == 0


@pytest.mark.pipeline
def test_a_display_that_ends_up_differently_fails(notebook):
    """The plugin does not hide a difference."""
    notebook.write_text(notebook.read_text().replace("update('new')", "update('newer')"))
    assert nbval(notebook, "-p", "tests.notebooks.updates") == 1
