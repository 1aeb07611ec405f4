"""Which engines a check uses: those that this machine has."""

from __future__ import annotations

import functools
import random

from ...vcpu.availability import engines
from ...vcpu.error import VcpuError


@functools.cache
def here() -> tuple[str, ...]:
    """Name the engines of this machine, best first.

    Raises:
        VcpuError: there is none.
    """
    found = engines()
    names = tuple(engine.name for engine in found if engine)
    if not names:
        raise VcpuError("no engine: " + "; ".join(f"{engine.name}: {engine.why}" for engine in found))
    return names


def in_turn(rng: random.Random, count: int) -> list[str]:
    """Name `count` engines, so that all are used about equally often, in a random order."""
    names = [here()[n % len(here())] for n in range(count)]
    rng.shuffle(names)
    return names
