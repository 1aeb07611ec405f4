"""Make every submission gradable: rebuild it on the released notebook, read what can hardly be read.

Plain nbgrader trusts the structure of what students hand in. One duplicated cell ends the whole batch, a truncated
file gets no grade at all, a cell tagged ``skip-execution`` gets full marks. Two parts, enabled in
``nbgrader_config.py``, put the released notebook in charge instead:

``TolerantExporter`` (``c.Autograde.exporter_class``) reads the file: also one with a byte order mark, of an old format,
    or with some broken cells. What is not a notebook (nor a file of the student's: a link, a pipe) becomes the
    untouched release, which gets no marks, under a note that says why.
``Repair`` (first of ``c.Autograde.sanitize_preprocessors``) takes from the submission only the *sources* of answers and
    of the student's own cells; cells, order, ids, metadata and tags are the release's. A note lists what was mended.

An answer is found by its grade id, else its cell id, else the function or class it defines. Of several copies the last
one that was edited counts.
"""

from __future__ import annotations

import codecs
import copy
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbgrader.preprocessors import NbGraderPreprocessor

from . import notebooks

NOTE_ID = "repair-note"
MAX_FILE_BYTES = 64 << 20
MAX_SOURCE_CHARACTERS = 1 << 20
"""Of one cell; a longer answer is no answer."""
MAX_OWN_CELLS = 500
_DROPPED = "repair_dropped"
_KEPT_METADATA = ("nbgrader", "deletable", "editable")
_DEFINITION = re.compile(r"^(?:async\s+)?(?:def|class)\s+(\w+)", re.MULTILINE)

Node = Any
"""An nbformat node: its package ships no types."""


class TolerantExporter(NotebookExporter):
    """Reads any file as a notebook: one that cannot be read becomes the untouched release with a note."""

    def from_filename(self, filename: str, resources: Any = None, **kwargs: Any) -> Any:
        """Convert a file; see nbconvert's exporter, which does the same with one that it can read."""
        names = dict(resources or {})
        names["metadata"] = {"name": Path(filename).stem, "path": str(Path(filename).parent), "modified_date": ""}
        try:
            text = read_text(Path(filename))
        except (OSError, ValueError) as error:
            return self._unreadable(error, names, **kwargs)
        return self.from_file(io.StringIO(text), resources=names, **kwargs)

    def from_file(self, file_stream: Any, resources: Any = None, **kwargs: Any) -> Any:
        """Convert an open file; see nbconvert's exporter."""
        try:
            notebook = _notebook(file_stream)
        except Exception as error:
            return self._unreadable(error, resources, **kwargs)
        return self.from_notebook_node(notebook, resources=resources, **kwargs)  # type: ignore[no-untyped-call]

    def _unreadable(self, error: Exception, resources: Any, **kwargs: Any) -> Any:
        skeleton = released(getattr(self.parent, "coursedir", None), resources)
        if skeleton is None:
            raise error
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        self.log.warning("%s: cannot be read (%s); graded as not answered", _who(resources), reason)
        message = "The file that was handed in is not a readable notebook, so nothing in it could be graded."
        notebook = with_note(skeleton, [f"{message} ({reason})", "Save it again in JupyterLab and hand it in anew."])
        return self.from_notebook_node(notebook, resources=resources, **kwargs)  # type: ignore[no-untyped-call]


class Repair(NbGraderPreprocessor):  # type: ignore[misc]
    """Rebuilds a submission on the cells of the released notebook."""

    def preprocess(self, nb: Node, resources: Any) -> tuple[Node, Any]:
        """Repair one notebook; without a release (never built here) it is left alone."""
        skeleton = released(self.parent.parent.coursedir, resources)
        if skeleton is None:
            self.log.warning("%s: no released notebook to compare with; not repaired", _who(resources))
            return nb, resources
        try:
            rebuilt, notes = rebuild(nb, skeleton)
        except Exception as error:
            self.log.warning("%s: cannot be repaired", _who(resources), exc_info=True)
            rebuilt, notes = copy.deepcopy(skeleton), [f"nothing in it could be used ({type(error).__name__}: {error})"]
        for note in notes:
            self.log.warning("%s: %s", _who(resources), note)
        kept = [cell.source for cell in nb.cells if cell.get("id") == NOTE_ID]
        if kept:
            rebuilt.cells.insert(0, _note_cell(kept[0]))
        elif notes:
            rebuilt = with_note(
                rebuilt, ["Before grading, this notebook was repaired:", *(f"- {note}" for note in notes)]
            )
        return rebuilt, resources


def read_text(path: Path) -> str:
    """Read a file that a student handed in.

    Raises:
        ValueError: it is a link, a pipe or a folder, is too large, or holds no text.
        OSError: it cannot be opened.
    """
    kind = path.lstat().st_mode
    if not stat.S_ISREG(kind):
        raise ValueError(f"the file is {'a link' if stat.S_ISLNK(kind) else 'no ordinary file'}, and is not followed")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES >> 20
        raise ValueError(f"the file has {size >> 20} MiB, at most {limit} are read: clear the outputs")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def drop_links(*, notebooks: Sequence[str], **_: Any) -> None:
    """Remove links, pipes and sockets from the folders of `notebooks`; a hook of nbgrader, called for each submission.

    The notebooks themselves stay, whatever they are: `read_text` refuses them with a reason.
    """
    log = logging.getLogger(__name__)
    for folder in {Path(notebook).parent for notebook in notebooks}:
        for place, folders, files in os.walk(folder):
            for path in (Path(place, name) for name in (*folders, *files)):
                kind = path.lstat().st_mode
                if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) and path.suffix != ".ipynb":
                    leads = f" to {path.readlink()}" if path.is_symlink() else ""
                    log.warning("%s: removed, it is no file of a student's but a link%s or a pipe", path, leads)
                    path.unlink()


def released(coursedir: Any, resources: Any) -> Node | None:
    """The released version of the notebook that `resources` speaks of; None when there is none."""
    if coursedir is None:
        return None
    names = resources["nbgrader"]
    folder = Path(coursedir.format_path(coursedir.release_directory, ".", names["assignment"]))
    path = folder / f"{names['notebook']}.ipynb"
    return notebooks.read(path) if path.is_file() else None


def rebuild(submitted: Node, skeleton: Node) -> tuple[Node, list[str]]:
    """Put the student's sources into the released cells.

    Args:
        submitted: what was handed in.
        skeleton: the released notebook.

    Returns:
        A new notebook with the cells of `skeleton` in their order and the student's own cells behind the cell that
        they followed, and one sentence for each thing that had to be mended.
    """
    cells = [cell for cell in submitted.cells if cell.get("id") != NOTE_ID]
    chosen, used, notes = _choose(cells, skeleton.cells)
    if dropped := submitted.metadata.get(_DROPPED):
        notes.append(f"{dropped} cells have no known type, no text, or far too much of it; left out")
    own = _own_cells(cells, skeleton.cells, chosen, used)
    made = [_fresh(cell) for cell in own.get(-1, [])]
    for index, cell in enumerate(skeleton.cells):
        made.append(_released_cell(cell, cells[chosen[index]] if index in chosen else None))
        made += [_fresh(extra) for extra in own.get(index, [])]
    rebuilt = nbformat.v4.new_notebook(cells=made, metadata=copy.deepcopy(skeleton.metadata))  # type: ignore[no-untyped-call]
    rebuilt.nbformat_minor = skeleton.nbformat_minor
    return rebuilt, notes


def with_note(notebook: Node, lines: Iterable[str]) -> Node:
    """A copy of `notebook` that begins with a note to student and instructor."""
    noted = copy.deepcopy(notebook)
    noted.cells.insert(0, _note_cell("\n".join(f"> {line}" for line in ("**Note of the grader.**", "", *lines))))
    return noted


def grade_id(cell: Node) -> str | None:
    """The grade id of a cell, whatever its metadata look like."""
    metadata = cell.get("metadata", {}).get("nbgrader")
    found = metadata.get("grade_id") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None


def _notebook(stream: Any) -> Node:
    """Read a notebook; cells that are none are left out and counted."""
    text = stream.read()
    raw = json.loads(text)
    dropped = 0
    if isinstance(raw, dict) and isinstance(raw.get("cells"), list):
        kept = [_mended(cell) for cell in raw["cells"] if _is_cell(cell)]
        dropped = len(raw["cells"]) - len(kept)
        if raw["cells"] and not kept:
            raise ValueError("no cell has a known type and text")
        if kept != raw["cells"]:
            text = json.dumps(raw | {"cells": kept})
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell["source"] = cell["source"].encode("utf-8", "replace").decode()  # half a character cannot be written again
    if dropped:
        notebook.metadata[_DROPPED] = dropped
    return notebook


def _is_cell(cell: Any) -> bool:
    """Whether a cell of a file has a known type, and text of a size that can be meant."""
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        return False
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    return all(isinstance(line, str) for line in lines) and sum(map(len, lines)) <= MAX_SOURCE_CHARACTERS


def _mended(cell: dict[str, Any]) -> dict[str, Any]:
    return cell if isinstance(cell.get("metadata"), dict) else cell | {"metadata": {}}


def _choose(cells: list[Node], skeleton: list[Node]) -> tuple[dict[int, int], set[int], list[str]]:
    """Find for every released cell that a student may change the submitted cell that takes its place.

    Returns:
        Submitted index by released index, all submitted indices that are copies of released cells, and notes.
    """
    chosen: dict[int, int] = {}
    used: set[int] = set()
    notes: list[str] = []
    for index, cell in enumerate(skeleton):
        name = grade_id(cell)
        copies = _copies(cells, cell)
        if name and len(copies) > 1:
            notes.append(f"{name}: {len(copies)} copies; the last one that was edited counts")
        used.update(copies)
        if copies and _is_free(cell):
            edited = [i for i in copies if cells[i].source.strip() not in ("", cell.source.strip())]
            chosen[index] = (edited or copies)[-1]
        elif name and not copies and not _is_free(cell):
            notes.append(f"{name}: missing; put back")
    for index, cell in enumerate(skeleton):
        if index in chosen or not _is_free(cell) or not grade_id(cell):
            continue
        if (found := _by_definition(cells, cell, used)) is None:
            notes.append(f"{grade_id(cell)}: missing; counts as not answered")
        else:
            chosen[index] = found
            used.add(found)
            notes.append(f"{grade_id(cell)}: found by the name it defines, without its grade id")
    return chosen, used, notes


def _copies(cells: list[Node], released_cell: Node) -> list[int]:
    """Submitted cells with the grade id of a released one, else with its cell id, else with its very text."""
    name = grade_id(released_cell)
    by_grade = [i for i, cell in enumerate(cells) if name and grade_id(cell) == name]
    if by_grade:
        return by_grade
    same_kind = [i for i, cell in enumerate(cells) if cell.cell_type == released_cell.cell_type and not grade_id(cell)]
    by_id = [i for i in same_kind if cells[i].get("id") == released_cell.get("id")]
    return by_id or [i for i in same_kind if _squeezed(cells[i].source) == _squeezed(released_cell.source)]


def _by_definition(cells: list[Node], released_cell: Node, used: set[int]) -> int | None:
    """The last unused code cell that defines what the released answer defines."""
    names = set(_DEFINITION.findall(released_cell.source)) if released_cell.cell_type == "code" else set()
    matches = [
        i
        for i, cell in enumerate(cells)
        if i not in used and cell.cell_type == "code" and names & set(_DEFINITION.findall(cell.source))
    ]
    return matches[-1] if matches else None


def _is_free(cell: Node) -> bool:
    """True for a cell that belongs to the student: an answer, or one that nbgrader knows nothing of."""
    metadata = cell.metadata.get("nbgrader", {})
    return not metadata or bool(metadata.get("solution"))


def _own_cells(
    cells: list[Node], skeleton: list[Node], chosen: dict[int, int], used: set[int]
) -> dict[int, list[Node]]:
    """The student's own cells, by the released cell that they follow (-1: none)."""
    position = {submitted: index for index, submitted in chosen.items()}
    by_name = {grade_id(cell) or cell.get("id"): index for index, cell in enumerate(skeleton)}
    found: dict[int, list[Node]] = {}
    anchor, count = -1, 0
    for i, cell in enumerate(cells):
        if i in position:
            anchor = position[i]
        elif i in used:
            anchor = by_name.get(grade_id(cell) or cell.get("id"), anchor)
        elif cell.source.strip() and count < MAX_OWN_CELLS:
            count += 1
            found.setdefault(anchor, []).append(cell)
    return found


def _released_cell(cell: Node, answer: Node | None) -> Node:
    made = copy.deepcopy(cell)
    made.metadata = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {key: value for key, value in cell.metadata.items() if key in _KEPT_METADATA}
    )
    if answer is not None:
        made.source = answer.source
        if made.cell_type == "markdown" and isinstance(answer.get("attachments"), dict):
            made.attachments = copy.deepcopy(answer.attachments)
    return made


def _fresh(cell: Node) -> Node:
    """A cell of the student's own, without its metadata and outputs, under a new id."""
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "raw": nbformat.v4.new_raw_cell,
    }[cell.cell_type]
    return make(cell.source)  # type: ignore[no-untyped-call]


def _note_cell(text: str) -> Node:
    return nbformat.v4.new_markdown_cell(text, id=NOTE_ID)  # type: ignore[no-untyped-call]


def _squeezed(source: str) -> str:
    return re.sub(r"\s+", "", source)


def _who(resources: Any) -> str:
    names = resources["nbgrader"]
    return f"{names['student']}, {names['assignment']}/{names['notebook']}"
