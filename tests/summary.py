"""Show, after the run, how many answers were rejected and accepted, and how many upstream vectors hold."""

from __future__ import annotations

from collections import Counter


def answers(terminalreporter):
    """One line per exercise: mutants rejected and right answers accepted, of how many trials."""
    seen: Counter[tuple[str, str, str, bool]] = Counter()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports if outcome != "rerun" else ():
            for name, value in getattr(report, "user_properties", ()):
                if name == "answer" and report.when == "call":
                    seen[tuple(value)] += 1
    if not seen:
        return
    terminalreporter.section("answers of each exercise (trials over all seeds)")
    for lesson, exercise in sorted({key[:2] for key in seen}):
        parts = []
        for kind, whom in (("rejected", "mutants"), ("accepted", "right answers")):
            held, failed = (seen[lesson, exercise, kind, result] for result in (True, False))
            parts.append(f"{whom} {kind} {held} of {held + failed}")
        terminalreporter.write_line(f"{lesson:24} {exercise:16} " + ", ".join(parts))


def vectors(terminalreporter):
    """One line per set of vectors that others wrote: how many hold, of how many."""
    lines = {
        tuple(value)
        for outcome, reports in terminalreporter.stats.items()
        for report in reports
        if outcome != "rerun"
        for name, value in getattr(report, "user_properties", ())
        if name == "vectors" and report.when == "call"
    }
    if not lines:
        return
    terminalreporter.section("vectors that others wrote")
    for what, held, total in sorted(lines):
        terminalreporter.write_line(f"{what:48} {held:4} of {total:4}")
