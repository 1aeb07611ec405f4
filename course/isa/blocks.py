"""Blocks of translated code: Python text in, a function out, nothing but arithmetic in between.

A translator writes text such as::

    def block(x, memory, cache):
        x[10] = (x[10] + x[5]) & 0xFFFFFFFF
        return 0x8 if x[5] != x[0] else 0x14

`load` makes a function of it. Text of unknown origin may be run so, for only what a block needs is let through: `x`
(32 registers), `memory` (a bytearray), `cache` (a dict of blocks by address), numbers, local names, and the functions
`int.from_bytes`, `.to_bytes`, `cache.clear` and `signed`. No attribute, name or statement besides.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from ..error import UsageError

Block = Callable[[list[int], bytearray, dict[int, Any]], int | None]
FILENAME = "<block>"
_ATTRIBUTES = {"from_bytes", "to_bytes", "clear"}
_CALLABLE = {"int", "signed"}
_STATEMENTS = (ast.Assign, ast.AugAssign, ast.Return, ast.If, ast.Expr, ast.Pass)
_EXPRESSIONS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice, ast.Constant,
                ast.Name, ast.Call, ast.Attribute, ast.Tuple, ast.List, ast.operator, ast.unaryop, ast.boolop,
                ast.cmpop, ast.expr_context, ast.keyword)  # fmt: skip
_DANGEROUS = (ast.Pow, ast.Mult, ast.MatMult)  # numbers that fill the memory of the machine that runs them
_MOST_CHARACTERS, _MOST_SHIFT, _MOST_BYTES = 200_000, 64, 8


class BlockError(UsageError):
    """A text that is not a block.

    Attributes:
        source: the whole text.
    """

    def __init__(self, source: str, line: int, why: str) -> None:
        lines = str(source).splitlines()
        shown = f" ({lines[line - 1].strip()})" if 0 < line <= len(lines) else ""
        super().__init__(f"line {line} of the block{shown}: {why}")
        self.source = source


def signed(value: int) -> int:
    """Return a register's value as a signed number of 32 bits: the block's own `signed`."""
    return value - (1 << 32) if value >> 31 else value


def load(source: str) -> Block:
    """Make a function of a block's text.

    Args:
        source: text of one function ``block(x, memory, cache)``, which returns the address of the next block, or None
            after ebreak.

    Raises:
        BlockError: naming the line that is no Python, or does what a block must not.
    """
    _examine(source)
    names: dict[str, Any] = {"__builtins__": {}, "int": int, "signed": signed}
    exec(compile(source, FILENAME, "exec"), names)  # noqa: S102 - only what _examine lets through
    block: Block = names["block"]
    return block


def _examine(source: str) -> None:
    if not isinstance(source, str):
        raise BlockError("", 0, f"a block is text; this is {type(source).__name__} {source!r:.60}")
    if len(source) > _MOST_CHARACTERS:
        raise BlockError(source, 0, f"{len(source)} characters are too many; at most {_MOST_CHARACTERS}")
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BlockError(source, getattr(error, "lineno", 0) or 0, f"this is no Python: {error}") from None
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].name != "block":
        raise BlockError(source, 1, "expected one function, def block(x, memory, cache)")
    function = body[0]
    if [a.arg for a in function.args.args] != ["x", "memory", "cache"] or function.decorator_list or function.returns:
        raise BlockError(source, 1, "expected def block(x, memory, cache)")
    arguments = function.args
    if arguments.defaults or arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        raise BlockError(source, 1, "expected three parameters without defaults")
    if any(argument.annotation for argument in arguments.args):
        raise BlockError(source, 1, "expected parameters without annotations")
    for statement in function.body:
        for node in ast.walk(statement):
            _examine_node(source, node)


def _examine_node(source: str, node: ast.AST) -> None:
    line = getattr(node, "lineno", 1)
    if not isinstance(node, _STATEMENTS + _EXPRESSIONS) or isinstance(node, _DANGEROUS):
        raise BlockError(source, line, f"a block has no use for {type(node).__name__}")
    if isinstance(node, ast.Attribute) and node.attr not in _ATTRIBUTES:
        raise BlockError(source, line, f"a block has no use for .{node.attr}")
    if isinstance(node, ast.Name) and node.id.startswith("_"):
        raise BlockError(source, line, f"a block has no use for {node.id}")
    own = {*_CALLABLE, "x", "memory", "cache"}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in own:
        raise BlockError(source, line, f"a block must not replace {node.id}")
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.LShift):
        raise BlockError(source, line, "write a shift to the left as x = x << number")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift) and not _small(node.right, _MOST_SHIFT):
        raise BlockError(source, line, f"a shift to the left goes by a number, at most {_MOST_SHIFT}")
    if isinstance(node, ast.Constant) and not isinstance(node.value, int) and node.value not in ("little", "big", None):
        raise BlockError(source, line, f"a block has no use for {node.value!r:.40}")
    if isinstance(node, ast.Call):
        _examine_call(source, node)


def _examine_call(source: str, node: ast.Call) -> None:
    if isinstance(node.func, ast.Name) and node.func.id not in _CALLABLE:
        raise BlockError(source, node.lineno, f"a block has no use for {node.func.id}()")
    if isinstance(node.func, ast.Attribute) and node.func.attr == "to_bytes":
        sizes = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "length")]
        if not all(_small(size, _MOST_BYTES) for size in sizes):
            raise BlockError(source, node.lineno, f"to_bytes makes at most {_MOST_BYTES} bytes here")


def _small(node: ast.expr, most: int) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and 0 <= node.value <= most
