"""Feedback without hidden tests: a student sees that they ran and what they said, never how they test.

nbgrader copies a test cell with its hidden region, and tracebacks through it, into the student's page. This
preprocessor (in ``c.GenerateFeedback.preprocessors``) takes the region away and shortens tracebacks that show the
grader's code; the verdict of a check, made from observed values, stays.
"""

from __future__ import annotations

import re
from typing import Any

from nbgrader.preprocessors import NbGraderPreprocessor

Node = Any
_BEGIN, _END = "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"
_PLACEHOLDER = "# (hidden checks ran here)"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MIN_LENGTH = 8


class HideHiddenTests(NbGraderPreprocessor):  # type: ignore[misc]
    """Removes hidden tests, and what quotes them, from a graded notebook."""

    def preprocess(self, nb: Node, resources: Any) -> tuple[Node, Any]:
        """Clean every cell: a student's code may have printed a test that it found in another cell."""
        hidden = {line for cell in nb.cells for line in hidden_lines(cell.source)}
        for cell in nb.cells:
            cell.source = _without_region(cell.source)
            if cell.cell_type == "code":
                cell.outputs = [_cleaned(output, hidden) for output in cell.outputs]
        return nb, resources


def hidden_lines(source: str) -> set[str]:
    """The lines of the hidden regions of a cell that are long enough to be recognised."""
    found, inside = set(), False
    for line in source.split("\n"):
        if _BEGIN in line:
            inside = True
        elif _END in line:
            inside = False
        elif inside and len(line.strip()) >= _MIN_LENGTH:
            found.add(line.strip())
    return found


def _without_region(source: str) -> str:
    kept, inside = [], False
    for line in source.split("\n"):
        if _BEGIN in line:
            inside = True
            kept.append(_PLACEHOLDER)
        elif _END in line:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _cleaned(output: Node, hidden: set[str]) -> Node:
    if output.output_type == "error":
        text = _ANSI.sub("", "\n".join(output.traceback))
        if _quotes(text, hidden):
            output.traceback = [f"{output.ename}: {output.evalue}"]
        return output
    if output.output_type == "stream":
        output.text = _censored(output.text, hidden)
    for mime, value in output.get("data", {}).items():
        if isinstance(value, str):
            output.data[mime] = _censored(value, hidden)
    return output


def _quotes(text: str, hidden: set[str]) -> bool:
    return "autograder/" in text or any(line in text for line in hidden)


def _censored(text: str, hidden: set[str]) -> str:
    for line in hidden:
        text = text.replace(line, _PLACEHOLDER)
    return text
