"""Read a lesson's text: MyST Markdown, as jupytext reads it, with the line of each cell.

A lesson's text is prose, ``{code-cell}`` fences and ``+++`` breaks; the one-word key ``ng`` says what nbgrader shall
make of a cell (see `expand`). jupytext is the reader, so authors can open the same file as a notebook; this module
adds what it does not keep, the lines, and turns its complaints into `BuildError`.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from ..error import BuildError


@dataclasses.dataclass
class Cell:
    """One cell of a lesson.

    Attributes:
        kind: ``code``, ``markdown`` or ``raw``.
        source: its text, without the fence and its options.
        metadata: options of the fence or of the ``+++`` line.
        line: 1-based line of the text where `source` begins.
        id: the notebook's cell id, given by `expand`.
    """

    kind: str
    source: str
    metadata: dict[str, Any]
    line: int
    id: str = ""

    @property
    def grade(self) -> dict[str, Any]:
        """Nbgrader's metadata, empty for an ordinary cell."""
        found: dict[str, Any] = self.metadata.get("nbgrader", {})
        return found

    @property
    def tags(self) -> list[str]:
        """Jupyter's cell tags."""
        return list(self.metadata.get("tags", []))


@dataclasses.dataclass
class Lesson:
    """A lesson's text, read."""

    name: str
    path: Path
    front: dict[str, Any]
    cells: list[Cell]

    @property
    def title(self) -> str:
        """The title of the front matter."""
        return str(self.front["title"])


def without_grammar() -> None:
    """Spare one second of every process: jsonschema does without the IRI grammar when its module is absent."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def read(path: Path) -> Lesson:
    """Read the text at `path`.

    Raises:
        BuildError: malformed front matter or cell options, with the line.
    """
    without_grammar()
    from jupytext.myst import MystMetadataParsingError, myst_to_notebook  # noqa: PLC0415 - slow to import

    lesson = path.stem
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BuildError(lesson, f"the text is not UTF-8: {error}") from None
    front = _front_matter(lesson, text)
    try:
        notebook = myst_to_notebook(text, add_source_map=True)
    except MystMetadataParsingError as error:
        where = re.search(r"at line (\d+)", str(error))
        message = f"malformed cell options: {error}"
        raise BuildError(lesson, message, line=int(where[1]) if where else None) from None
    except Exception as error:
        raise BuildError(lesson, f"the text cannot be read: {error}") from error
    lines = text.splitlines()
    cells = []
    for cell, at in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
        first = _first_line(lines, at, cell.cell_type)
        cells.append(Cell(cell.cell_type, cell.source, plain(cell.metadata), first))
    return Lesson(lesson, path, front, cells)


def _front_matter(lesson: str, text: str) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415

    expected = "a lesson begins with `---`, `title: …`, `kernelspec: …`, `---`"
    if not text.startswith("---\n"):
        raise BuildError(lesson, f"no front matter: {expected}", line=1)
    body, end, _ = text[4:].partition("\n---\n")
    if not end:
        raise BuildError(lesson, f"the front matter is not closed: {expected}", line=1)
    try:
        front = yaml.safe_load(body)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        raise BuildError(lesson, f"malformed front matter: {getattr(error, 'problem', error)}", line=line) from None
    if not isinstance(front, dict):
        raise BuildError(lesson, f"malformed front matter: {expected}", line=1)
    for key in ("title", "kernelspec"):
        if key not in front:
            raise BuildError(lesson, f"the front matter has no {key!r}: {expected}", line=1)
    if front.get("assignment", lesson) != lesson:
        raise BuildError(
            lesson, f"the front matter says assignment: {front['assignment']}, the file is {lesson}.md", line=1
        )
    return front


def _first_line(lines: list[str], at: int, kind: str) -> int:
    """1-based line of the first character of a cell; `at` is jupytext's 0-based start."""
    if kind == "markdown":
        while at < len(lines) and (not lines[at].strip() or lines[at].startswith("+++")):
            at += 1
        return at + 1
    if at < len(lines) and lines[at].startswith("---"):
        at += 1
        while at < len(lines) and not lines[at].startswith("---"):
            at += 1
        at += 1
    while at < len(lines) and lines[at].lstrip().startswith(":"):
        at += 1
    if at < len(lines) and not lines[at].strip():
        at += 1
    return at + 1


def plain(node: Any) -> Any:
    """Nbformat's nodes as plain dicts and lists."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return node
