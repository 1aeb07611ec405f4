"""Prove that nothing which students must not have is in what they get.

Secrets are the lines of every solution and hidden test in the lesson texts, and of everything in
``autograder/checks`` and ``autograder/answers``. Two ways of finding them in a folder (notebooks, texts, wheels,
whatever their names):

- a *line* that is distinctive: long enough, and nowhere in what is meant to be public (the lessons without their
  solutions, the package that students install). Finds what slipped through when files were made.
- a *block*: a solution, hidden test or function of the autograder, line by line in order. Also finds what a person put
  into the public package by mistake, which makes its lines "public".

White space is ignored, and so are comment and quotation marks before a line.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .expand import load
from .layout import Layout
from .markers import Region, regions, without

LINE_CHARACTERS = 20
"""Shorter lines, such as ``return total``, say nothing."""
BLOCK_LINES, BLOCK_CHARACTERS = 3, 80
_FORBIDDEN_NAMES = re.compile(r"(^|/)(autograder|course/(lessons|build|locale|decisions)|source|gradebook\.db)(/|$)")
_MARKER = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)")


@dataclasses.dataclass(frozen=True)
class Leak:
    """Something that students must not have.

    Attributes:
        path: the file, with ``!`` before a file inside an archive.
        what: the secret, shortened.
        origin: where it belongs.
    """

    path: str
    what: str
    origin: str

    def __str__(self) -> str:
        return f"{self.path}: leaks {self.what!r} of {self.origin}"


@dataclasses.dataclass
class Secrets:
    """What students must not get.

    Attributes:
        lines: origin by distinctive line, normalised.
        blocks: origin by block of lines, normalised and joined by newlines.
    """

    lines: dict[str, str]
    blocks: dict[str, str]

    @classmethod
    def of(cls, layout: Layout) -> Secrets:
        """Collect the secrets of a course.

        Raises:
            BuildError: a lesson's text cannot be read.
        """
        blocks = [*_lesson_blocks(layout), *_function_blocks(layout)]
        loose = [(line, origin) for origin, lines in (*blocks, *_grader_lines(layout)) for line in lines]
        public = "\n".join(map(normalise, _public_texts(layout)))
        lines = {line: origin for line, origin in loose if len(line) >= LINE_CHARACTERS and line not in public}
        whole = {
            "\n".join(lines): origin
            for origin, lines in blocks
            if len(lines) >= BLOCK_LINES and sum(map(len, lines)) >= BLOCK_CHARACTERS
        }
        return cls(lines, whole)

    def search(self, folder: Path) -> list[Leak]:
        """Look through every file below `folder`, into archives and notebooks."""
        starts: dict[str, list[str]] = {}
        for line in self.lines:
            starts.setdefault(line[:LINE_CHARACTERS], []).append(line)
        found: dict[tuple[str, str], Leak] = {}
        for path, content in _files(folder):
            for leak in self._in_file(path, content, starts):
                found.setdefault((leak.path, leak.what), leak)
        return list(found.values())

    def _in_file(self, path: str, content: bytes, starts: dict[str, list[str]]) -> Iterator[Leak]:
        if match := _FORBIDDEN_NAMES.search(path.rpartition("!")[2]):
            yield Leak(path, match[0].strip("/"), "the authors' side")
        text = normalise(_text(path, content))
        for at in range(len(text) - LINE_CHARACTERS + 1):
            for line in starts.get(text[at : at + LINE_CHARACTERS], ()):
                if text.startswith(line, at):
                    yield Leak(path, _short(line), self.lines[line])
        for block, origin in self.blocks.items():
            if block in text:
                yield Leak(path, _short(block), origin)
        if path.endswith(".ipynb") and (marker := _MARKER.search(text)):
            yield Leak(path, marker[0], "nbgrader's markers")


def normalise(text: str) -> str:
    """Lines without white space differences, comment and quotation marks; empty ones left out."""
    stripped = (re.sub(r"\s+", " ", line).strip().lstrip("#> ") for line in text.splitlines())
    return "\n".join(line for line in stripped if line)


def release_leaks(layout: Layout) -> list[Leak]:
    """Look through all releases; paths are relative to the root."""
    folder = layout.root / "release"
    found = Secrets.of(layout).search(folder) if folder.is_dir() else []
    return [dataclasses.replace(leak, path=f"release/{leak.path}") for leak in found]


def _lesson_blocks(layout: Layout) -> Iterator[tuple[str, list[str]]]:
    for lesson in layout.all_lessons():
        for cell in load(layout.text(lesson)).cells:
            for block in regions(cell.source):
                kind = block.region.value.lower()
                lines = normalise("\n".join(block.lines)).splitlines()
                yield f"the {kind} of cell {cell.id} in {lesson}", lines


def _grader_files(layout: Layout) -> Iterator[tuple[str, str]]:
    for folder in ("checks", "answers"):
        for path in sorted((layout.root / "autograder" / folder).rglob("*.py")):
            yield path.relative_to(layout.root).as_posix(), path.read_text(encoding="utf-8")


def _grader_lines(layout: Layout) -> Iterator[tuple[str, list[str]]]:
    for name, text in _grader_files(layout):
        yield name, normalise(text).splitlines()


def _function_blocks(layout: Layout) -> Iterator[tuple[str, list[str]]]:
    for name, text in _grader_files(layout):
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                source = "\n".join(lines[body[0].lineno - 1 : body[-1].end_lineno])
                yield f"{node.name} in {name}", normalise(source).splitlines()


def _public_texts(layout: Layout) -> Iterator[str]:
    for lesson in layout.all_lessons():
        yield from (without(cell.source, *Region) for cell in load(layout.text(lesson)).cells)
    hidden = [layout.root / "course" / name for name in ("lessons", "build", "locale", "decisions")]
    for path in sorted((layout.root / "course").rglob("*.py")):
        if not any(path.is_relative_to(folder) for folder in hidden):
            yield path.read_text(encoding="utf-8")


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield from _unpacked(path.relative_to(folder).as_posix(), path.read_bytes())


def _unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, b"" if zipfile.is_zipfile(io.BytesIO(content)) else content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield from _unpacked(f"{name}!{member.filename}", archive.read(member))


def _text(path: str, content: bytes) -> str:
    text = content.decode("utf-8", errors="replace")
    if path.endswith(".ipynb"):
        try:
            return "\n".join(_strings(json.loads(text)))
        except ValueError:
            return text
    return text


def _strings(node: object) -> Iterator[str]:
    """Every text in a JSON document; a list of lines is one text."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list) and node and all(isinstance(item, str) for item in node):
        yield "".join(node)
    elif isinstance(node, list | dict):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _strings(item)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
