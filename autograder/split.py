"""Which cells of a notebook are tests, and what each of them needs in the judge's process.

The instructor's notebook decides: which names are answers, which imports its ordinary cells make
(`course.build.names`). A test that names anything else would be judged by what a student made of it, and is refused.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from course.build.names import Names, Origins

from . import notebooks

Node = Any


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a test is run with.

    Attributes:
        preamble: names, or cells, and the statements that make them, in order.
        functions: names of answers that are called.
        values: names of answers that are values.
        refused: why the test is not run at all; empty when it is.
    """

    preamble: Sequence[tuple[str, str]] = ()
    functions: Sequence[str] = ()
    values: Sequence[str] = ()
    refused: str = ""


class Plan:
    """What the tests of one notebook need.

    Args:
        source: the instructor's notebook, which says where names come from.
    """

    def __init__(self, source: Node) -> None:
        code = [cell for cell in source.cells if cell.cell_type == "code"]
        self.origins = Origins.of(
            [cell.source for cell in code if is_answer(cell)],
            [cell.source for cell in code if not cell.metadata.get("nbgrader")],
        )

    def needs(self, cells: Sequence[Node]) -> dict[int, Needs]:
        """What each test among the cells of a submission needs, by index."""
        found: dict[int, Needs] = {}
        locked: list[tuple[str, str]] = []
        before: dict[str, str] = {}
        bound: set[str] = set()
        for index, cell in enumerate(cells):
            if cell.cell_type != "code" or not is_instructors(cell):
                continue
            try:
                names = Names.of(cell.source)
            except SyntaxError as error:
                found[index] = Needs(refused=f"it is not plain Python: {error.msg}, line {error.lineno}")
                continue
            if is_test(cell):
                found[index] = self._needs(names, locked, before, bound)
            else:
                locked.append((f"<locked cell {index}>", cell.source))
            before |= dict(_bindings(cell.source))
            bound |= names.bound
        return found

    def _needs(
        self, test: Names, locked: Sequence[tuple[str, str]], before: Mapping[str, str], bound: set[str]
    ) -> Needs:
        if foreign := self.origins.foreign(test, bound):
            return Needs(
                refused=f"it names {', '.join(foreign)}, which neither the test nor an answer of the instructor's "
                "notebook defines: what judges an answer must not come from the student's side"
            )
        read = set(test.read)
        for _, code in locked:
            read |= Names.of(code).read
        imports = self.origins.imports
        theirs = {name for name in read & self.origins.answers if name not in bound}
        preamble = [(name, imports[name]) for name in sorted(read & set(imports) - theirs - bound)]
        preamble += locked
        preamble += [(name, code) for name, code in before.items() if name in test.read and name not in theirs]
        functions = sorted(theirs & self.origins.functions)
        return Needs(preamble, functions, sorted(theirs - self.origins.functions))


def is_test(cell: Node) -> bool:
    """True for a cell whose marks a program gives."""
    flags = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and bool(flags.get("grade")) and not flags.get("solution")


def is_answer(cell: Node) -> bool:
    """True for a cell that the student completes."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def is_instructors(cell: Node) -> bool:
    """True for code that nbgrader puts back as it was released: tests and locked cells."""
    flags = cell.metadata.get("nbgrader", {})
    return not flags.get("solution") and bool(flags.get("grade") or flags.get("locked"))


def modules(code: str) -> set[str]:
    """Dotted names of all that a piece of code imports, also inside functions."""
    found: set[str] = set()
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def source_notebook(coursedir: Any, resources: Mapping[str, Any]) -> Node | None:
    """The instructor's notebook, else the released one; None when there is neither."""
    names = resources["nbgrader"]
    for directory in (coursedir.source_directory, coursedir.release_directory):
        folder = Path(coursedir.root) / coursedir.format_path(directory, ".", names["assignment"])
        path = folder / f"{names['notebook']}.ipynb"
        if path.is_file():
            return notebooks.read(path)
    return None


def _bindings(code: str) -> Iterator[tuple[str, str]]:
    """What a test binds that a later one may name: imports, and functions and classes without decorators."""
    tree = ast.parse(code)
    yield from Names.of(code).imports.items()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.decorator_list:
            yield node.name, ast.unparse(node)
