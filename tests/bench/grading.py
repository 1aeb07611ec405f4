"""Grading twenty submissions: plain nbgrader, and ours with one and two workers; a regrade; starts of kernels; the zoo.

``python -m tests.bench.grading`` prints medians and ratios of one run. Every time is that of a whole command, from its
start to its exit, imports included. The zoo is shown to plain nbgrader in a box that can do no harm outside.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autograder.sandbox import Isolation, Level, probe, register, unregister
from autograder.sandbox import provisioner as boxes
from autograder.zoo import Habitat, Specimen, specimens
from autograder.zoo.habitat import IMPATIENT, PLAIN
from autograder.zoo.honest import generated

SUBMISSIONS = 20


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def commands(built: Path, count: int) -> dict[str, float]:
    """Time each way to grade `count` submissions once."""
    found = {}
    for name, configuration in (("nbgrader", PLAIN), ("1 worker", ""), ("2 workers", ""), ("by nbgrader", "")):
        with Habitat(configuration, built=built) as habitat:
            for student, (notebook, _) in generated(habitat.lesson, count).items():
                habitat.submit(student, notebook)
            habitat.release()
            if name.endswith(("worker", "workers")):
                found[name] = habitat.grade(int(name[0]))
            else:
                found[name] = habitat.autograde()
            if name == "2 workers":
                found["regrade"] = habitat.grade(2)
                found["regrade by nbgrader"] = habitat.autograde("--force")
    return found


def speed(rounds: int = 3) -> None:
    """Print how long grading takes."""
    with Habitat() as first:
        runs = [commands(first.root, SUBMISSIONS) for _ in range(rounds)]
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    plain = median["nbgrader"]
    targets = {"2 workers": "target: at least 4", "regrade": "target: at least 10"}
    labels = {
        "nbgrader": "nbgrader autograde, its own preprocessors",
        "by nbgrader": "nbgrader autograde, ours, nothing known",
        "1 worker": "course grade -j 1, nothing known",
        "2 workers": "course grade -j 2, nothing known",
        "regrade": "course grade -j 2, again",
        "regrade by nbgrader": "nbgrader autograde --force, ours, again",
    }
    _say(f"{SUBMISSIONS} submissions, medians of {rounds} rounds; students' code: {probe()}")
    for name, label in labels.items():
        _say(f"  {label:45} {median[name]:7.2f} s {plain / median[name]:6.1f} x  {targets.get(name, '')}")


def kernels(rounds: int = 7) -> None:
    """Print how long a kernel takes to run its first cell."""
    level = probe()
    ways: dict[str, Level | None] = {"stock": None}
    if shutil.which("bwrap"):
        ways["bubblewrap"] = Level(Isolation.BUBBLEWRAP)
    if level.level is Isolation.NAMESPACES:
        ways["zygote"] = level
    found: dict[str, float] = {}
    for name, way in ways.items():
        with contextlib.suppress(Exception), _kernels_of(way) as start:
            start()  # the zygote itself
            found[name] = statistics.median(start() for _ in range(rounds))
    stock = found["stock"]
    for name in ways:
        told = f"{found[name]:7.3f} s {stock / found[name]:6.1f} x" if name in found else "   refused here"
        _say(f"  kernel, start to first result: {name:14} {told}")


@contextlib.contextmanager
def _kernels_of(level: Level | None) -> Iterator[Callable[[], float]]:
    from jupyter_client.manager import KernelManager

    if level is not None:
        boxes.zygote(level)
        register()

    def start() -> float:
        begin = time.perf_counter()
        manager = KernelManager()
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            client.execute("1", reply=True, timeout=60)
            return time.perf_counter() - begin
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)

    try:
        yield start
    finally:
        unregister()
        boxes.close()


def zoo() -> None:
    """Print what the zoo does to plain nbgrader and to us."""
    shown = [one for one in specimens() if one.plain and not one.slow]
    with Habitat() as ours, _nbgraders(ours.root) as theirs:
        ours.hand_in(shown)
        ours.release()
        ours.grade(2, check=False)
        stopped = _graded_plainly(theirs, shown)
        rows = []
        for habitat, stops in ((theirs, stopped), (ours, [])):
            marks = habitat.marks()
            fair = [one for one in shown if one.marks is not None]
            rows.append(
                (
                    [one.name for one in fair if marks.get(one.whose, 0) > (one.marks or 0) + 0.01],
                    [one.name for one in fair if one.whose in marks and marks[one.whose] < (one.marks or 0) - 0.01],
                    [one.name for one in shown if one.whose not in marks],
                    stops,
                    habitat.harm(),
                )
            )
    _say(f"the zoo: {len(shown)} submissions that plain nbgrader may be shown" + " " * 9 + "nbgrader      ours")
    for label, *cells in zip(
        ("points wrongly given", "points wrongly taken", "no marks at all", "batch stopped by", "harm done (findings)"),
        *rows,
        strict=True,
    ):
        _say(f"  {label:66} {len(cells[0]):6}    {len(cells[1]):6}")
    for label, names in zip(("given", "taken", "none", "stopped"), rows[0], strict=False):
        _say(f"  nbgrader, {label}: {', '.join(names)}")
    for label, names in zip(("given", "taken", "none", "stopped", "harm"), rows[1], strict=False):
        if names:
            _say(f"  OURS, {label}: {', '.join(names)}")


@contextlib.contextmanager
def _nbgraders(built: Path) -> Iterator[Habitat]:
    """A habitat for nbgrader's own preprocessors, in a box of bubblewrap: it sees no process but its own."""
    with Habitat(PLAIN + "\nc.Execute.timeout = 10\n", built=built) as habitat:
        if (program := shutil.which("bwrap")) is None:
            raise RuntimeError("without bubblewrap nothing hostile is shown to plain nbgrader")
        folder = str(habitat.folder)
        habitat.box = [program, "--unshare-pid", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev"]
        habitat.box += ["--proc", "/proc", "--tmpfs", "/tmp", "--bind", folder, folder]
        yield habitat


def _graded_plainly(habitat: Habitat, shown: list[Specimen]) -> list[str]:
    """Grade with nbgrader's own preprocessors; who stops the batch is put aside, and it goes on."""
    habitat.hand_in(shown)
    habitat.release()
    by_student = {one.whose: one.name for one in shown}
    submitted = habitat.root / "autograder" / "work" / "submitted"
    stopped: list[str] = []
    while waiting := sorted(path.name for path in submitted.iterdir()):
        habitat.autograde(check=False)
        graded = {path.name for path in (habitat.root / "autograder" / "work" / "autograded").glob("*")}
        last = max((one for one in waiting if one in graded), default="")
        rest = [one for one in waiting if one not in graded and one > last]
        if not rest:
            break
        stopped.append(by_student.get(rest[0], rest[0]))
        shutil.rmtree(submitted / rest[0])
        if len(stopped) > len(shown):
            break
    return stopped


def slow() -> None:
    """Print what became of submissions that use up budgets, under small ones."""
    shown = [one for one in specimens() if one.slow]
    with Habitat(IMPATIENT) as habitat:
        habitat.hand_in(shown)
        habitat.release()
        seconds = habitat.grade(4, check=False)
        marks = habitat.marks()
        wrong = [one.name for one in shown if abs(marks.get(one.whose, -1) - (one.marks or 0)) > 0.01]
        _say(f"{len(shown)} submissions that use up budgets: {seconds:.0f} s, {len(habitat.harm())} findings of harm")
        _say(f"  other marks than deserved: {', '.join(wrong) or 'none'}")


def main() -> None:
    """Print all."""
    speed()
    kernels()
    zoo()
    slow()


if __name__ == "__main__":
    main()
