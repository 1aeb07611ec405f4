"""Series of what was measured, coarser the older: what ``rrddata`` answers.

Each series is kept at five steps, about seventy points each, as clients of Proxmox VE expect them: a minute for the
last hour, half an hour for the day, and so on. A point is the average, or the maximum, of what was measured in it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COUNTERS = ("netin", "netout", "diskread", "diskwrite")
"""What counts up: kept as so much per second."""
STEPS = {"hour": 60, "day": 1800, "week": 10800, "month": 43200, "year": 604800}
POINTS = 70


@dataclass(slots=True)
class _Point:
    """What was measured in one step: how often, and by name the sum and the maximum."""

    time: int
    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    tops: dict[str, float] = field(default_factory=dict)


class Rrd:
    """All series of a node."""

    def __init__(self) -> None:
        self._series: dict[str, dict[str, list[_Point]]] = {}
        self._counts: dict[str, tuple[float, dict[str, float]]] = {}
        self._lock = threading.Lock()

    def add(self, key: str, values: Mapping[str, Any], now: float | None = None) -> None:
        """Add a measurement; what is no number is left out.

        Args:
            key: such as ``qemu/169`` or ``node/michael``.
            values: by name.
            now: when, in seconds since 1970.
        """
        moment = time.time() if now is None else now
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        with self._lock:
            numbers = self._rates(key, numbers, moment)
            series = self._series.setdefault(key, {})
            for frame, step in STEPS.items():
                points = series.setdefault(frame, [])
                begin = int(moment // step * step)
                if not points or points[-1].time != begin:
                    points.append(_Point(begin))
                    del points[:-POINTS]
                point = points[-1]
                point.count += 1
                for name, number in numbers.items():
                    point.sums[name] = point.sums.get(name, 0.0) + number
                    point.tops[name] = max(point.tops.get(name, number), number)

    def _rates(self, key: str, numbers: dict[str, float], moment: float) -> dict[str, float]:
        """Return what was measured with counters as so much per second; one that began anew has none yet."""
        counts = {name: numbers[name] for name in COUNTERS if name in numbers}
        before, old = self._counts.get(key, (moment, {}))
        self._counts[key] = (moment, counts)
        rest = {name: number for name, number in numbers.items() if name not in counts}
        seconds = moment - before
        for name, count in counts.items():
            if seconds > 0 and count >= old.get(name, count + 1):
                rest[name] = (count - old[name]) / seconds
        return rest

    def data(self, key: str, timeframe: str, cf: str = "AVERAGE") -> list[dict[str, float]]:
        """Return a series.

        Args:
            key: whose.
            timeframe: hour, day, week, month or year.
            cf: AVERAGE or MAX.
        """
        with self._lock:
            points = list(self._series.get(key, {}).get(timeframe, ()))
            if cf == "MAX":
                return [{"time": point.time, **point.tops} for point in points]
            return [
                {"time": point.time, **{name: total / point.count for name, total in point.sums.items()}}
                for point in points
            ]

    def dump(self) -> str:
        """Write all series as JSON."""
        with self._lock:
            return json.dumps(
                {
                    key: {
                        frame: [[point.time, point.count, point.sums, point.tops] for point in points]
                        for frame, points in series.items()
                    }
                    for key, series in self._series.items()
                }
            )

    @classmethod
    def load(cls, text: str) -> Rrd:
        """Read what `dump` wrote.

        Raises:
            ValueError: it is not that.
        """
        rrd = cls()
        rrd._series = {
            key: {frame: [_Point(*point) for point in points] for frame, points in series.items()}
            for key, series in json.loads(text).items()
        }
        return rrd


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
