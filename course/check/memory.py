"""Judge what an answer says of a process's memory: beside our own readings, taken before and after it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..machine import Machine
from ..machine.footprint import Footprint
from ..machine.footprint import footprint as witness
from .exercise import Trial


@contextlib.contextmanager
def paused_vms(*sizes_mib: int) -> Iterator[list[dict[str, int]]]:
    """Start VMs whose CPU never runs; yields their pids and what they were promised."""
    with contextlib.ExitStack() as stack:
        vms = [stack.enter_context(Machine("-m", str(mib), "-S", name=f"vm{mib}")) for mib in sizes_mib]
        yield [{"pid": int(vm.pid or 0), "ram_mib": mib} for vm, mib in zip(vms, sizes_mib, strict=True)]


def judge_footprint(trial: Trial, pid: int, promised_mib: int = 0) -> None:
    """Compare the answer for process `pid` with our own readings before and after, three times at most.

    Args:
        trial: the running check.
        pid: a process that does not work now.
        promised_mib: what a VM was promised, to recognise an answer that repeats it.
    """
    for attempt in range(3):
        first = witness(pid)
        got = trial.call(pid)
        second = witness(pid)
        trial.expect(
            isinstance(got, dict)
            and {"rss", "pss"} <= set(got)
            and all(isinstance(v, int | float) for v in got.values()),
            "not-a-dict",
            f"You returned {got!r}.",
            'Return {"rss": …, "pss": …}, both in MiB.',
        )
        rss, pss = (first.rss_mib, second.rss_mib), (first.pss_mib, second.pss_mib)
        if _near(got["rss"], rss) and _near(got["pss"], pss):
            return
        if attempt == 2:
            name = "rss" if not _near(got["rss"], rss) else "pss"
            _explain_footprint(trial, pid, name, got, seen=first, promised_mib=promised_mib)


def _near(value: float, pair: tuple[float, float]) -> bool:
    """Within 1 % (and 0.2 MiB) of what we read before and after."""
    return min(pair) * 0.99 - 0.2 <= value <= max(pair) * 1.01 + 0.2


def _explain_footprint(
    trial: Trial, pid: int, name: str, got: Mapping[str, float], *, seen: Footprint, promised_mib: int
) -> None:
    rss, pss = seen.rss_mib, seen.pss_mib
    expected, value = {"rss": rss, "pss": pss}[name], got[name]
    said = f"{name} of process {pid}: you returned {value:g}; we read {expected:.1f} MiB at the same time."
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE") / 2**20
    known = [
        ("promised", float(promised_mib), "That is what the VM was promised. What does the process hold?"),
        ("vmsize", size, "That is VmSize: addresses that are reserved. A page costs RAM once it has been touched."),
        ("kib-as-mib", expected * 1024, "The kernel counts in kB of 1024 bytes. MiB is asked."),
        ("bytes-as-mib", expected * 2**20, "That is in bytes. MiB is asked."),
        ("mb-not-mib", expected * 1.024, "Nearly: 1 MiB is 1024 kB."),
    ]
    for misconception, wrong, why in known:
        if wrong and math.isclose(value, wrong, rel_tol=0.004):
            trial.wrong(misconception, said, why)
    if name == "pss" and math.isclose(value, rss, rel_tol=0.01):
        trial.wrong(
            "pss-is-rss", said, "RSS counts a shared page in full for each user. Which line divides it by them?"
        )
    trial.wrong(
        f"{name}-differs",
        said,
        f"Which line of /proc/PID/smaps_rollup is {name.upper()}? Several begin alike; whose PID?",
    )


def judge_overcommit(trial: Trial, vms: Sequence[Mapping[str, int]]) -> None:
    """Compare the ratio with our own readings before and after, three times at most."""
    for attempt in range(3):
        before = [witness(vm["pid"]) for vm in vms]
        got = trial.call([dict(vm) for vm in vms])
        after = [witness(vm["pid"]) for vm in vms]
        trial.expect(isinstance(got, int | float), "not-a-number", f"You returned {got!r}.", "Return one number.")
        ratios = [_ratios(vms, seen)["right"] for seen in (before, after)]
        if min(ratios) * 0.97 <= got <= max(ratios) * 1.03:
            return
        if attempt == 2:
            _explain_overcommit(trial, vms, before, after, got)


def _ratios(vms: Sequence[Mapping[str, int]], seen: Sequence[Footprint]) -> dict[str, float]:
    """The right ratio, and those that a known misconception gives, from one reading."""
    promised = sum(vm["ram_mib"] for vm in vms)
    pss, rss = sum(weight.pss_mib for weight in seen), sum(weight.rss_mib for weight in seen)
    each = [vm["ram_mib"] / weight.pss_mib for vm, weight in zip(vms, seen, strict=True)]
    return {
        "right": promised / pss,
        "sum-of-rss": promised / rss,
        "upside-down": pss / promised,
        "mean-of-ratios": sum(each) / len(each),
        "largest-only": max(each),
        "percent": 100 * promised / pss,
    }


_OVERCOMMIT_SLIPS = {
    "sum-of-rss": "Your sum counts the pages that the VMs share once per VM.",
    "upside-down": "Promised per held is asked, not held per promised.",
    "mean-of-ratios": "A mean of ratios lets the largest VM speak for all. Add first.",
    "largest-only": "That is one VM. The ratio of the whole host is asked.",
    "percent": "A plain ratio is asked: 2.0 when twice as much is promised as held.",
}


def _explain_overcommit(
    trial: Trial,
    vms: Sequence[Mapping[str, int]],
    before: Sequence[Footprint],
    after: Sequence[Footprint],
    got: float,
) -> None:
    promised, pss = sum(vm["ram_mib"] for vm in vms), sum(weight.pss_mib for weight in before)
    said = f"{promised} MiB were promised and {pss:.1f} MiB are held: {promised / pss:.1f}. You returned {got:.3g}."
    first, second = _ratios(vms, before), _ratios(vms, after)
    for misconception, why in _OVERCOMMIT_SLIPS.items():
        low, high = sorted((first[misconception], second[misconception]))
        if low * 0.97 <= got <= high * 1.03:
            trial.wrong(misconception, said, why)
    trial.wrong("ratio-differs", said, "Print the two sums. Which one is not as above?")
