"""What an execution is known by: another budget, student or level is another execution."""

from __future__ import annotations

import pytest

from autograder.remembering import CachedExecute

from .tiny import SOURCE, submission

RESOURCES = {"metadata": {}, "nbgrader": {"student": "ada", "assignment": "tiny", "notebook": "tiny"}}


def key(**options):
    """The key of one submission, executed with these options."""
    executor = CachedExecute(**{"sandbox": "none", "cache_directory": "/nowhere", **options})
    executor.source = SOURCE
    return executor.key(submission(), RESOURCES)


@pytest.mark.parametrize(
    "name", ["timeout", "check_timeout", "notebook_timeout", "max_restarts", "output_limit", "notebook_output_limit"]
)
def test_a_budget_is_part_of_the_key(name):
    """Who allows more has everything executed anew: what had been cut off may end now."""
    assert key() == key()
    assert key(**{name: 77}) == key(**{name: 77}) != key()


def test_a_variant_is_part_of_the_key():
    """With a secret, inputs are a student's own."""
    assert key(course_secret="one") not in (key(), key(course_secret="two"))
