"""Exits per second of each engine of the virtual CPU, and how fast guest code runs between them."""

import time

from course.vcpu import Budget, Vcpu, engines

EXITS = 2000
ROUNDS = 20_000_000
LOOP = b"\xb9" + ROUNDS.to_bytes(4, "little") + bytes.fromhex("ffc9 75fc f4")  # mov ecx, n / dec ecx / jnz / hlt


def exits_per_second(engine):
    """A guest that does nothing but cli, and a VMM that moves on."""
    with Vcpu.open(engine, bytes.fromhex("fa ebfd"), budget=Budget(seconds=60)) as vcpu:
        vcpu.run()
        begin = time.perf_counter()
        for _ in range(EXITS):
            vcpu.regs.rip = vcpu.run().next
        return EXITS / (time.perf_counter() - begin)


def rounds_per_second(engine):
    """A loop of two instructions."""
    with Vcpu.open(engine, LOOP, budget=Budget(seconds=60)) as vcpu:
        begin = time.perf_counter()
        vcpu.run()
        return ROUNDS / (time.perf_counter() - begin)


def main():
    """Print both, as ratios to the slowest of this run."""
    here = [engine.name for engine in engines() if engine]
    for title, measure, unit in (
        ("exits", exits_per_second, "k exits/s"),
        ("guest code", rounds_per_second, "k loop rounds/s"),
    ):
        results = {name: max(measure(name) for _ in range(3)) for name in here}
        slowest = min(results.values())
        for name, result in sorted(results.items(), key=lambda pair: -pair[1]):
            print(f"{title:12} {name:10} {result / 1000:12.1f} {unit:18} {result / slowest:8.1f} x the slowest")
