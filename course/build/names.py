"""Where the names in a test come from: a judge must not come from the side of the judged.

A grader runs test cells in a process of its own, into which answers come as plain data. There, a name may be

- built in, or bound by this or an earlier test or locked cell: their text is the instructor's;
- imported by an ordinary cell of the instructor's notebook, such as ``from course.check import passport as check``:
  the judge makes that import itself, whatever the student's copy of the cell says;
- defined by an answer of the instructor's notebook: calls go to the student's process.

A name from anywhere else would be judged by what the student made of it; `Origins.foreign` finds such names.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import symtable
from collections.abc import Iterable, Iterator, Mapping

_BUILT_IN = frozenset(dir(builtins)) | {"__name__", "__doc__"}


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of one cell's code.

    Attributes:
        bound: bound at its top level, by assignment, import, def or class.
        functions: those of them that ``def``, ``async def`` or ``class`` binds.
        read: read from outside any function, or from within one as a global.
        imports: a statement for each name that a top-level import binds.
    """

    bound: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    imports: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, source: str) -> Names:
        """Read a cell's names without running it.

        Raises:
            SyntaxError: it is not plain Python.
        """
        tree = ast.parse(source)
        table = symtable.symtable(source, "cell", "exec")
        bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
        defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
        return cls(frozenset(bound), frozenset(defined), frozenset(_read(table)), dict(_imports(tree)))


@dataclasses.dataclass(frozen=True)
class Origins:
    """What tests may name, apart from what they bind themselves.

    Attributes:
        answers: names that the instructor's answers bind.
        functions: those of them that ``def`` or ``class`` binds; the others are values.
        imports: statements by name, from the instructor's ordinary cells.
    """

    answers: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    imports: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, answers: Iterable[str], ordinary: Iterable[str]) -> Origins:
        """Read the instructor's notebook: sources of its answers, and of the cells that nbgrader knows nothing of."""
        known = [_lenient(source) for source in answers]
        imports: dict[str, str] = {}
        for source in ordinary:
            imports |= _lenient(source).imports
        return cls(
            frozenset().union(*(names.bound for names in known)),
            frozenset().union(*(names.functions for names in known)),
            imports,
        )

    def foreign(self, test: Names, bound_before: Iterable[str] = ()) -> list[str]:
        """Names that a test reads and that come from none of the places above, sorted.

        Args:
            test: the test's names.
            bound_before: what earlier test and locked cells bind.
        """
        known = _BUILT_IN | test.bound | self.answers | set(self.imports) | set(bound_before)
        return sorted(test.read - known)


def bare_truths(source: str, answers: Iterable[str]) -> list[str]:
    """Assertions that hold for nearly anything that an answer returns: ``assert answer(3)``."""
    names = set(answers)
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert)
        and isinstance(node.test, ast.Call)
        and isinstance(node.test.func, ast.Name)
        and node.test.func.id in names
    ]


def _lenient(source: str) -> Names:
    """Names of a cell that may hold IPython's own lines, which bind nothing that tests may name."""
    plain = "\n".join("pass" if line.startswith(("!", "%")) else line for line in source.split("\n"))
    try:
        return Names.of(plain)
    except SyntaxError:
        return Names()


def _read(table: symtable.SymbolTable, top: bool = True) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _read(child, top=False)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                alone = (
                    ast.Import([alias])
                    if isinstance(node, ast.Import)
                    else ast.ImportFrom(node.module, [alias], node.level)
                )
                yield name, ast.unparse(alone)
