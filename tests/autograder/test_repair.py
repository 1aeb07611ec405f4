"""Rebuilding a submission on the released notebook: only sources come from the student, whatever the cells became."""

import copy
import json
import os

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets import Any
from traitlets.config import LoggingConfigurable

from autograder.repair import MAX_OWN_CELLS, NOTE_ID, TolerantExporter, drop_links, grade_id, rebuild, with_note


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


# ── reading what was handed in ───────────────────────────────────────────────────────────────────────────────────────


class Folders:
    """As much of nbgrader's course directory as the exporter asks for."""

    release_directory = "release"

    def __init__(self, root):
        self.root = root

    def format_path(self, directory, student, assignment):
        """Where an assignment is, of whichever student."""
        return str(self.root / directory / assignment)


@pytest.fixture
def read(tmp_path):
    """Write what a student handed in, and read it back as the exporter does: text of the notebook."""
    (tmp_path / "release" / "ps").mkdir(parents=True)
    nbformat.write(released(), tmp_path / "release" / "ps" / "nb.ipynb")

    def read(content):
        path = tmp_path / "nb.ipynb"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            content(path)
        exporter = TolerantExporter()
        exporter.parent = Converter(coursedir=Folders(tmp_path))
        exporter.log.setLevel("ERROR")
        names = {"student": "s", "assignment": "ps", "notebook": "nb"}
        text, _ = exporter.from_filename(str(path), {"nbgrader": names})
        return nbformat.reads(text, as_version=4)

    return read


class Converter(LoggingConfigurable):
    """What runs an exporter."""

    coursedir = Any()


def written(notebook):
    """A notebook as a file holds it."""
    return nbformat.writes(notebook)


ENCODED = {
    "plain": lambda text: text.encode(),
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "saved by PowerShell": lambda text: text.encode("utf-16"),
    "with half a character": lambda text: text.replace("return 1", "return 1  # \\ud800").encode(),
}


@pytest.mark.parametrize("how", ENCODED)
def test_other_encodings_are_read(read, how):
    """What an editor made of the file costs no marks."""
    notebook = read(ENCODED[how](written(submitted(**ANSWERS))))
    assert sources(notebook)["step"].startswith(ANSWERS["step"])
    assert NOTE_ID not in sources(notebook)
    written(notebook).encode()


def link(path):
    """Put a link to another notebook in place of an own one."""
    nbformat.write(submitted(**ANSWERS), path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def huge(path):
    """Make a file of 1 GiB that takes no room."""
    path.touch()
    os.truncate(path, 1 << 30)


UNREADABLE = {
    "not UTF-8": (b'{"cells": "\xff\xfe\xfa"}', "codec can't decode"),
    "empty": (b"", "JSON"),
    "truncated": (b'{"cells": [{"cell_type": "code"', "JSON"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00", "codec can't decode"),
    "deeply nested": (b"[" * 200_000, "RecursionError"),
    "far too large": (huge, "1024 MiB"),
    "a link": (link, "is a link, and is not followed"),
    "a pipe": (os.mkfifo, "no ordinary file"),
    "a folder": (lambda path: path.mkdir(), "no ordinary file"),
    "not there": (None, "No such file"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_becomes_the_release_and_says_why(read, what):
    """A person reads the reason in the notebook; nothing of the file is in it."""
    content, reason = UNREADABLE[what]
    notebook = read(content)
    assert reason in notebook.cells[0].source
    assert "hand it in anew" in notebook.cells[0].source
    assert sources(notebook) == sources(released()) | {NOTE_ID: notebook.cells[0].source}


def test_broken_cells_are_left_out(read):
    """Cells that are none do not take the others with them."""
    notebook = json.loads(written(submitted(**ANSWERS)))
    notebook["cells"][2]["metadata"] = None
    notebook["cells"] += ["x", {"cell_type": 3}, {"cell_type": "code", "source": 7, "metadata": {}}]
    notebook["cells"].append({"cell_type": "code", "source": "x" * (2 << 20), "metadata": {}, "outputs": []})
    rebuilt, notes = rebuild(read(json.dumps(notebook).encode()), released())
    assert sources(rebuilt) == sources(submitted(**ANSWERS))
    assert "4 cells have no known type, no text, or far too much of it; left out" in notes


def test_no_submission_is_endless():
    """Some of a million own cells are enough."""
    notebook = submitted(**ANSWERS)
    notebook.cells += [cell(f"c{number}", f"x = {number}") for number in range(MAX_OWN_CELLS + 50)]
    rebuilt, _ = rebuild(notebook, released())
    assert len(rebuilt.cells) == len(released().cells) + MAX_OWN_CELLS


def test_links_and_pipes_beside_the_notebook_are_removed(tmp_path):
    """They would be copied with what they lead to, or stop nbgrader; files and the notebook stay."""
    (tmp_path / "data").mkdir()
    for name in ("nb.ipynb", "data/table.csv"):
        (tmp_path / name).write_text("1")
    (tmp_path / "data" / "secret").symlink_to("/etc/passwd")
    (tmp_path / "nowhere").symlink_to("/no/where")
    os.mkfifo(tmp_path / "pipe")
    drop_links(notebooks=[str(tmp_path / "nb.ipynb")], assignment="ps", student="s")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["data", "data/table.csv", "nb.ipynb"]


# ── tricks with cells ────────────────────────────────────────────────────────────────────────────────────────────────


def retyped(one):
    """Make text of a cell."""
    one.cell_type = "markdown"


TRICKS = {
    "skipped": lambda one: one.metadata.update(tags=["skip-execution"]),
    "allowed to raise": lambda one: one.metadata.update(tags=["raises-exception"]),
    "renamed": lambda one: one.metadata.get("nbgrader", {}).update(grade_id="other-" + one.id),
    "not graded": lambda one: one.metadata.get("nbgrader", {}).update(grade=False),
    "their own solution": lambda one: one.metadata.get("nbgrader", {}).update(solution=True),
    "worth a thousand": lambda one: one.metadata.get("nbgrader", {}).update(points=1000),
    "of an old schema": lambda one: one.metadata.get("nbgrader", {}).update(schema_version=1),
    "stripped": lambda one: one.metadata.clear(),
    "text": retyped,
    "replaced": lambda one: one.update(source="pass"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_test_cells_change_no_test(trick):
    """Whatever became of the tests of a submission, those of the release are run, for its points."""
    notebook = submitted(**ANSWERS)
    for one in notebook.cells:
        if one.id.startswith("correct"):
            TRICKS[trick](one)
    rebuilt, _ = rebuild(notebook, released())
    wanted = [one for one in released().cells if one.id.startswith("correct")]
    found = [one for one in rebuilt.cells if one.id.startswith("correct")]
    assert [(one.cell_type, one.source, one.metadata) for one in found] == [
        (one.cell_type, one.source, one.metadata) for one in wanted
    ]
    assert sources(rebuilt)["step"] == ANSWERS["step"]


def test_an_answer_that_became_text_is_code_again():
    """A cell that was turned into Markdown by a wrong key still counts."""
    notebook = submitted(**ANSWERS)
    retyped(notebook.cells[2])
    rebuilt, _ = rebuild(notebook, released())
    [answer] = [one for one in rebuilt.cells if one.id == "step"]
    assert (answer.cell_type, answer.source) == ("code", ANSWERS["step"])
