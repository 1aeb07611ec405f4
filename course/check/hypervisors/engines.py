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


def quick() -> tuple[str, ...]:
    """Name the engines whose machines are made in milliseconds: all but KVM, unless there is nothing else."""
    return tuple(name for name in here() if name != "kvm") or here()


def in_turn(rng: random.Random, count: int) -> list[str]:
    """Name `count` quick engines in a random order, each about equally often."""
    names = [quick()[n % len(quick())] for n in range(count)]
    rng.shuffle(names)
    return names
