"""A pytest plugin that says which tests have to share a worker when several run (``-n 2 --dist loadgroup``).

Tests of one file stay together, so that they share what their fixtures made, and so do the cells of one notebook, which
run in one kernel. Where a file holds many independent groups (the answers of each exercise, the grading cycle of each
lesson) each group may go to a worker of its own.
"""

from __future__ import annotations

import pytest

GROUPING_PARAMETERS = {
    "test_answers.py": ("answer", "lesson", "exercise"),
    "test_cycle.py": ("lesson",),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark each test with its group."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item):
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    parts = [item.path.name if item.path.suffix == ".ipynb" else str(item.path)]
    for name in GROUPING_PARAMETERS.get(item.path.name, ()):
        value = parameters.get(name)
        parts.append(f"{value.lesson}-{value.exercise}" if name == "answer" and value else str(value or ""))
    return "-".join(filter(None, parts)).replace("/", ".")
