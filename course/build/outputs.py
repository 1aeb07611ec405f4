"""What is kept of a run: canonical bytes, and old outputs where only volatile text changed.

Sticky outputs: a rebuild that measures 0.31 s instead of 0.29 s must not change a committed file. Two outputs are the
same when they are equal after `tests/notebooks/sanitize.cfg`, which nbval reads too, has replaced what is volatile.
As in nbval, tracebacks, pictures and widget model ids are not compared, and a cell tagged ``nbval-ignore-output`` is
compared only by the kinds of its outputs. To get fresh outputs, remove the notebook and build.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

Patterns = list[tuple[re.Pattern[str], str]]
Node = dict[str, Any]

_PICTURES = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}


def patterns(path: Path) -> Patterns:
    """Read nbval's sanitize file; none when it does not exist."""
    if not path.exists():
        return []
    pairs = re.findall(r"^regex: (.*)$\n^replace: (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(re.compile(regex), replacement) for regex, replacement in pairs]


def sanitize(node: Any, rules: Patterns) -> Any:
    """A copy of an output with its volatile parts replaced."""
    if isinstance(node, str):
        for regex, replacement in rules:
            node = regex.sub(replacement, node)
        return node
    if isinstance(node, list):
        return [sanitize(item, rules) for item in node]
    if isinstance(node, dict):
        return {
            key: key if key in _PICTURES or key in ("traceback", "model_id") else sanitize(value, rules)
            for key, value in node.items()
        }
    return node


def keep_old(new: Node, old: Node, rules: Patterns) -> int:
    """Give the cells of `new` their outputs in `old` where nothing but volatile text differs; returns how many."""
    before = {cell["id"]: cell for cell in old["cells"] if cell["cell_type"] == "code"}
    kept = 0
    for cell in new["cells"]:
        known = before.get(cell["id"])
        if cell["cell_type"] != "code" or known is None or known["source"] != cell["source"]:
            continue
        if _same(cell, known, rules):
            cell["outputs"] = known["outputs"]
            kept += 1
    return kept


def _same(new: Node, old: Node, rules: Patterns) -> bool:
    if "nbval-ignore-output" in new["metadata"].get("tags", []):
        return [_shape(output) for output in new["outputs"]] == [_shape(output) for output in old["outputs"]]
    return bool(sanitize(new["outputs"], rules) == sanitize(old["outputs"], rules))


def _shape(output: Node) -> tuple[str, str, list[str]]:
    return output["output_type"], output.get("name", ""), sorted(output.get("data", {}))


def read(path: Path) -> Node:
    """Read a notebook as plain data, with texts joined as in memory."""
    notebook: Node = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = _joined(cell["source"])
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = _joined(output["text"])
            for mime, value in output.get("data", {}).items():
                if not mime.endswith("json"):
                    output["data"][mime] = _joined(value)
    return notebook


def dumps(notebook: Node) -> str:
    """The one way in which a notebook is written: nbformat's, and a newline at the end."""
    from .text import without_grammar  # noqa: PLC0415

    without_grammar()
    import nbformat  # noqa: PLC0415 - slow to import

    node = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    return str(nbformat.writes(node)) + "\n"  # type: ignore[no-untyped-call]


def without_outputs(notebook: Node) -> Node:
    """What the text determines: everything but outputs and execution counts."""
    bare = json.loads(json.dumps(notebook))
    for cell in bare["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return dict(bare)


def _joined(text: str | list[str]) -> str:
    return "".join(text) if isinstance(text, list) else text
