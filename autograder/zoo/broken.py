"""Submissions that are no sound notebooks: by accident, by another program, or by a trick with files and cells."""

from __future__ import annotations

import copy
import json
import os
import random
from pathlib import Path

from .specimen import FULL, LESSON, POINTS, Cage, Handed, Kind, Lesson, Specimen, code_cell

ZOO = Cage(Kind.BROKEN)


def _text(lesson: Lesson) -> bytes:
    return json.dumps(lesson.solved()).encode()


@ZOO("A file that was cut in the middle.")
def truncated(lesson: Lesson, _: Path) -> Handed:
    """Half of the bytes."""
    data = _text(lesson)
    return data[: len(data) // 2]


@ZOO("A file without a byte.")
def empty_file(lesson: Lesson, _: Path) -> Handed:
    """Nothing at all."""
    return b""


@ZOO("JSON that is no notebook.")
def list_of_numbers(lesson: Lesson, _: Path) -> Handed:
    """A list."""
    return b"[1, 2, 3]"


@ZOO("Bytes that are no text.")
def random_bytes(lesson: Lesson, _: Path) -> Handed:
    """The same bytes in every run."""
    return random.Random(3).randbytes(5000)


@ZOO("A page of HTML, as a download without a login gives.")
def html_page(lesson: Lesson, _: Path) -> Handed:
    """No notebook."""
    return b"<!doctype html><title>Log in</title>"


@ZOO("JSON nested fifty thousand levels deep.")
def deep_json(lesson: Lesson, _: Path) -> Handed:
    """Deeper than a parser's stack."""
    return b'{"cells":' * 50_000


@ZOO("A file with a byte order mark.", marks=FULL)
def byte_order_mark(lesson: Lesson, _: Path) -> Handed:
    """As an editor of Windows writes it."""
    return b"\xef\xbb\xbf" + _text(lesson)


@ZOO("A file in UTF-16.", marks=FULL)
def utf_16(lesson: Lesson, _: Path) -> Handed:
    """As another editor writes it."""
    return _text(lesson).decode().encode("utf-16")


@ZOO("Cells of no known kind.")
def cells_of_no_kind(lesson: Lesson, _: Path) -> Handed:
    """Numbers, words and dicts in the place of cells."""
    return {**lesson.solved(), "cells": [{"cell_type": 3}, "x", None, {"source": []}]}


@ZOO("Metadata, cells and sources of the wrong types.", marks=FULL)
def odd_types(lesson: Lesson, _: Path) -> Handed:
    """What a notebook may not be, around answers that are sound."""
    made = lesson.solved()
    made["metadata"] = {"kernelspec": {"name": "python3", "display_name": "x", "language": "y"}, "nbgrader": [1]}
    made["cells"] += [
        {"cell_type": "code", "id": "a b c", "metadata": {}, "source": 7, "outputs": "none", "execution_count": "x"},
        {"cell_type": "code", "id": 9, "metadata": {"nbgrader": "yes"}, "source": "1", "outputs": [], "x": 1},
        {"cell_type": "unknown", "id": "u", "metadata": {}, "source": "1"},
    ]
    return made


@ZOO("No cell at all.")
def no_cells(lesson: Lesson, _: Path) -> Handed:
    """An empty list."""
    return {**lesson.solved(), "cells": []}


@ZOO("All cells of tests were deleted.", marks=FULL)
def tests_removed(lesson: Lesson, _: Path) -> Handed:
    """The answers are right."""
    made = lesson.solved()
    tests = {cell["id"] for cell in lesson.tests(made)}
    made["cells"] = [cell for cell in made["cells"] if cell["id"] not in tests]
    return made


@ZOO("Cells of tests have other grade ids.")
def grade_ids_renamed(lesson: Lesson, _: Path) -> Handed:
    """Blank, with tests of unknown names."""
    made = lesson.blank()
    for cell in lesson.tests(made):
        cell["metadata"]["nbgrader"]["grade_id"] = "renamed_" + cell["id"]
        cell["id"] = "renamed-" + cell["id"]
    return made


@ZOO("Tests were turned into text.")
def tests_to_markdown(lesson: Lesson, _: Path) -> Handed:
    """Blank, with tests of another type."""
    made = lesson.blank()
    for cell in lesson.tests(made):
        cell["cell_type"] = "markdown"
        del cell["outputs"], cell["execution_count"]
    return made


@ZOO("The grade flag of tests is off.")
def grade_flags_off(lesson: Lesson, _: Path) -> Handed:
    """Blank, with tests that are only locked."""
    made = lesson.blank()
    for cell in lesson.tests(made):
        cell["metadata"]["nbgrader"]["grade"] = False
    return made


@ZOO("Every test is there twice.")
def tests_duplicated(lesson: Lesson, _: Path) -> Handed:
    """Blank, with copies of the tests that say `pass`."""
    made = lesson.blank()
    made["cells"] += [copy.deepcopy(cell) | {"source": "pass"} for cell in lesson.tests(made)]
    return made


@ZOO("Every cell has the same grade id, of an unknown schema.")
def one_grade_id(lesson: Lesson, _: Path) -> Handed:
    """Blank, all named alike."""
    made = lesson.blank()
    for cell in made["cells"]:
        cell["metadata"]["nbgrader"] = {"grade_id": "double", "schema_version": 99, "grade": "yes", "points": "many"}
    return made


@ZOO("The kernel is one that nobody has.", marks=FULL)
def another_kernel(lesson: Lesson, _: Path) -> Handed:
    """The answers are right."""
    made = lesson.solved()
    made["metadata"]["kernelspec"] = {"name": "zoo-evil", "display_name": "../../x", "language": "julia"}
    return made


@ZOO("A notebook of a format that is not there yet.")
def format_of_the_future(lesson: Lesson, _: Path) -> Handed:
    """Format 9."""
    return {**lesson.solved(), "nbformat": 9, "nbformat_minor": 9}


@ZOO("Sources with NUL, halves of characters, and line ends of all kinds.", marks=FULL - POINTS["double"])
def odd_characters(lesson: Lesson, _: Path) -> Handed:
    """An answer that no Python reads, and cells that can hardly be written."""
    made = lesson.solved({"double": "def double(number):\n    return '\ud800\0\x1b[2J\u2028' * 2\x0c"})
    made["cells"].append(code_cell("x = '\udfff\x07'\r\nprint(x)\rprint(2)", "own-\u202e"))
    return made


@ZOO("Besides the notebook, a notebook that is no part of the lesson, with an odd name.", marks=FULL)
def extra_notebooks(lesson: Lesson, folder: Path) -> Handed:
    """Names with globs, brackets, quotes and control characters."""
    for name in ("notes", "a [1]*?", "quote'\"<b>", "line\nbreak", "$(touch x)", "Kopie von 01-zoo"):
        (folder / f"{name}.ipynb").write_bytes(_text(lesson))
    return lesson.solved()


@ZOO("Besides the notebook, files with odd names, links, pipes, and folders without end.", marks=FULL)
def odd_files(lesson: Lesson, folder: Path) -> Handed:
    """Nothing of it may stop a copy, a digest or a log."""
    for name in (b"\xff\xfe latin", b"-rf", b"..x", b"a\nb\x1b[2J", b"x" * 200, "grüße 虎".encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(b"x")  # noqa: PTH118 - of bytes
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(".")
    (folder / "dangling").symlink_to("/nowhere/at/all")
    deep = folder
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "unreadable").write_text("x")
    (deep / "unreadable").chmod(0)
    return lesson.solved()


@ZOO("The notebook is a folder.")
def notebook_is_a_folder(lesson: Lesson, folder: Path) -> Handed:
    """With a notebook in it."""
    (folder / f"{LESSON}.ipynb").mkdir()
    (folder / f"{LESSON}.ipynb" / f"{LESSON}.ipynb").write_bytes(_text(lesson))
    return None


@ZOO("The notebook is a pipe, which blocks whoever opens it.")
def notebook_is_a_pipe(lesson: Lesson, folder: Path) -> Handed:
    """Nobody writes to it."""
    os.mkfifo(folder / f"{LESSON}.ipynb")
    return None


@ZOO("There is no notebook.", graded=False)
def no_notebook(lesson: Lesson, folder: Path) -> Handed:
    """A file of text in its place."""
    (folder / "readme.txt").write_text("I sent it by mail.")
    return None


@ZOO("The time of handing in is no time.", graded=False)
def no_timestamp(lesson: Lesson, folder: Path) -> Handed:
    """Bytes in the place of a date."""
    (folder / "timestamp.txt").write_bytes(b"\xff\xfe tomorrow \0")
    return lesson.solved()


def _right(lesson: Lesson, _: Path) -> Handed:
    return lesson.solved()


ZOO.specimens += [
    Specimen(
        name,
        Kind.BROKEN,
        f"The student's id is {student!r}.",
        _right,
        marks=FULL,
        student=student,
        graded="[" not in student,
    )
    for name, student in {
        "student-with-globs": "[x]*",
        "student-with-space": "o'neil & son",
        "student-of-unicode": "zoë 虎",
        "student-like-an-option": "--force",
        "student-with-markup": "[bold]x[! {curly} %s",
    }.items()
]
