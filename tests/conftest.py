"""For all tests: what `pytest` has to know before it spreads them over workers."""

from . import second_try, summary
from .second_try import pytest_collection_modifyitems  # noqa: F401 - a hook
from .workers import pytest_xdist_make_scheduler  # noqa: F401 - a hook


def pytest_terminal_summary(terminalreporter):
    """What the run has to say besides pytest's own summary."""
    summary.answers(terminalreporter)
    summary.vectors(terminalreporter)
    summary.calls(terminalreporter)
    second_try.second_tries(terminalreporter)
