"""`course build` with nothing changed, against a full build of the same lessons.

``python -m tests.bench.build`` prints both and their ratio: whole processes, from start to exit, on a course of
as many lessons as the course has, in a temporary folder. Real lessons boot machines, which makes the full build longer.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from course.build.layout import Layout
from tests.build.conftest import LESSON, small_course

COURSE = Path(sys.executable).parent / "course"


@dataclasses.dataclass(frozen=True)
class Result:
    """Seconds of a full build and of one with nothing to do (medians)."""

    full_s: float
    nothing_s: float
    lessons: int

    @property
    def ratio(self) -> float:
        """How many times longer the full build takes."""
        return self.full_s / self.nothing_s


def _seconds(layout: Layout) -> float:
    start = time.perf_counter()
    subprocess.run([str(COURSE), "build"], cwd=layout.root, check=True, capture_output=True)
    return time.perf_counter() - start


def measure(lessons: int = 13, rounds: int = 1) -> Result:
    """Build `lessons` lessons from nothing and then again without a change, `rounds` times."""
    full, nothing = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-build-") as scratch:
            layout = small_course(Path(scratch) / "course")
            text = layout.text(LESSON).read_text()
            for number in range(2, lessons + 1):
                name = f"{number:02}-counting"
                layout.text(name).write_text(text.replace(LESSON, name))
            full.append(_seconds(layout))
            nothing += [_seconds(layout) for _ in range(5)]
    return Result(statistics.median(full), statistics.median(nothing), lessons)


def main() -> None:
    """Print the result for a person, on one line."""
    result = measure()
    sys.stdout.write(
        f"course build, {result.lessons} lessons: full {result.full_s:.2f} s, nothing changed {result.nothing_s:.3f} s "
        f"(medians), ratio 1/{result.ratio:.0f}, target at most 1/20\n"
    )


if __name__ == "__main__":
    main()
