"""Settings for tests by examples: the same in every run, and without a clock, for a busy machine may not decide."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

steady = settings(
    derandomize=True, deadline=None, max_examples=60, database=None, suppress_health_check=[HealthCheck.too_slow]
)
