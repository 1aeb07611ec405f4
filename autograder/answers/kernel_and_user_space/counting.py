"""Answers to `count_syscalls` and `boundary`."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict

from autograder.answers import alternative, mutant
from course.kernel import measure


@alternative("count_syscalls")
def every_second_stop(stops):
    return Counter(stop["orig_rax"] for stop in stops[1::2])


@alternative("count_syscalls")
def state_machine(stops):
    counts, inside = {}, True
    for stop in stops:
        if not inside:
            counts[stop["orig_rax"]] = counts.get(stop["orig_rax"], 0) + 1
        inside = not inside
    return counts


@alternative("count_syscalls")
def in_pairs(stops):
    counts = defaultdict(int)
    rest = stops[1:]
    while rest:
        counts[rest[0]["orig_rax"]] += 1
        rest = rest[2:]
    return counts


@alternative("count_syscalls")
def exits_and_the_last(stops):
    counts = Counter(stop["orig_rax"] for stop in stops[2::2])
    if len(stops) % 2 == 0:
        counts[stops[-1]["orig_rax"]] += 1
    return dict(counts)


@mutant("count_syscalls", "both-stops")
def every_stop(stops):
    return dict(Counter(stop["orig_rax"] for stop in stops))


@mutant("count_syscalls", "both-stops")
def every_stop_but_execve(stops):
    return dict(Counter(stop["orig_rax"] for stop in stops[1:]))


@mutant("count_syscalls", "rax-is-the-result")
def rax_instead_of_orig_rax(stops):
    return dict(Counter(stop["rax"] for stop in stops[1::2]))


@mutant("count_syscalls", "rax-is-the-result")
def rax_of_every_stop(stops):
    return dict(Counter(stop["rax"] for stop in stops))


@mutant("count_syscalls", "execve-counted")
def begins_at_zero(stops):
    return dict(Counter(stop["orig_rax"] for stop in stops[::2]))


@mutant("count_syscalls", "enosys-is-an-answer")
def placeholder_means_entry(stops):
    return dict(Counter(stop["orig_rax"] for stop in stops if stop["rax"] == -38))


@mutant("count_syscalls", "exit-lost")
def only_exits(stops):
    return dict(Counter(stop["orig_rax"] for stop in stops[2::2]))


@mutant("count_syscalls", "miscounted")
def distinct_numbers(stops):
    return {stop["orig_rax"]: 1 for stop in stops[1:]}


@mutant("count_syscalls", "not-a-dict")
def total_only(stops):
    return len(stops) // 2


@mutant("count_syscalls", "endless")
def forgets_to_advance(stops):
    i = 0
    while i < len(stops):
        pass
    return {}


@mutant("count_syscalls", "printed")
def prints_the_counts(stops):
    print(Counter(stop["orig_rax"] for stop in stops[1::2]))


@mutant("count_syscalls", "unanswered")
def count_untouched(stops):
    raise NotImplementedError


KINDS = ("call", "vdso", "syscall")


def _samples(bench, kind, rounds=100_000, runs=9):
    return [measure(bench, kind, rounds) / rounds for _ in range(runs)]


@alternative("boundary")
def medians(bench):
    loop = statistics.median(_samples(bench, "empty"))
    return {kind: statistics.median(_samples(bench, kind)) - loop for kind in KINDS}


@alternative("boundary")
def minima(bench):
    loop = min(_samples(bench, "empty", runs=7))
    return {kind: min(_samples(bench, kind, runs=7)) - loop for kind in KINDS}


@alternative("boundary")
def slope_of_two_lengths(bench):
    # what is the same in a short and a long run (starting) cancels
    def per_round(kind):
        short = statistics.median(measure(bench, kind, 50_000) for _ in range(5))
        long = statistics.median(measure(bench, kind, 250_000) for _ in range(5))
        return (long - short) / 200_000

    return {kind: per_round(kind) - per_round("empty") for kind in KINDS}


@alternative("boundary")
def trimmed_mean(bench):
    def per_round(kind):
        return statistics.fmean(sorted(_samples(bench, kind, runs=11))[:5])

    return {kind: per_round(kind) - per_round("empty") for kind in KINDS}


@mutant("boundary", "too-few-runs")
def one_run(bench):
    loop = measure(bench, "empty", 100_000) / 100_000
    return {kind: measure(bench, kind, 100_000) / 100_000 - loop for kind in KINDS}


@mutant("boundary", "loop-not-removed")
def keeps_the_loop(bench):
    return {kind: statistics.median(_samples(bench, kind)) for kind in KINDS}


@mutant("boundary", "loop-not-removed")
def best_with_the_loop(bench):
    return {kind: min(_samples(bench, kind)) for kind in KINDS}


@mutant("boundary", "mean-with-outliers")
def means(bench):
    loop = statistics.fmean(_samples(bench, "empty"))
    return {kind: statistics.fmean(_samples(bench, kind)) - loop for kind in KINDS}


@mutant("boundary", "first-run-counts")
def measures_often_takes_the_first(bench):
    loop = _samples(bench, "empty")[0]
    return {kind: _samples(bench, kind)[0] - loop for kind in KINDS}


@mutant("boundary", "not-per-round")
def total_of_all_rounds(bench):
    def total(kind):
        return statistics.median(measure(bench, kind, 100_000) for _ in range(5))

    return {kind: total(kind) - total("empty") for kind in KINDS}


@mutant("boundary", "wrong-unit")
def in_microseconds(bench):
    return {kind: ns / 1000 for kind, ns in medians(bench).items()}


@mutant("boundary", "too-few-rounds")
def few_rounds_and_another_loop_length(bench):
    loop = statistics.median(_samples(bench, "empty", rounds=100_000))
    return {kind: statistics.median(_samples(bench, kind, rounds=100)) - loop for kind in KINDS}


@mutant("boundary", "missing-cost")
def forgets_the_vdso(bench):
    costs = medians(bench)
    return {"call": costs["call"], "syscall": costs["syscall"]}


@mutant("boundary", "not-a-dict")
def only_a_ratio(bench):
    costs = medians(bench)
    return costs["syscall"] / costs["call"]


@mutant("boundary", "not-a-number")
def formatted(bench):
    return {kind: f"{ns:.1f} ns" for kind, ns in medians(bench).items()}


@mutant("boundary", "off")
def made_up(bench):
    for kind in ("empty", *KINDS):
        _samples(bench, kind)
    return {"call": 1.0, "vdso": 20.0, "syscall": 5.0}


@mutant("boundary", "raised")
def asks_for_no_rounds(bench):
    return {kind: measure(bench, kind, 0) for kind in KINDS}


@mutant("boundary", "unanswered")
def boundary_untouched(bench):
    raise NotImplementedError
