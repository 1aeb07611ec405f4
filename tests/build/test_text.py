"""Reading lesson texts: cells as jupytext has them, lines as the text has them, slips refused with their place."""

import json
import re

import jupytext
import pytest

from course.build.expand import load, notebook
from course.build.text import read
from course.error import BuildError, UsageError

from .conftest import LESSON, ROOT

REAL_TEXTS = sorted((ROOT / "course" / "lessons").glob("[0-9][0-9]-*.md"))
TEXTS = [ROOT / "tests" / "build" / "lessons" / f"{LESSON}.md", *REAL_TEXTS]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_cells_are_those_that_jupytext_reads(path):
    """A lesson that an author opens in JupyterLab has the same cells in the same order."""
    expected = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    assert expected == [(cell.kind, cell.source) for cell in read(path).cells]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_line_of_a_cell_is_where_its_source_begins(path):
    """The first line of every cell stands in the text at the line that errors will name."""
    lines = path.read_text().splitlines()
    for cell in load(path).cells:
        assert cell.source.splitlines()[0] == lines[cell.line - 1]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_ids_are_valid_unique_and_stable(path):
    """Cell ids obey nbformat, are unique, and are the same the next time."""
    ids = [cell.id for cell in load(path).cells]
    assert ids == [cell.id for cell in load(path).cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in ids)


def test_ids_come_from_grade_ids_and_headings(layout):
    """A graded cell is named after its grade id, any other after the heading above it."""
    ids = [cell.id for cell in load(layout.text(LESSON)).cells]
    assert {"double", "correct_double", "explain_total", "exercise-double-a-number"} <= set(ids)
    assert ids[:3] == ["counting-how-far-do-numbers-go", "how-long-does-a-cell-take", "how-long-does-a-cell-take-1"]


def test_inserting_a_cell_moves_only_ids_of_its_section(layout):
    """Ids below the next heading do not depend on what stands above it."""
    before = [cell.id for cell in load(layout.text(LESSON)).cells]
    path = layout.text(LESSON)
    path.write_text(path.read_text().replace("How many seconds", "```{code-cell}\n1\n```\n\nHow many seconds"))
    after = [cell.id for cell in load(path).cells]
    below = before.index("exercise-double-a-number")
    assert after[-len(before) + below :] == before[below:]


def test_prose_is_cut_before_its_headings(layout):
    """Every heading begins a cell, so that JupyterLab can fold and list sections."""
    markdown = [cell.source for cell in load(layout.text(LESSON)).cells if cell.kind == "markdown" and not cell.grade]
    assert sum(source.startswith("#") for source in markdown) == 5
    assert not any("\n## " in source or "\n### " in source for source in markdown)


def test_a_hash_in_a_fence_is_no_heading(layout):
    """A shell comment in a fenced block cuts nothing."""
    path = layout.text(LESSON)
    path.write_text(path.read_text().replace("- counted.", "- counted.\n\n```bash\n# comment\nls\n```\n\nmore"))
    assert load(path).cells[-1].source.endswith("# comment\nls\n```\n\nmore")


def test_shorthand_becomes_nbgrader_metadata(layout):
    """Each `ng` kind has the flags that nbgrader's own toolbar would set."""
    cells = {cell.id: cell for cell in load(layout.text(LESSON)).cells}
    flags = ("grade", "solution", "locked", "task")
    assert [cells["double"].grade[flag] for flag in flags] == [False, True, False, False]
    assert [cells["correct_double"].grade[flag] for flag in flags] == [True, False, True, False]
    assert [cells["explain_total"].grade[flag] for flag in flags] == [True, True, False, False]
    assert cells["correct_double"].grade["points"] == 2
    assert "points" not in cells["double"].grade


def test_expanded_notebook_is_valid_for_nbformat_and_nbgrader(layout):
    """Both official validators accept what `expand` makes."""
    import nbformat
    from nbgrader.nbgraderformat import MetadataValidator

    node = nbformat.from_dict(notebook(load(layout.text(LESSON))))
    nbformat.validate(node)
    MetadataValidator().validate_nb(node)


SLIPS = [
    # name, what is replaced, by what, part of the message, text on the line that is named (None: any)
    ("unclosed solution", "    ### END SOLUTION\n", "", "BEGIN SOLUTION without its END", "### BEGIN SOLUTION"),
    ("unopened solution", "    ### BEGIN SOLUTION\n", "", "END SOLUTION without its BEGIN", "### END SOLUTION"),
    ("unclosed hidden", "### END HIDDEN TESTS\n", "", "BEGIN HIDDEN TESTS without its END", "### BEGIN HIDDEN"),
    (
        "misspelt marker",
        "### END HIDDEN TESTS\n",
        "### END HIDEN TESTS\n",
        "BEGIN HIDDEN TESTS without",
        "### BEGIN HID",
    ),
    ("lower case marker", "### BEGIN HIDDEN TESTS\n", "### begin hidden tests\n", "misspelt", "### begin hidden tests"),
    (
        "nested",
        "    secret_doubling",
        "    ### BEGIN HIDDEN TESTS\n    secret_doubling",
        "inside SOLUTION",
        "BEGIN HIDDEN",
    ),
    ("repeated grade id", "answer total", "answer double", "'double' is used twice, first in line 70", None),
    ("unknown kind", "answer total", "solution total", "unknown kind", None),
    ("no points", "correct_total 3", "correct_total", "points are missing", None),
    ("points no number", "correct_total 3", "correct_total three", "points have to be a number", None),
    ("negative points", "correct_total 3", "correct_total -3", "points have to be a number", None),
    ("points of an answer", "answer total", "answer total 3", "too many", None),
    ("no grade id", ":ng: answer total", ":ng: answer", "grade id is missing", None),
    ("strange grade id", "answer total", "answer tot/al", "not made of letters", None),
    ("code where prose belongs", '"manual explain_total 4"', '"test explain_total 4"', "a test cell is code", None),
    ("test without check", 'assert total(3) == 6, "1 + 2 + 3 is 6"', "", "a test without a check", None),
    (
        "answer without solution",
        "    ### BEGIN SOLUTION\n    return sum(range(1, last + 1))\n    ### END SOLUTION\n",
        "    return 0\n",
        "no solution",
        None,
    ),
    (
        "solution in a plain cell",
        "1 / 0",
        "### BEGIN SOLUTION\n1\n### END SOLUTION",
        "in a cell without ng",
        "BEGIN SOLUTION",
    ),
    ("syntax of a test", "assert total(3) ==", "assert total(3 ==", "not Python", "assert total(3 =="),
    (
        "syntax of a hidden test",
        "assert double(-1717171717)",
        "assert double(-171",
        "not Python",
        "assert double(-171 ==",
    ),
    ("heading in a manual cell", "\n+++\n\n## In this", "\n## In this", "a heading inside a graded cell", "## In this"),
    ("front matter without title", "title: Counting\n", "", "no 'title'", "---"),
    ("front matter not YAML", "title: Counting", "title: [Counting", "malformed front matter", None),
    ("front matter not closed", "assignment: 01-counting\n---\n", "assignment: 01-counting\n", "not closed", "---"),
    ("other assignment", "assignment: 01-counting", "assignment: 01-count", "the front matter says", "---"),
    ("options not YAML", ":tags: [raises-exception]", ":tags: [raises", "malformed cell options", "{code-cell}"),
    ("break not JSON", '{"ng": "manual', "{'ng': \"manual", "malformed cell options", "+++"),
]


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip[0])
def test_slip_is_refused_with_lesson_and_line(layout, slip):
    """A text that nbgrader or Jupyter would misread names lesson, line and what was expected."""
    _, old, new, message, line = slip
    path = layout.text(LESSON)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BuildError, match=re.escape(message)) as caught:
        load(path)
    assert caught.value.lesson == LESSON
    assert str(caught.value).startswith(LESSON)
    if line:
        assert line in path.read_text().splitlines()[caught.value.line - 1]


def test_slip_in_a_graded_cell_names_the_cell(layout):
    """The cell's id stands in the message, since that is what a person searches for."""
    path = layout.text(LESSON)
    path.write_text(path.read_text().replace("    ### END SOLUTION\n", "", 1))
    with pytest.raises(BuildError) as caught:
        load(path)
    assert caught.value.cell == "double"
    assert "cell double" in str(caught.value)


def test_empty_and_binary_texts_are_refused(layout):
    """A file that is no lesson is refused as one, not with a traceback."""
    path = layout.text(LESSON)
    for content in (b"", b"\xff\xfe\x00", b"---\n", b"---\n---\n"):
        path.write_bytes(content)
        with pytest.raises(BuildError):
            load(path)


def test_lesson_is_found_by_name_number_and_slug(layout):
    """People type what they remember."""
    (layout.lessons / "09-qemu-qmp.md").write_text("")
    for name in ("01-counting", "1", "01", "counting", "01-counting.md"):
        assert layout.select([name]) == [LESSON]
    assert layout.select([]) == [LESSON, "09-qemu-qmp"]
    assert layout.select(["9", "qemu-qmp"]) == ["09-qemu-qmp"]


def test_unknown_lesson_lists_what_exists_and_the_closest(layout):
    """A misspelt name gets the names there are, and the one that was probably meant."""
    with pytest.raises(UsageError, match=r"'countign'; lessons are: 01-counting\. Did you mean 01-counting\?"):
        layout.select(["countign"])


def test_expanded_metadata_is_plain_json(layout):
    """Nothing of jupytext's own types is left in what is written."""
    made = notebook(load(layout.text(LESSON)))
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_saving_from_jupyterlab_loses_nothing(path, tmp_path):
    """A text that jupytext has read and written, with our jupytext.toml, gives the same notebook."""
    from jupytext.config import load_jupytext_configuration_file

    config = load_jupytext_configuration_file(str(ROOT / "jupytext.toml"))
    opened = jupytext.read(path, config=config)
    saved = tmp_path / path.name
    saved.write_text(jupytext.writes(opened, fmt="md:myst", config=config))
    assert notebook(load(saved)) == notebook(load(path))
