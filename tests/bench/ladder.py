"""How many times slower than the processor are QEMU, Unicorn, a translator and an interpreter in Python?"""

from statistics import median

from autograder.answers.emulation.stepping import execute
from autograder.answers.emulation.translating import empties_its_cache
from course.isa import ladder


def main():
    """Print medians and ratios of one run, fastest first, and what decoding once is worth."""
    samples = ladder.measure(execute, empties_its_cache, repeats=7)
    per_round = {name: median(seconds / rounds for rounds, seconds in runs) for name, runs in samples.items()}
    base = next(iter(per_round))
    for name, seconds in per_round.items():
        print(f"{name:18} {seconds * 1e9:12.2f} ns per round of 3 {seconds / per_round[base]:10.1f} x {base}")
    gain = per_round[ladder.INTERPRETER] / per_round[ladder.TRANSLATOR]
    print(f"{'translator':18} {gain:12.1f} x as fast as the interpreter (target: at least 2.5)")
