"""Answers to `share`."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil

from .. import alternative, mutant


def _pin(pids, cpu):
    for pid in pids:
        os.sched_setaffinity(pid, {cpu})


def _ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _parts(used):
    total = sum(used.values()) or 1
    return {pid: part / total for pid, part in used.items()}


def _measure(pids, seconds, ticks=_ticks):
    before = {pid: ticks(pid) for pid in pids}
    time.sleep(seconds)
    return _parts({pid: ticks(pid) - before[pid] for pid in pids})


if len(os.sched_getaffinity(0)) > 1:  # with one CPU nobody can tell, and there both are right

    @mutant("share", "not-pinned")
    def unpinned(pids, cpu, seconds):
        return _measure(pids, seconds)

    @mutant("share", "not-pinned")
    def pins_itself(pids, cpu, seconds):
        os.sched_setaffinity(0, {cpu})
        return _measure(pids, seconds)

    @mutant("share", "not-pinned")
    def pins_the_first(pids, cpu, seconds):
        _pin(pids[:1], cpu)
        return _measure(pids, seconds)

    @mutant("share", "not-pinned")
    def always_the_first_cpu(pids, cpu, seconds):
        _pin(pids, min(os.sched_getaffinity(0)))
        return _measure(pids, seconds)


@mutant("share", "equal-split")
def wall_time(pids, cpu, seconds):
    _pin(pids, cpu)
    start = time.monotonic()
    time.sleep(seconds)
    return _parts(dict.fromkeys(pids, time.monotonic() - start))


@mutant("share", "since-start")
def since_the_process_began(pids, cpu, seconds):
    _pin(pids, cpu)
    time.sleep(seconds)
    return _parts({pid: _ticks(pid) for pid in pids})


@mutant("share", "not-a-share")
def seconds_not_parts(pids, cpu, seconds):
    _pin(pids, cpu)
    before = {pid: _ticks(pid) for pid in pids}
    time.sleep(seconds)
    return {pid: (_ticks(pid) - before[pid]) / 100 for pid in pids}


@mutant("share", "name-with-spaces")
def spaces_split_the_name(pids, cpu, seconds):
    _pin(pids, cpu)

    def ticks(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().split()
        return int(fields[13]) + int(fields[14])

    return _measure(pids, seconds, ticks)


@mutant("share", "share-differs")
def user_time_only(pids, cpu, seconds):
    _pin(pids, cpu)
    return _measure(pids, seconds, lambda pid: psutil.Process(pid).cpu_times().user)


@mutant("share", "not-a-dict")
def list_of_parts(pids, cpu, seconds):
    _pin(pids, cpu)
    return list(_measure(pids, seconds).values())


@alternative("share")
def with_proc_stat(pids, cpu, seconds):
    _pin(pids, cpu)
    return _measure(pids, seconds)


@alternative("share")
def with_psutil(pids, cpu, seconds):
    for pid in pids:
        psutil.Process(pid).cpu_affinity([cpu])
    return _measure(pids, seconds, lambda pid: sum(psutil.Process(pid).cpu_times()[:2]))


@alternative("share")
def with_taskset_and_schedstat(pids, cpu, seconds):
    for pid in pids:
        subprocess.run(["taskset", "-pc", str(cpu), str(pid)], check=True, capture_output=True)
    return _measure(pids, seconds, lambda pid: int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]))
