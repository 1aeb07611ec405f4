"""Checks of how raw measurements become "so many times slower"."""

from __future__ import annotations

import random

from ..compare import shorten
from ..exercise import Exercise, Trial

slowdown = Exercise("slowdown")
Samples = dict[str, list[tuple[int, float]]]
_TOLERANCE = 0.02


def samples(rng: random.Random, *, disturbed: bool) -> tuple[Samples, dict[str, float]]:
    """Make measurements (rounds, seconds) of four engines, and their true factors; the first is the base."""
    base_s = rng.uniform(0.4e-9, 2e-9)
    factors = {"base": 1.0, "translated": rng.uniform(2, 9), "python blocks": rng.uniform(90, 400)}
    factors["python steps"] = factors["python blocks"] * rng.uniform(5, 20)
    made: Samples = {}
    order = list(factors)
    rng.shuffle(order)  # the base may stand anywhere
    for name in order:
        factor = factors[name]
        rounds = int(rng.uniform(0.5, 2) * 1e8 / factor)
        runs = [(rounds * k, rounds * k * base_s * factor) for k in rng.choices((1, 2, 3), k=7)]
        if disturbed:
            early, *late = rng.sample(range(7), 3)
            runs[early] = (runs[early][0], runs[early][1] * rng.uniform(0.1, 0.3))  # a clock that was set back
            for at in late:
                runs[at] = (runs[at][0], runs[at][1] * rng.uniform(3, 20))
        made[name] = runs
    return made, factors


def judge_slowdown(trial: Trial, *, disturbed: bool) -> None:
    """Let the answer compute factors from measurements whose truth is known."""
    made, factors = samples(trial.rng, disturbed=disturbed)
    got = trial.call(made, "base")
    good = isinstance(got, dict) and set(got) == set(factors)
    trial.expect(
        good,
        "misshapen",
        f"slowdown returned {shorten(got)}; expected a factor for each of {list(factors)}.",
        "The base has a factor, too: 1.",
    )
    for name, want in factors.items():
        value = got[name]
        if isinstance(value, int | float) and abs(value - want) <= _TOLERANCE * want:
            continue
        _judge_factor(trial, made, name, want, value)


def _judge_factor(trial: Trial, made: Samples, name: str, want: float, got: object) -> None:
    runs = ", ".join(f"({rounds:,}, {seconds:.3f} s)" for rounds, seconds in made[name][:4])
    shown_value = f"{got:.3g}" if isinstance(got, float) else shorten(got)
    shown = f"{name}: expected {want:.2f}, obtained {shown_value}. Its first runs: {runs}."
    if not isinstance(got, int | float) or isinstance(got, bool):
        trial.wrong("not-a-number", shown, "A factor is a number.")
    if abs(got * want - 1) <= 2 * _TOLERANCE:
        trial.wrong("upside-down", shown, "Slower means a factor above 1.")

    def per_round(engine: str, total: bool) -> float:
        values = sorted(s if total else s / n for n, s in made[engine])
        return values[len(values) // 2]

    first_of_all = next(iter(made))
    by = {engine: per_round(engine, False) for engine in made}
    if abs(got - by[name]) <= 0.01 * by[name]:
        trial.wrong("not-divided", shown, "That is a time, in seconds per round. How many times that of the base?")
    if first_of_all != "base" and abs(got - by[name] / by[first_of_all]) <= 0.01 * got:
        trial.wrong("first-is-base", f"{shown} That is by {first_of_all!r}.", "Which engine is the base, says `base`.")
    total = [sum(s for _, s in made[engine]) / sum(n for n, _ in made[engine]) for engine in (name, "base")]
    if abs(got - total[0] / total[1]) <= 0.01 * got:
        trial.wrong("sum-by-sum", shown, "All seconds by all rounds: bad runs weigh most. The median of what?")
    fastest = [min(s / n for n, s in made[engine]) for engine in (name, "base")]
    if abs(got - fastest[0] / fastest[1]) <= 0.01 * got:
        trial.wrong("fastest-run", shown, "One run may have been too fast as well: its clock was set back.")
    unscaled = per_round(name, True) / per_round("base", True)
    if abs(got - unscaled) <= 0.01 * unscaled:
        trial.wrong("not-per-round", shown, "The runs have different numbers of rounds.")
    mean = [sum(s / n for n, s in made[engine]) for engine in (name, "base")]
    if abs(got - mean[0] / mean[1]) <= 0.01 * got:
        trial.wrong("mean-with-outliers", shown, "Which average does not care about three bad runs of seven?")
    first = [made[engine][0][1] / made[engine][0][0] for engine in (name, "base")]
    if abs(got - first[0] / first[1]) <= 0.01 * got:
        trial.wrong("first-run-only", shown, "One run may have been disturbed. Use all seven.")
    trial.wrong("wrong-factor", shown, "Seconds per round of this engine, divided by those of the base.")


@slowdown.step("factors of quiet measurements are found")
def _quiet(trial: Trial) -> None:
    judge_slowdown(trial, disturbed=False)


@slowdown.step("three disturbed runs of seven do no harm")
def _disturbed(trial: Trial) -> None:
    judge_slowdown(trial, disturbed=True)
