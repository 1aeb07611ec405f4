"""Calendar events, the schedules of jobs: ``mon..fri 20:00``, ``*/30``, ``sat 2,14:15``, ``*-*-01 03:00``.

An event has up to three parts: days of the week, a date, a time. A time without a colon is minutes of every hour; a
missing time is midnight. In each part ``,`` lists values, ``a..b`` is a range, ``*`` is any, and ``/n`` repeats: from
the value on, or from the least value for ``*/n``. The next run is always later than the moment asked about, in whole
minutes of the given time zone; a time that a clock change skips does not occur, and one that it repeats occurs twice.

Source: appendix "Calendar Events" of Proxmox VE's administration guide; pve-common's regression vectors.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache

from ..error import ClusterError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ANY_DAY = frozenset(range(7))
ANY_DATE = (frozenset(range(1970, 2100)), frozenset(range(1, 13)), frozenset(range(1, 32)))
YEARS_AHEAD = 9  # a 29th of February that is a given day of the week may be that far away, and is not asked for
CLOCK_CHANGE = 180  # minutes; no clock was ever changed by more in one night
MINUTES_OF_A_DAY = 1440
SHORT = {
    "minutely": "*:*",
    "hourly": "*:00",
    "daily": "00:00",
    "weekly": "mon 00:00",
    "monthly": "*-*-01 00:00",
    "quarterly": "*-01,04,07,10-01 00:00",
    "semiannually": "*-01,07-01 00:00",
    "semi-annually": "*-01,07-01 00:00",
    "yearly": "*-01-01 00:00",
    "annually": "*-01-01 00:00",
}
_DATE = re.compile(r"[\d*,./]+(?:-[\d*,./]+){1,2}")
_TIME = re.compile(r"[\d*,./:]+")
_FIELD = re.compile(r"(?:(\*)|(\d+)(?:\.\.(\d+))?)(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """A schedule.

    Attributes:
        weekdays: 0 for Monday to 6 for Sunday.
        years, months, days: of the date.
        times: the minutes of a day, in order.
    """

    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    times: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> CalendarEvent:
        """Read a schedule.

        Raises:
            ClusterError: it is none; the words are Proxmox VE's.
        """
        parts = SHORT.get(text.strip().lower(), text).split()
        if not parts:
            raise ClusterError("unable to parse calendar event - event is empty")
        times: tuple[int, ...] = (0,)
        weekdays, (years, months, days) = ANY_DAY, ANY_DATE
        if parts[0][0].isalpha():
            weekdays = _weekdays(parts.pop(0))
        if parts and _DATE.fullmatch(parts[0]):
            years, months, days = _date(parts.pop(0))
        if parts and _TIME.fullmatch(parts[0]):
            times = _times(parts.pop(0))
        if parts:
            raise ClusterError("unable to parse calendar event - unused parts")
        return cls(weekdays, years, months, days, times)

    def next_run(self, after: int, zone: tzinfo = UTC) -> int | None:
        """Return the first moment of the schedule that is later.

        Args:
            after: seconds since 1970.
            zone: whose clock the schedule means.

        Returns:
            Seconds since 1970, or None when there is none in the next years.
        """
        now = datetime.fromtimestamp(after, zone)
        day, begin = now.date(), now.hour * 60 + now.minute - CLOCK_CHANGE
        for _ in range(366 * YEARS_AHEAD):
            moment = self._first(day, begin, after, zone)
            if moment is not None:
                return moment
            day, begin = day + timedelta(days=1), 0
        return None

    def _first(self, day: date, begin: int, after: int, zone: tzinfo) -> int | None:
        """Return the first moment of one day that is later than another.

        Args:
            day: of the calendar.
            begin: minutes of the day before which no moment can be the one.
            after: seconds since 1970.
            zone: whose clock the schedule means.
        """
        if day.weekday() not in self.weekdays or day.day not in self.days:
            return None
        if day.month not in self.months or day.year not in self.years:
            return None
        found: list[int] = []
        end = MINUTES_OF_A_DAY
        for minute in self.times[bisect_left(self.times, begin) :]:
            if minute > end:
                break
            later = [moment for moment in _moments(day, minute, zone) if moment > after]
            if later and not found:  # where clocks go back, a later minute of the day may come before it
                end = minute + CLOCK_CHANGE
            found += later
        return min(found, default=None)


def _moments(day: date, minute: int, zone: tzinfo) -> list[int]:
    """Return when clocks show a minute of a day: once, never, or twice."""
    first = datetime.combine(day, time(*divmod(minute, 60)), zone)
    second = first.replace(fold=1)
    if first.utcoffset() == second.utcoffset():  # on no night of a change
        return [int(first.timestamp())]
    moments = sorted({int(first.timestamp()), int(second.timestamp())})
    shown = first.replace(tzinfo=None)
    return [moment for moment in moments if datetime.fromtimestamp(moment, zone).replace(tzinfo=None) == shown]


@cache
def _day_number(name: str) -> int:
    """Return 0 for Monday to 6 for Sunday."""
    for names in (DAYS, LONG_DAYS):
        if name.lower() in names:
            return names.index(name.lower())
    raise ClusterError(f"unable to parse weekday '{name}'")


def _weekdays(text: str) -> frozenset[int]:
    """Read a list of days and ranges; Sunday may begin a range as well as end it."""
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        begin, end = _day_number(first), _day_number(last) if dots else _day_number(first)
        if dots and first.lower().startswith("sun"):
            begin = -1
        if end < begin:
            raise ClusterError(f"wrong order in range '{part}'")
        found |= {day % 7 for day in range(begin, end + 1)}
    return frozenset(found)


def _date(text: str) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    """Read ``year-month-day`` or ``month-day``."""
    fields = text.split("-")
    years = _values(fields.pop(0), 1970, 2100) if len(fields) == 3 else ANY_DATE[0]
    return years, _values(fields[0], 1, 13), _values(fields[1], 1, 32)


def _times(text: str) -> tuple[int, ...]:
    """Read ``hours:minutes`` or the minutes of every hour; seconds may only be zero."""
    fields = text.split(":")
    if len(fields) == 3 and _values(fields[2], 0, 60) == {0}:
        fields.pop()
    if len(fields) > 2:
        raise ClusterError("unable to parse calendar event - unused parts")
    hours = _values(fields.pop(0), 0, 24) if len(fields) == 2 else frozenset(range(24))
    return tuple(sorted(hour * 60 + minute for hour in hours for minute in _values(fields[0], 0, 60)))


def _values(text: str, least: int, end: int) -> frozenset[int]:
    """Read a list of values, ranges and repetitions.

    Args:
        text: such as ``0,3..5,10/15``.
        least: the first value of the field.
        end: one past its last value.
    """
    found: set[int] = set()
    for part in text.split(","):
        parsed = _FIELD.fullmatch(part)
        if parsed is None:
            raise ClusterError(f"unable to parse calendar event time '{part}'")
        found.update(_part(parsed, least, end))
    return frozenset(found)


def _part(parsed: re.Match[str], least: int, end: int) -> range:
    """Return the values of one part of a list."""
    star, first, last, step = parsed.groups()
    begin = least if star else int(first)
    if not least <= begin < end:
        raise ClusterError(f"value '{first}' out of range")
    if last is not None and not least <= int(last) < end:
        raise ClusterError(f"range end '{last}' out of range")
    if last is not None and int(last) < begin:
        raise ClusterError(f"wrong order in range '{first}..{last}'")
    if step is not None and not 0 < int(step) < end:
        raise ClusterError(f"repetition '{step}' out of range")
    stop = int(last) + 1 if last is not None else end if star or step else begin + 1
    return range(begin, stop, int(step or 1))
