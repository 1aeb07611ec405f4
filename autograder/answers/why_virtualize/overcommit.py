"""Answers to `overcommit`."""

from __future__ import annotations

import psutil

from .. import alternative, mutant
from .footprint import _right


@mutant("overcommit", "sum-of-rss")
def shared_pages_each_time(vms):
    return sum(vm["ram_mib"] for vm in vms) / sum(_right(vm["pid"])["rss"] for vm in vms)


@mutant("overcommit", "upside-down")
def upside_down(vms):
    return sum(_right(vm["pid"])["pss"] for vm in vms) / sum(vm["ram_mib"] for vm in vms)


@mutant("overcommit", "mean-of-ratios")
def mean_of_ratios(vms):
    ratios = [vm["ram_mib"] / _right(vm["pid"])["pss"] for vm in vms]
    return sum(ratios) / len(ratios)


@mutant("overcommit", "largest-only")
def largest(vms):
    return max(vm["ram_mib"] / _right(vm["pid"])["pss"] for vm in vms)


@mutant("overcommit", "percent")
def percent(vms):
    return 100 * right(vms)


@mutant("overcommit", "ratio-differs")
def virtual_size(vms):
    return sum(vm["ram_mib"] for vm in vms) / sum(psutil.Process(vm["pid"]).memory_info().vms / 2**20 for vm in vms)


@mutant("overcommit", "not-a-number")
def as_text(vms):
    return f"{right(vms):.1f}"


@alternative("overcommit")
def right(vms):
    return sum(vm["ram_mib"] for vm in vms) / sum(_right(vm["pid"])["pss"] for vm in vms)


@alternative("overcommit")
def with_a_loop(vms):
    promised = held = 0
    for vm in vms:
        promised += vm["ram_mib"] * 2**20
        held += psutil.Process(vm["pid"]).memory_full_info().pss
    return round(promised / held, 2)
