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
    """Name `count` engines in a random order: all are used, KVM seldom, for making its machines takes longest."""
    cheap = [name for name in here() if name != "kvm"] or list(here())
    names = [cheap[n % len(cheap)] for n in range(count)]
    if "kvm" in here():
        names[-1] = "kvm"
    rng.shuffle(names)
    return names
