"""Load on purpose: what it uses, what it shares, and that it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from course.error import UsageError
from course.load import burners, cpu_seconds, sharers


def _wait_for(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the awaited condition did not come true"
        time.sleep(0.01)


def test_burners_use_the_kind_of_time_they_are_named_after():
    """A user burner computes, a system burner keeps the kernel busy; psutil is the witness."""
    with burners("user", "system") as (user, system):
        _wait_for(lambda: min(cpu_seconds(user), cpu_seconds(system)) > 0.3)
        user_times, system_times = psutil.Process(user).cpu_times(), psutil.Process(system).cpu_times()
    assert user_times.user > user_times.system
    assert system_times.system > system_times.user


def test_cpu_seconds_agrees_with_psutil_whatever_the_name_of_the_process():
    """A name with spaces and parentheses does not shift the fields."""
    with burners("user", names=["a) 1 (b"]) as (pid,):
        _wait_for(lambda: cpu_seconds(pid) > 0.1)
        before = sum(psutil.Process(pid).cpu_times()[:2])
        ours = cpu_seconds(pid)
        after = sum(psutil.Process(pid).cpu_times()[:2])
        assert Path(f"/proc/{pid}/comm").read_text() == "a) 1 (b\n"
    assert before <= ours <= after


def test_niceness_is_set_before_the_block_begins():
    """The kernel reports the niceness that was asked for."""
    with burners("sleep", "sleep", nice=[0, 10]) as (first, second):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, first) == own
        assert os.getpriority(os.PRIO_PROCESS, second) == min(19, own + 10)


def test_sharers_hold_the_same_pages():
    """A sharer's proportional size is a fraction of its resident size."""
    with sharers(3, 32) as pids:
        info = [psutil.Process(pid).memory_full_info() for pid in pids]
    assert all(i.rss > 32 << 20 for i in info)
    assert all(i.pss < 16 << 20 for i in info)


def test_nothing_is_left_when_the_block_ends():
    """Every process is gone and reaped, even when the block ends by an error."""
    pids: list[int] = []

    def interrupted() -> None:
        with burners("user", "sleep") as burning, sharers(2, 1) as sharing:
            pids.extend([*burning, *sharing])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_load_ends_with_its_killed_parent():
    """A parent that is killed cannot clean up: its burners and sharers end all the same."""
    program = (
        "from course.load import burners, sharers\n"
        "with burners('user') as a, sharers(1, 1) as b:\n"
        "    print(*a, *b, flush=True)\n"
        "    input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2

    def gone(pid):
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    _wait_for(lambda: all(gone(pid) for pid in pids))


def test_unknown_kinds_and_processes_are_named():
    """A wrong argument is told with its value and what was expected."""
    with pytest.raises(UsageError, match="'disk'; expected one of user, system, sleep"), burners("disk"):
        pass
    with pytest.raises(UsageError, match="no process 4194999"):
        cpu_seconds(4194999)
