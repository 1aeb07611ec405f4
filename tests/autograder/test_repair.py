"""Rebuilding a submission on the released notebook: only sources come from the student, whatever the cells became."""

import copy

import nbformat
from hypothesis import given
from hypothesis import strategies as st

from autograder.repair import NOTE_ID, grade_id, rebuild, with_note


def cell(name, source="", *, kind="code", **flags):
    """A cell, graded when it has flags."""
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    made = make(source, id=name)
    if flags:
        base = {
            "grade": False,
            "solution": False,
            "locked": False,
            "task": False,
            "schema_version": 3,
            "grade_id": name,
        }
        made.metadata["nbgrader"] = base | flags
    return made


def released():
    """A released notebook: text, prediction, two answers with their tests."""
    return nbformat.v4.new_notebook(
        cells=[
            cell("title", "# Title", kind="markdown"),
            cell("prediction", "predicted = 1.0"),
            cell("step", "def step():\n    raise NotImplementedError", solution=True),
            cell("correct_step", "check.step(step)", grade=True, locked=True, points=2),
            cell("decode", "def decode():\n    raise NotImplementedError", solution=True),
            cell("correct_decode", "check.decode(decode)", grade=True, locked=True, points=3),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


def submitted(**sources):
    """The release with other sources."""
    notebook = released()
    for one in notebook.cells:
        one.source = sources.get(one.id, one.source)
    return notebook


ANSWERS = {
    "step": "def step():\n    return 1",
    "decode": "def decode():\n    return 2",
    "prediction": "predicted = 7.5",
}


def sources(notebook):
    """Source by cell id."""
    return {one.id: one.source for one in notebook.cells}


def test_sound_submission_stays_as_it_is():
    """Answers and predictions are taken; nothing is said."""
    rebuilt, notes = rebuild(submitted(**ANSWERS), released())
    assert notes == []
    assert sources(rebuilt) == sources(submitted(**ANSWERS))


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=4), st.booleans())
def test_order_copies_and_tags_change_nothing(order, copies, tagged):
    """Cells in any order, any of them copied untouched, tagged to be skipped: the answers are the same."""
    notebook = submitted(**ANSWERS)
    untouched = released()
    cells = [notebook.cells[i] for i in order] + [copy.deepcopy(untouched.cells[i]) for i in copies]
    for one in cells if tagged else ():
        one.metadata["tags"] = ["skip-execution"]
    notebook.cells = cells
    rebuilt, _ = rebuild(notebook, released())
    assert [one.id for one in rebuilt.cells] == [one.id for one in released().cells]
    assert sources(rebuilt) == sources(submitted(**ANSWERS))
    assert not any("tags" in one.metadata for one in rebuilt.cells)


def test_last_edited_copy_counts():
    """Of several copies of an answer the last one that says something else than the release counts."""
    notebook = submitted(step="def step():\n    return 'old'")
    for source in ("def step():\n    return 'new'", released().cells[2].source, "  \n"):
        notebook.cells.append(cell("step", source, solution=True))
    rebuilt, notes = rebuild(notebook, released())
    assert sources(rebuilt)["step"].endswith("'new'")
    assert notes == ["step: 4 copies; the last one that was edited counts"]


def test_answer_without_any_id_is_found_by_what_it_defines():
    """Programs that drop ids and metadata do not cost marks."""
    notebook = submitted(**ANSWERS)
    for number, one in enumerate(notebook.cells):
        one.metadata, one.id = nbformat.NotebookNode(), f"x{number}"
    rebuilt, notes = rebuild(notebook, released())
    assert sources(rebuilt)["step"] == ANSWERS["step"]
    assert sources(rebuilt)["decode"] == ANSWERS["decode"]
    assert "step: found by the name it defines, without its grade id" in notes


def test_students_own_cells_stay_where_they_were():
    """A helper that an answer needs is run before it."""
    notebook = submitted(step="def step():\n    return helper()")
    notebook.cells.insert(2, cell("own", "def helper():\n    return 1"))
    rebuilt, notes = rebuild(notebook, released())
    order = [one.source for one in rebuilt.cells]
    assert order.index("def helper():\n    return 1") == order.index("def step():\n    return helper()") - 1
    assert notes == []


def test_deleted_cells_come_back():
    """A test that was deleted is put back, an answer that was deleted is not answered."""
    notebook = submitted(**ANSWERS)
    notebook.cells = [one for one in notebook.cells if one.id not in ("correct_step", "decode")]
    rebuilt, notes = rebuild(notebook, released())
    assert [one.id for one in rebuilt.cells] == [one.id for one in released().cells]
    assert "NotImplementedError" in sources(rebuilt)["decode"]
    assert notes == ["correct_step: missing; put back", "decode: missing; counts as not answered"]


def test_tests_points_and_kernel_are_those_of_the_release():
    """Nothing of a test comes from the student."""
    notebook = submitted(correct_step="pass", correct_decode="pass")
    notebook.metadata["kernelspec"]["name"] = "other"
    for one in notebook.cells:
        if grade_id(one):
            one.metadata["nbgrader"]["points"] = 1000
    rebuilt, _ = rebuild(notebook, released())
    assert sources(rebuilt) == sources(released())
    assert [one.metadata for one in rebuilt.cells] == [one.metadata for one in released().cells]
    assert rebuilt.metadata == released().metadata


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
    )
)
def test_strange_metadata_do_not_stop_it(strange):
    """Whatever stands where nbgrader keeps its metadata, the cell is matched by its id."""
    notebook = submitted(**ANSWERS)
    for one in notebook.cells:
        one.metadata["nbgrader"] = strange
    rebuilt, _ = rebuild(notebook, released())
    assert sources(rebuilt)["step"] == ANSWERS["step"]


def test_note_stands_first_and_leaves_the_original_alone():
    """The note is for a person; the notebook that it is about is not changed."""
    notebook = released()
    noted = with_note(notebook, ["something was mended"])
    assert noted.cells[0].id == NOTE_ID
    assert "something was mended" in noted.cells[0].source
    assert len(notebook.cells) == 6
