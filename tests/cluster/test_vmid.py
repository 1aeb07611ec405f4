"""Numbers of guests."""

from __future__ import annotations

import json

import pytest

from course.cluster.vmid import next_free
from course.error import ClusterError, ParameterError


def test_a_number_that_is_taken_is_refused_as_recorded(recordings, compare):
    """The recorded refusals of /cluster/nextid for guests that exist."""
    cases = []
    for exchange in recordings:
        if "/cluster/nextid?vmid=" in exchange["uri"] and exchange["status"] == 400:
            expected = json.loads(exchange["body"])["errors"]
            wanted = int(exchange["uri"].rpartition("=")[2])
            if "already exists" in expected["vmid"]:
                with pytest.raises(ParameterError) as caught:
                    next_free({wanted}, wanted)
                cases.append((exchange["uri"], expected, caught.value.errors))
    compare("recorded refusals of a VMID", cases)


def test_the_least_free_number_is_chosen():
    """Gaps are filled, ranges are kept, and the end is said."""
    assert next_free(set()) == 100
    assert next_free({100, 101, 103}) == 102
    assert next_free({100}, 169) == 169
    assert next_free(set(), lower=5000) == 5000
    with pytest.raises(ClusterError, match=r"unable to get any free VMID in range \[200, 201\]"):
        next_free({200, 201}, lower=200, upper=202)
