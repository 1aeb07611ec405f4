"""Grading twenty submissions: plain nbgrader, and ours with one and two workers; a regrade; starts of kernels; the zoo.

``python -m tests.bench.grading`` prints medians and ratios of one run. Every time is that of a whole command, from its
start to its exit, imports included. The zoo is shown to plain nbgrader in a box that can do no harm outside.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autograder.sandbox import Isolation, Level, probe, register, unregister
from autograder.sandbox import provisioner as boxes
from autograder.zoo import Habitat, Specimen, specimens
from autograder.zoo.habitat import IMPATIENT, PLAIN, ROOT
from autograder.zoo.honest import generated
from autograder.zoo.specimen import LESSON as ZOO_LESSON
from autograder.zoo.specimen import code_cell
from tests.pipeline.submissions import Submissions

SUBMISSIONS = 20
LESSON = "02-isa"
_EVERY = 2
"""Of so many of the zoo's submissions plain nbgrader is shown one: it takes a second for each, and hangs on some."""
_STALLED_S = 60


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def commands(habitats: Callable[[str], Habitat], lesson: str) -> dict[str, float]:
    """Time each way to grade what was handed in, once.

    Args:
        habitats: makes a course with submissions, for the end of its configuration.
        lesson: which they are of.
    """
    found = {}
    for name, configuration in (("nbgrader", PLAIN), ("1 worker", ""), ("2 workers", ""), ("by nbgrader", "")):
        with habitats(configuration) as habitat:
            habitat.run("nbgrader", "generate_assignment", lesson, "--force")
            if name.endswith(("worker", "workers")):
                found[name] = _timed(habitat, "course", "grade", lesson, "-j", name[0])
            else:
                found[name] = _timed(habitat, "nbgrader", "autograde", lesson)
            if name == "2 workers":
                found["regrade"] = _timed(habitat, "course", "grade", lesson, "-j", "2")
                shutil.rmtree(habitat.root / "autograder" / "work" / "graded")
                found["marks anew"] = _timed(habitat, "course", "grade", lesson, "-j", "2")
                found["regrade by nbgrader"] = _timed(habitat, "nbgrader", "autograde", lesson, "--force")
    return found


def _timed(habitat: Habitat, *command: str) -> float:
    start = time.perf_counter()
    habitat.run(*command)
    return time.perf_counter() - start


_LABELS = {
    "nbgrader": "nbgrader autograde, its own preprocessors",
    "by nbgrader": "nbgrader autograde, ours, nothing known",
    "1 worker": "course grade -j 1, nothing known",
    "2 workers": "course grade -j 2, nothing known",
    "regrade": "course grade -j 2, again",
    "marks anew": "course grade -j 2, all marks written again",
    "regrade by nbgrader": "nbgrader autograde --force, ours, again",
}


def _show(title: str, runs: list[dict[str, float]], targets: dict[str, str]) -> None:
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    plain = median["nbgrader"]
    _say(f"{title}, medians of {len(runs)} rounds; students' code: {probe()}")
    for name, label in _LABELS.items():
        if name in median:
            _say(f"  {label:45} {median[name]:7.2f} s {plain / median[name]:6.1f} x  {targets.get(name, '')}")


def speed(rounds: int = 3) -> None:
    """Print how long grading takes where the grader's own work is what takes time: six quick exercises."""
    with Habitat() as first:

        def handed_in(configuration: str) -> Habitat:
            habitat = Habitat(configuration, built=first.root)
            for student, (notebook, _) in generated(habitat.lesson, SUBMISSIONS).items():
                habitat.submit(student, notebook)
            return habitat

        runs = [commands(handed_in, ZOO_LESSON) for _ in range(rounds)]
    title = f"{SUBMISSIONS} submissions of six quick exercises"
    _show(title, runs, {"2 workers": "target: at least 4", "regrade": "target: at least 10"})


def lessons() -> None:
    """Print how long grading takes where answers and checks boot machines: a lesson of the course, graded once.

    The lesson is the one in the middle by the time that plain nbgrader takes for it. Students' notebooks differ: each
    has some of the lesson's own answers, and a cell of its own.
    """
    made = Submissions(*(ROOT / kind / LESSON / f"{LESSON}.ipynb" for kind in ("source", "release/en")))
    answers = made.ids("answer")
    with Habitat() as first:

        def handed_in(configuration: str) -> Habitat:
            habitat = Habitat(configuration, built=first.root)
            for kind in ("source", "release/en"):
                shutil.copytree(ROOT / kind / LESSON, habitat.root / kind / LESSON)
            for number in range(SUBMISSIONS):
                given = answers if number % 2 else answers[: max(1, len(answers) * (number % 4 + 1) // 4)]
                notebook = made.with_answers(given)
                notebook["cells"].insert(1, code_cell(f"me = {number}", "own-0"))
                folder = habitat.root / "autograder" / "work" / "submitted" / f"s{number:02}" / LESSON
                folder.mkdir(parents=True)
                (folder / f"{LESSON}.ipynb").write_text(json.dumps(notebook))
            return habitat

        _show(f"{SUBMISSIONS} submissions of {LESSON}", [_briefly(handed_in)], {})


def _briefly(handed_in: Callable[[str], Habitat]) -> dict[str, float]:
    found = {}
    for name, configuration, command in (
        ("nbgrader", PLAIN, ("nbgrader", "autograde", LESSON)),
        ("2 workers", "", ("course", "grade", LESSON, "-j", "2")),
    ):
        with handed_in(configuration) as habitat:
            habitat.run("nbgrader", "generate_assignment", LESSON, "--force")
            found[name] = _timed(habitat, *command)
            if configuration == "":
                found["regrade"] = _timed(habitat, *command)
    return found


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
        manager.start_kernel(stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels()
        try:
            client.execute("1", reply=True, timeout=60)  # `wait_for_ready` would add 0.2 s of idling to each
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
    shown = [one for one in specimens() if one.plain and not one.slow][::_EVERY]
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
        ("points wrongly given", "points wrongly taken", "no marks at all", "batch stopped at", "harm done (findings)"),
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
        hung = _autograde_while_it_goes_on(habitat)
        done = habitat.root / "autograder" / "work" / "autograded"
        graded = {path.name for path in done.glob("*")}
        last = max((one for one in waiting if one in graded), default="")
        rest = [one for one in waiting if one not in graded and one > last]
        if not rest and not hung:
            break
        culprit = last if hung and last else rest[0]
        stopped.append(by_student.get(culprit, culprit))
        shutil.rmtree(submitted / culprit)
        shutil.rmtree(done / culprit, ignore_errors=True)
        if len(stopped) > len(shown):
            break
    return stopped


def _autograde_while_it_goes_on(habitat: Habitat) -> bool:
    """Grade with nbgrader until it ends or, when it has had nothing to show for a minute, kill it; tells whether."""
    import psutil

    folder = habitat.root / "autograder" / "work" / "autograded"
    others = {child.pid for child in psutil.Process().children()}
    run = threading.Thread(target=habitat.autograde, kwargs={"check": False})
    run.start()
    seen, since, hung = -1, time.monotonic(), False
    while run.is_alive():
        run.join(1)
        if (count := len(list(folder.glob("*")))) != seen:
            seen, since = count, time.monotonic()
        elif time.monotonic() - since > _STALLED_S:
            hung = True
            for child in psutil.Process().children():
                if child.pid not in others:
                    child.kill()
    return hung


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
    lessons()
    kernels()
    zoo()
    slow()


if __name__ == "__main__":
    main()
