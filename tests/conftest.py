"""For all tests."""

from .workers import pytest_xdist_make_scheduler  # noqa: F401 - a hook
