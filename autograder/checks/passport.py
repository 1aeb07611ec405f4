"""Hidden checks of lesson 00, Passport."""

from __future__ import annotations

from course.check import Exercise, Trial
from course.check.passport import judge

uptime_s = Exercise("uptime_s", hidden=True, varies=True, seed=1)


@uptime_s.step("it reads the uptime of any machine, old, new, or with many processors")
def _many(trial: Trial) -> None:
    for days in (0, 0, 1, 40, 4000):
        up = round(days * 86400 + trial.rng.uniform(3, 86000), 2)
        idle = round(up * trial.rng.uniform(0.2, 0.9) * trial.rng.choice([1, 4, 64]), 2)
        judge(trial, f"{up:.2f} {idle:.2f}{trial.rng.choice(['', chr(10)])}", up, idle)


@uptime_s.step("it reads a machine that has only just been switched on")
def _young(trial: Trial) -> None:
    judge(trial, "0.00 0.01\n", 0.0, 0.01)
