"""A timeline: when the guest ran, when its VMM did, and why it was left each time.

::

    with Timeline.recording(vcpu) as timeline:
        my_vmm(vcpu)
    timeline

The static forms show exits in their order and with equal room, so that they are the same in every run; times are in
the text only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from .happenings import Event, Passage, as_dict, events_of, events_of_exits, histogram, passages
from .timeline_static import as_svg, as_text
from .view import View, script, style

if TYPE_CHECKING:
    from ..vcpu import Exit, Vcpu

LANES = ("guest", "VMM", "host")
_MOST_EXITS = 1000


class Timeline(View):
    """Show the exits of a guest, over time or one after the other.

    Keys: right or ``n`` to the next exit, left or ``p`` to the one before, Home and End to the ends, ``+`` and ``-``
    to zoom, ``t`` between time and equal room; buttons and a slider do the same.

    Args:
        events: dicts with lane, start, end (in seconds), label (an exit's reason), detail.
        lanes: from top to bottom; the first one is the guest's: an exit begins where it stops.
        title: a few words.
        position: number of the exit shown first, from 1.
        measured: the times differ in every run, so the static drawing leaves them out.

    Attributes:
        exits: the exits, each with its reason and its events.
        left_out: number of exits behind those that are shown.

    Raises:
        UsageError: naming the event that cannot be meant.
    """

    _esm = script("timeline")
    _css = style("timeline")
    run = traitlets.Dict().tag(sync=True)
    position = traitlets.Int(1).tag(sync=True)

    def __init__(
        self,
        events: Sequence[Mapping[str, Any]] = (),
        lanes: Sequence[str] = LANES,
        *,
        title: str = "Exits",
        position: int = 1,
        measured: bool = True,
    ) -> None:
        self.exits: list[Passage] = []
        self.left_out = 0
        super().__init__(run={}, position=1)
        self._lanes, self._title = tuple(lanes), title
        self._fill(events_of(events, lanes), timed=True, steady=not measured)
        self.position = position

    @classmethod
    def of_exits(cls, exits: Sequence[Any], *, title: str = "Exits", position: int = 1) -> Timeline:
        """Show a list of exits.

        Args:
            exits: what `Vcpu.run` returned, or dicts with reason and, where known, rip, detail, guest_s (how long the
                guest ran before, in seconds) and vmm_s (how long it then waited). Without times there is no axis of
                time.
            title: a few words.
            position: number of the exit shown first, from 1.

        Raises:
            UsageError: naming the exit that cannot be meant.
        """
        made = cls(lanes=LANES[:2], title=title)
        events, timed = events_of_exits(exits[:_MOST_EXITS])
        made.left_out = max(0, len(exits) - _MOST_EXITS)
        made._fill(events, timed=timed, steady=False)
        made.position = position
        return made

    @classmethod
    @contextlib.contextmanager
    def recording(cls, vcpu: Vcpu, *, title: str = "Exits") -> Iterator[Timeline]:
        """Record every `Vcpu.run` inside the ``with``; the timeline is filled at its end, also after an exception.

        The guest's time is that spent in `Vcpu.run`: the way into the guest and back is part of it. The VMM's time is
        that between two of them.
        """
        timeline = cls(lanes=LANES[:2], title=title)
        taken: list[dict[str, Any]] = []
        with _listening(vcpu, taken) as counted:
            try:
                yield timeline
            finally:
                _finish(taken)
                events, timed = events_of_exits(taken)
                timeline.left_out = counted[0] - len(taken)
                timeline._fill(events, timed=timed, steady=False)

    @property
    def length(self) -> int:
        """Number of exits shown."""
        return len(self.exits)

    @property
    def histogram(self) -> dict[str, int]:
        """Reason to how often it came, most frequent first."""
        return dict(histogram(self.exits))

    @traitlets.validate("position")
    def _in_range(self, proposal: Mapping[str, Any]) -> int:
        """Keep the position between the first and the last exit; 0 where there is none."""
        return min(max(1, int(proposal["value"])), len(self.exits))

    def static(self) -> dict[str, str]:
        """A drawing of the first exits."""
        return {"image/svg+xml": as_svg(self.exits, self._lanes, self._title, timed=self._steady)}

    def __str__(self) -> str:
        return as_text(self.exits, self._lanes, self._title, timed=self._timed, left_out=self.left_out)

    def _fill(self, events: Sequence[Event], *, timed: bool, steady: bool) -> None:
        """Show other events.

        Args:
            events: in the order of their start.
            timed: their times mean something.
            steady: they are the same in every run, so the static drawing may show them too.
        """
        self.exits, last = passages(events)
        self._timed, self._steady = timed, timed and steady
        self.run = {
            "title": self._title,
            "lanes": list(self._lanes),
            "timed": timed,
            "exits": [_plain(passage) for passage in self.exits],
            "last": [list(_tuple(event)) for event in last],
            "histogram": [list(pair) for pair in histogram(self.exits)],
            "left_out": self.left_out,
        }
        self.position = min(max(self.position, 1), len(self.exits))


def _plain(passage: Passage) -> dict[str, Any]:
    """An exit as JSON."""
    return {
        "reason": passage.reason,
        "guest": [list(_tuple(event)) for event in passage.guest],
        "outside": [list(_tuple(event)) for event in passage.outside],
    }


def _tuple(event: Event) -> tuple[int, float, float, str, str]:
    return event.lane, event.start, event.end, event.label, event.detail


@contextlib.contextmanager
def _listening(vcpu: Vcpu, taken: list[dict[str, Any]]) -> Iterator[list[int]]:
    """Put a clock around `Vcpu.run` of this one CPU; yields the count of its exits, those beyond `taken` included."""
    before = vars(vcpu).get("run")
    original = vcpu.run
    counted = [0]

    def run(*args: Any, **options: Any) -> Exit:
        begin = time.perf_counter()
        _close(taken, begin)
        found = original(*args, **options)
        counted[0] += 1
        if len(taken) < _MOST_EXITS:
            end = time.perf_counter()
            taken.append({**as_dict(found, guest_s=end - begin), "since": end})
        return found

    vars(vcpu)["run"] = run
    try:
        yield counted
    finally:
        if before is None:
            del vars(vcpu)["run"]
        else:
            vars(vcpu)["run"] = before


def _close(taken: list[dict[str, Any]], now: float) -> None:
    """The VMM's time after the last exit is over."""
    if taken and taken[-1]["vmm_s"] is None:
        taken[-1]["vmm_s"] = now - taken[-1]["since"]


def _finish(taken: list[dict[str, Any]]) -> None:
    _close(taken, time.perf_counter())
