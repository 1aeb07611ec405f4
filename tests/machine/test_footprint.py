"""Footprints of processes, against psutil and the detailed map."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import pytest

from course.error import CapabilityError, UsageError
from course.load import sharers
from course.machine.footprint import footprint


def test_footprint_agrees_with_psutil():
    """Resident, proportional and private size of processes that share memory are what psutil says."""
    with sharers(2, 24) as pids:
        for pid in pids:
            ours, theirs = footprint(pid), psutil.Process(pid).memory_full_info()
            # psutil adds the detailed map, whose proportional sizes are rounded down to kB each.
            assert theirs.pss / 2**20 == pytest.approx(ours.pss_mib, abs=1.0)
            assert theirs.uss / 2**20 == pytest.approx(ours.private_mib, abs=1.0)
            assert theirs.rss / 2**20 == pytest.approx(ours.rss_mib, abs=1.0)


def test_footprint_is_the_sum_of_the_detailed_map():
    """`smaps_rollup` is the sum of `smaps`."""
    with sharers(1, 8) as (pid,):
        detailed = sum(int(kib) for kib in re.findall(r"^Rss:\s+(\d+)", Path(f"/proc/{pid}/smaps").read_text(), re.M))
        assert footprint(pid).rss_mib == detailed / 1024


def test_shared_pages_are_counted_once_in_the_sum_of_proportions():
    """Three holders of 24 MiB (and their parent) hold about 24 MiB together, not 96."""
    with sharers(3, 24) as pids:
        sizes = [footprint(pid) for pid in pids]
    assert sum(s.pss_mib for s in sizes) < 40
    assert sum(s.rss_mib for s in sizes) > 72
    assert all(s.private_mib <= s.pss_mib <= s.rss_mib for s in sizes)


def test_a_process_that_does_not_exist_is_named():
    """The message holds the pid."""
    with pytest.raises(UsageError, match="no process 4194999"):
        footprint(4194999)


@pytest.mark.skipif(os.getuid() == 0, reason="root may look at every process")
def test_a_process_of_somebody_else_is_refused():
    """PID 1 belongs to root: the message says what to look at instead."""
    with pytest.raises(CapabilityError, match="your own user"):
        footprint(1)
