"""A pytest plugin that gives a failed test a second and a third try, and lists who needed one.

Most tests here meet real machines, processes and clocks of a host that others use too. One stalled scheduler must not
turn thousands of results red; a broken product fails three times out of three. Nothing is hidden: `pytest` prints each
test that needed another try, with what went wrong at first, so that one who returns is repaired.

Cells of notebooks get no second try: they depend on those before them.
"""

from __future__ import annotations

import pytest

TRIES = 3


def pytest_collection_modifyitems(config, items):
    """Mark each test function for pytest-rerunfailures, unless it has marks of its own or that plugin is left out."""
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if isinstance(item, pytest.Function) and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=TRIES - 1))


def second_tries(terminalreporter):
    """List the tests that failed at first: their id and the reason."""
    failures = terminalreporter.stats.get("rerun", ())
    if not failures:
        return
    terminalreporter.section("tests that failed at first and were tried again")
    for report in failures:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else str(report.longrepr)
        terminalreporter.write_line(f"{report.nodeid}\n    {reason.strip()[:300]}")
