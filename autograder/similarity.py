"""Which submissions resemble each other more than the exercise explains: something for a person to look at, no verdict.

Each answer becomes a sequence of token kinds: names, numbers and strings lose their spelling, comments and docstrings
go, so renaming and re-spacing change nothing. Hashes of every run of `RUN` tokens are thinned out by *winnowing*
(Schleimer, Wilkerson and Aiken, 2003), which guarantees that a shared passage of `RUN + WINDOW - 1` tokens is noticed.
What the released notebook itself contains, and what more than half of the class wrote, is no evidence and is left out.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import itertools
import keyword
import tokenize
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

RUN = 12
WINDOW = 6
_KEPT = {tokenize.OP}
_LEFT_OUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two students whose answers share passages.

    Attributes:
        students: their ids, sorted.
        likeness: shared fingerprints / those of the shorter one, 0..1.
        shared: number of shared fingerprints.
    """

    students: tuple[str, str]
    likeness: float
    shared: int


def compare(answers: Mapping[str, str], released: str = "", *, at_least: float = 0.5, fewest: int = 8) -> list[Pair]:
    """Find pairs of students with much in common.

    Args:
        answers: student → the code of all their answers to a lesson.
        released: code that all were given.
        at_least: likeness from which a pair is listed.
        fewest: pairs that share fewer fingerprints are not listed: short answers resemble each other by nature.

    Returns:
        Pairs, the most alike first.
    """
    given = fingerprints(released)
    prints = {student: fingerprints(code) - given for student, code in answers.items()}
    common: Counter[int] = Counter(itertools.chain.from_iterable(prints.values()))
    half = max(2, len(answers) / 2)
    prints = {student: {p for p in own if common[p] <= half} for student, own in prints.items()}
    pairs = []
    for (a, first), (b, second) in itertools.combinations(sorted(prints.items()), 2):
        shared = len(first & second)
        likeness = shared / min(len(first), len(second)) if shared else 0.0
        if shared >= fewest and likeness >= at_least:
            pairs.append(Pair((a, b), likeness, shared))
    return sorted(pairs, key=lambda pair: (-pair.likeness, -pair.shared, pair.students))


def groups(pairs: Sequence[Pair]) -> list[tuple[tuple[str, ...], float]]:
    """Join pairs that have a student in common.

    Returns:
        Students of each group, sorted, with the likeness of its most alike pair; the most alike group first.
    """
    found: list[tuple[set[str], float]] = []
    for pair in pairs:
        joined, likeness = set(pair.students), pair.likeness
        apart = []
        for students, most in found:
            if students & joined:
                joined |= students
                likeness = max(likeness, most)
            else:
                apart.append((students, most))
        found = [*apart, (joined, likeness)]
    made = [(tuple(sorted(students)), likeness) for students, likeness in found]
    return sorted(made, key=lambda group: (-group[1], group[0]))


def fingerprints(code: str) -> set[int]:
    """Hashes that stand for a program's passages, whatever its names, numbers, spaces and comments are."""
    kinds = _kinds(code)
    hashes = [zlib.crc32(" ".join(kinds[i : i + RUN]).encode()) for i in range(len(kinds) - RUN + 1)]
    return {min(hashes[i : i + WINDOW]) for i in range(max(1, len(hashes) - WINDOW + 1))} if hashes else set()


def _kinds(code: str) -> Sequence[str]:
    """The token kinds of code that may not even be Python."""
    kinds = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(_without_docstrings(code)).readline):
            if token.type in _LEFT_OUT:
                continue
            exact = token.type in _KEPT or keyword.iskeyword(token.string)
            kinds.append(token.string if exact else tokenize.tok_name[token.type])
    except (tokenize.TokenError, SyntaxError):
        pass  # what was read up to there is enough
    return kinds


def _without_docstrings(code: str) -> str:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return code
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = node.body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)
