"""A pytest plugin that says which tests have to share a worker when several run (``-n 2 --dist loadfile``).

Tests of one file stay together, so that they share what their fixtures made, and so do the cells of one notebook, which
run in one kernel. Where a file holds many independent groups (the answers of each exercise, the grading cycle of each
lesson) each group may go to a worker of its own.

(xdist's own ``loadgroup`` would do, but its version 3.8 marks tests in a way that pytest 9.2 no longer sees.)
"""

from __future__ import annotations

import re

GROUPS = {
    # test_...[why_virtualize-share/with_taskset-1] and test_...[why_virtualize-share-share-1]
    "test_answers.py": re.compile(r"\[(\w+-\w+)"),
    # test_...[01-why-virtualize]
    "test_cycle.py": re.compile(r"\[(\d\d-[\w-]+)\]"),
}


def group(nodeid: str) -> str:
    """Name what a test shares its worker with: its file, or its group within the file."""
    file = nodeid.partition("::")[0]
    pattern = GROUPS.get(file.rpartition("/")[2])
    found = pattern and pattern.search(nodeid)
    return f"{file}[{found[1]}]" if found else file


def pytest_xdist_make_scheduler(config, log):
    """Schedule by `group` where files were asked for."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LoadGroups(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    return LoadGroups(config, log)
