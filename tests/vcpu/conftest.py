"""The engines that this machine has; a test that asks for `engine` runs on each, or is skipped with the reason."""

import functools

import pytest

from course.vcpu import ENGINES, find


@functools.cache
def availability(name):
    """Ask once."""
    return find(name)


@pytest.fixture(params=list(ENGINES))
def engine(request):
    """The name of an engine that is here."""
    found = availability(request.param)
    if not found:
        pytest.skip(f"{found.name}: {found.why}")
    return request.param
