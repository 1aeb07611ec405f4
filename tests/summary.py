"""Show, after the run, how many answers of each exercise were rejected and accepted."""

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
