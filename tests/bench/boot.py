"""A clone of the booted template against a cold boot of the same guest, and 24 clones against one cold boot.

``python -m tests.bench.boot [ROUNDS]`` prints medians and ratios. Clone and cold boot take turns in one run, so that
what else the host does falls on both alike. A time runs from the call to the answer of a command in the guest's shell.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import statistics
import sys
import time

from course import guest

CLASS = 24
"""Clones of one lesson's cluster: three nodes with eight guests."""

_QUESTION = "uname -r"


@dataclasses.dataclass(frozen=True)
class Result:
    """Medians of one run, in seconds.

    Attributes:
        cold_s: call to answer of a cold boot.
        clone_s: the same of a clone.
        class_s: call of the first to answer of the last of `CLASS` clones, started together.
        rounds: how often each was measured.
    """

    cold_s: float
    clone_s: float
    class_s: float
    rounds: int

    @property
    def clone_ratio(self) -> float:
        """One clone : one cold boot."""
        return self.clone_s / self.cold_s

    @property
    def class_ratio(self) -> float:
        """`CLASS` clones : one cold boot."""
        return self.class_s / self.cold_s


def measure(rounds: int = 5) -> Result:
    """Measure each kind `rounds` times, in turn, after everything is built and one guest of each has run."""
    guest.build()
    one(cold=False)
    times: dict[str, list[float]] = {"cold": [], "clone": [], "class": []}
    for _ in range(rounds):
        times["cold"].append(one(cold=True))
        times["clone"] += [one(cold=False) for _ in range(3)]
        times["class"].append(many(CLASS))
    return Result(*(statistics.median(times[kind]) for kind in ("cold", "clone", "class")), rounds=rounds)


def one(*, cold: bool) -> float:
    """Start a guest, ask it, end it; returns the seconds until it answered."""
    start = time.perf_counter()
    with guest.linux(cold=cold) as vm:
        vm.console.run(_QUESTION, 60)
        return time.perf_counter() - start


def many(count: int) -> float:
    """Start `count` clones together; returns the seconds until all have answered, while all of them run."""
    machines = [guest.linux(f"vm{number}") for number in range(count)]

    def answer(vm: guest.LinuxGuest) -> None:
        vm.launch()
        vm.console.run(_QUESTION, 60)

    start = time.perf_counter()
    try:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            list(pool.map(answer, machines))
        return time.perf_counter() - start
    finally:
        for vm in machines:
            vm.kill()


def main(rounds: int = 5) -> None:
    """Measure and print."""
    result = measure(rounds)
    clone, together = f"{result.clone_ratio:.3f} of a cold boot", f"{result.class_ratio:.2f} of a cold boot"
    lines = (
        f"cold boot to an answer      {result.cold_s:6.2f} s",
        f"clone to an answer          {result.clone_s:6.2f} s, {clone}, target at most 0.1",
        f"{CLASS} clones to all answers   {result.class_s:6.2f} s, {together}, target at most 1.5",
        f"medians of {result.rounds} rounds, interleaved",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
