"""Feedback without hidden tests: a student sees that they ran and what they said, never how they test.

nbgrader copies a test cell with its hidden region, and tracebacks through it, into the student's page. This
preprocessor (in ``c.GenerateFeedback.preprocessors``) takes the region away and shortens tracebacks that show the
grader's code; the verdict of a check, made from observed values, stays.

The page is opened by a student, and by the instructor: HTML that a submission carries must not run there. nbconvert's
``sanitize_html`` covers outputs, not the Markdown of nbgrader's own template, and turns even paragraphs and table
heads into text. `clean` takes its place under both names that the templates use.
"""

from __future__ import annotations

import re
from typing import Any

from nbformat import from_dict
from nbgrader.preprocessors import NbGraderPreprocessor

from .displays import harmless

Node = Any
_BEGIN, _END = "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"
_PLACEHOLDER = "# (hidden checks ran here)"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MIN_LENGTH = 8
_FORMATTING = """
a abbr b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s small span
strong sub summary sup table tbody td tfoot th thead tr ul var
"""
_ATTRIBUTES = {
    "*": ["class", "id", "title", "role", "aria-label", "style"],
    "a": ["href"],
    "img": ["src", "alt", "width", "height"],
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    "details": ["open"],
    "ol": ["start"],
}


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


def clean(html: str | bytes) -> str:
    """Keep what formats text; what could run, load or style the page around it becomes visible text or goes."""
    import bleach  # type: ignore[import-untyped]  # noqa: PLC0415 - only pages need it
    from bleach.css_sanitizer import CSSSanitizer  # type: ignore[import-untyped]  # noqa: PLC0415

    text = html.decode() if isinstance(html, bytes) else str(html)
    styles = CSSSanitizer(allowed_css_properties=["margin", "padding", "border-left", "text-align", "color"])
    return str(bleach.clean(text, tags=frozenset(_FORMATTING.split()), attributes=_ATTRIBUTES, css_sanitizer=styles))


def clean_markdown(html: str) -> str:
    """What the templates call ``strip_files_prefix``, the last step of all Markdown, and `clean` after it."""
    from nbconvert.filters import strip_files_prefix  # noqa: PLC0415

    return clean(strip_files_prefix(html))  # type: ignore[no-untyped-call]


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
    if "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)  # a page has no state of widgets
        data, about = harmless(output.data, output.get("metadata", {}))
        output.data = from_dict(data)  # type: ignore[no-untyped-call]
        output.metadata = from_dict(about)  # type: ignore[no-untyped-call]
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
