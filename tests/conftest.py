"""For all tests: what `pytest` has to know before it spreads them over workers."""

from .summary import pytest_terminal_summary  # noqa: F401 - a hook
from .workers import pytest_xdist_make_scheduler  # noqa: F401 - a hook
