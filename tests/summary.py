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


def calls(terminalreporter):
    """How many calls of the Proxmox VE API there are, by tier, and how many gave answers that fit its schema."""
    known: dict[str, tuple[int, bool]] = {}
    answered: set[str] = set()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports if outcome != "rerun" else ():
            for name, value in getattr(report, "user_properties", ()):
                if name == "answered" and report.when == "teardown" and outcome != "error":
                    answered.update(value)
                elif name == "calls":
                    known.update({call: (tier, there) for call, tier, there in value})
    if not known:
        return
    terminalreporter.section("calls of the Proxmox VE API")
    for tier in sorted({tier for tier, _ in known.values()}):
        own = {call: there for call, (there_tier, there) in known.items() if there_tier == tier}
        there = {call for call, implemented in own.items() if implemented}
        title = f"tier {tier}" if tier else "others"
        valid = len(there & answered)
        terminalreporter.write_line(
            f"{title:8} implemented {len(there):4} of {len(own):4}, answers valid {valid:4}, not implemented "
            f"{len(own) - len(there):4}"
        )
        for call in sorted(own.keys() - there) if tier else ():
            terminalreporter.write_line(f"         not implemented: {call}")
