"""Calendar events: upstream's vectors, clock changes, dates."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.cluster.calendar import SHORT, CalendarEvent
from course.error import ClusterError
from tests.cluster.steady import steady

PARIS = ZoneInfo("Europe/Paris")


def outcome(text, moments):
    """Parse, then ask for the run after each moment; or return the error's words."""
    try:
        event = CalendarEvent.parse(text)
    except ClusterError as error:
        return {"error": error.message}
    return [[moment, event.next_run(moment)] for moment in moments]


def test_upstream_calendar_events(pve, compare):
    """Each event of upstream's own tests is read, or refused, and runs next as there."""
    tests = json.loads((pve / "vectors/storage/calendar_events.json").read_text())["tests"]
    cases = []
    for text, error, *rest in tests:
        runs = rest[0] if rest else []
        cases.append((text, error or runs, outcome(text, [after for after, _ in runs])))
    compare("calendar events", cases)


def at(text, zone=UTC):
    """Return seconds since 1970 of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


@pytest.mark.parametrize(
    ("event", "after", "run"),
    [
        ("02:30", "2026-03-28 12:00", "2026-03-30 02:30"),  # the 29th has no such time
        ("mon..fri 20:00", "2026-11-27 20:00", "2026-11-30 20:00"),
        ("monthly", "2026-11-23 10:00", "2026-12-01 00:00"),
        ("quarterly", "2026-11-23 10:00", "2027-01-01 00:00"),
        ("*-02-29 01:00", "2026-11-23 10:00", "2028-02-29 01:00"),
        ("sunday 2026-11-29 6:00", "2026-11-23 10:00", "2026-11-29 06:00"),
        ("12-24", "2026-11-23 10:00", "2026-12-24 00:00"),
        ("weekly", "2026-11-23 00:00", "2026-11-30 00:00"),
    ],
)
def test_runs_follow_the_clock_on_the_wall(event, after, run):
    """Schedules are local time, also across a change of the clocks."""
    assert at(run, PARIS) == CalendarEvent.parse(event).next_run(at(after, PARIS), PARIS)


def test_an_hour_that_comes_twice_runs_twice():
    """When clocks go back, 02:30 occurs in summer time and once more in winter time."""
    event = CalendarEvent.parse("2026-10-25 02:30")
    first = event.next_run(at("2026-10-25 00:00", PARIS), PARIS)
    assert event.next_run(first, PARIS) == first + 3600
    assert event.next_run(first + 3600, PARIS) is None


@steady
@given(st.sampled_from([*SHORT, "*/7", "sat 3,9..11/2:15", "1/5:2/9"]), st.integers(0, 2**31))
def test_the_next_run_is_later_and_nothing_lies_between(text, after):
    """The next run after the moment before a run is that run."""
    event = CalendarEvent.parse(text)
    run = event.next_run(after)
    assert run > after
    assert event.next_run(run - 1) == run


def test_a_night_of_a_clock_change_has_no_gap():
    """Step by step through both changes of the clocks: each run is five minutes after the one before."""
    event = CalendarEvent.parse("*/5")
    for night in ("2026-03-29 00:30", "2026-10-25 00:30"):
        moment = at(night, PARIS)
        for _ in range(50):
            assert event.next_run(moment, PARIS) == moment + 300
            moment += 300


@pytest.mark.parametrize("text", ["maandag", "24:00", "5..3", "*/0", "1:2:3:4", "mon mon", "13-01", "x", "1,,2"])
def test_what_is_no_schedule_is_refused(text):
    """Nonsense raises the cluster's error and nothing else."""
    with pytest.raises(ClusterError):
        CalendarEvent.parse(text)
