"""Figures of a lesson: the files under ``course/lessons/figures`` that its text shows, copied next to its notebooks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..error import BuildError
from .text import Cell, Lesson

_MARKDOWN = re.compile(r"!\[(?P<alt>(?:[^\]\\]|\\.)*)\]\(\s*<?(?P<path>[^)\s>]+)>?(?:\s+[\"'][^)]*)?\)")
_HTML = re.compile(r"<img\b(?P<attributes>[^>]*)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


def images(cell: Cell) -> list[tuple[str, str, int]]:
    """Path, alternative text and 0-based line of each image that a Markdown cell shows."""
    if cell.kind != "markdown":
        return []
    found = [(m["path"], m["alt"], m.start()) for m in _MARKDOWN.finditer(cell.source)]
    for match in _HTML.finditer(cell.source):
        attributes = {key.lower(): one or two for key, one, two in _ATTRIBUTE.findall(match["attributes"])}
        found.append((attributes.get("src", ""), attributes.get("alt", ""), match.start()))
    return [(path, alt, cell.source.count("\n", 0, at)) for path, alt, at in sorted(found, key=lambda image: image[2])]


def figures(lesson: Lesson, folder: Path) -> dict[str, bytes]:
    """The content of every local file that `lesson` shows, by its path as the text writes it.

    Args:
        lesson: the lesson.
        folder: where paths start: the folder of the lesson texts.

    Raises:
        BuildError: a figure that does not exist, or lies elsewhere than in ``figures/``.
    """
    found: dict[str, bytes] = {}
    for cell in lesson.cells:
        for path, _, index in images(cell):
            if re.match(r"[a-z]+:", path):
                continue
            at = {"line": cell.line + index, "cell": cell.id}
            if not path.startswith("figures/") or ".." in Path(path).parts:
                raise BuildError(lesson.name, f"image {path}: put it into course/lessons/figures/", **at)  # type: ignore[arg-type]
            if not (folder / path).is_file():
                raise BuildError(lesson.name, f"image {path} does not exist in course/lessons/", **at)  # type: ignore[arg-type]
            found[path] = (folder / path).read_bytes()
    return found


def write(found: dict[str, bytes], folder: Path) -> None:
    """Make ``folder/figures`` hold exactly `found`; files that are right already are not touched."""
    for path, content in found.items():
        target = folder / path
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for stale in present(folder).keys() - found.keys():
        (folder / stale).unlink()
    if not found and (folder / "figures").is_dir():
        shutil.rmtree(folder / "figures")


def present(folder: Path) -> dict[str, bytes]:
    """The figures next to a notebook."""
    files = sorted(path for path in (folder / "figures").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
