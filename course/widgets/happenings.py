"""What a timeline shows: events in lanes, and the exits that they make up.

An exit begins where the guest stops. So the events outside the first lane (the guest's) that follow each other belong
to one exit, until the guest runs again; where there is nothing in the guest's lane, each event is an exit of its own.

Each event has two places: its time, and its place in a drawing that gives every exit the same room (0 to 1 is the
first exit, its first half the guest's).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..error import UsageError

_KEYS = ("lane", "start", "end", "label", "detail")
_SAID = ("rip", "code", "text", "mnemonic", "operands", "direction")
"""Fields of an exit that its place and its disassembly tell."""
_USUAL = (("size", 1), ("count", 1))


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that took place in a lane, from `start` to `end`.

    Attributes:
        lane: index of the lane.
        start: in seconds, or in whatever unit the timeline has.
        end: not before the start.
        label: a word or two; for an exit its reason.
        detail: a sentence.
    """

    lane: int
    start: float
    end: float
    label: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Passage:
    """One exit: from where the guest stopped to where it goes on.

    Attributes:
        reason: the first event's label.
        guest: the events of the guest before it.
        outside: the events until the guest goes on; never empty.
    """

    reason: str
    guest: tuple[Event, ...]
    outside: tuple[Event, ...]

    @property
    def guest_time(self) -> float:
        """How long the guest ran before."""
        return sum(event.end - event.start for event in self.guest)

    @property
    def outside_time(self) -> float:
        """How long the guest waited."""
        return sum(event.end - event.start for event in self.outside)


def events_of(plain: Sequence[Mapping[str, Any]], lanes: Sequence[str]) -> list[Event]:
    """Read plain events, in the order of their start.

    Raises:
        UsageError: naming the event and what is wrong with it.
    """
    found = [_event(number, one, lanes) for number, one in enumerate(plain, 1)]
    return sorted(found, key=lambda event: event.start)


def _event(number: int, plain: Mapping[str, Any], lanes: Sequence[str]) -> Event:
    where = f"event {number}, {plain!r}"
    if missing := [key for key in _KEYS[:3] if key not in plain]:
        raise UsageError(f"{where}: has no {' and no '.join(missing)}; expected the keys {', '.join(_KEYS)}")
    if plain["lane"] not in lanes:
        raise UsageError(f"{where}: there is no lane {plain['lane']!r}; there are {', '.join(lanes)}")
    try:
        start, end = float(plain["start"]), float(plain["end"])
    except (TypeError, ValueError):
        raise UsageError(f"{where}: start and end are to be numbers") from None
    if not (math.isfinite(start) and math.isfinite(end) and start <= end):
        raise UsageError(f"{where}: goes from {start} to {end}; expected an end that is not before the start")
    lane = list(lanes).index(plain["lane"])
    return Event(lane, start, end, str(plain.get("label", "")), str(plain.get("detail", "")))


def events_of_exits(exits: Sequence[Any]) -> tuple[list[Event], bool]:
    """Read exits, plain or of `course.vcpu`; returns events in lanes 0 and 1, and whether all exits had times.

    Raises:
        UsageError: an exit without a reason, or times that are no numbers.
    """
    plain = [_plain_exit(number, one) for number, one in enumerate(exits, 1)]
    timed = bool(plain) and all(one["guest_s"] is not None and one["vmm_s"] is not None for one in plain)
    now, events = 0.0, []
    for one in plain:
        guest, vmm = (one["guest_s"], one["vmm_s"]) if timed else (0.5, 0.5)
        events.append(Event(0, now, now + guest, "runs"))
        events.append(Event(1, now + guest, now + guest + vmm, one["reason"], one["detail"]))
        now += guest + vmm
    return events, timed


def _plain_exit(number: int, one: Any) -> dict[str, Any]:
    plain = one if isinstance(one, Mapping) else as_dict(one)
    if not plain.get("reason"):
        raise UsageError(f"exit {number}, {one!r}: has no reason; expected a dict with reason, rip, detail or an Exit")
    rip = plain.get("rip")
    place = f"at {rip:#x}" if isinstance(rip, int) else ""
    detail = ", ".join(part for part in (place, str(plain.get("detail", ""))) if part)
    times = {}
    for key in ("guest_s", "vmm_s"):
        value = plain.get(key)
        if value is not None and not (isinstance(value, (int, float)) and 0 <= value < math.inf):
            raise UsageError(f"exit {number}: {key} is {value!r}; expected seconds, 0 or more")
        times[key] = value
    return {"reason": str(plain["reason"]), "detail": detail, **times}


def as_dict(exit_: Any, *, guest_s: float | None = None, vmm_s: float | None = None) -> dict[str, Any]:
    """An Exit of `course.vcpu` as plain data: reason, rip, detail in words, times.

    Raises:
        UsageError: it is no exit.
    """
    if not dataclasses.is_dataclass(exit_) or not hasattr(exit_, "reason"):
        raise UsageError(f"{exit_!r} is no exit; expected a dict with a reason, or what Vcpu.run() returns")
    words = [getattr(exit_, "text", "")]
    for field in dataclasses.fields(exit_):
        value = getattr(exit_, field.name)
        if field.name not in _SAID and not _nothing(value) and (field.name, value) not in _USUAL:
            words.append(f"{field.name} {_value(field.name, value)}")
    detail = ", ".join(word for word in words if word)
    rip = getattr(exit_, "rip", None)
    return {"reason": exit_.reason, "rip": rip, "detail": detail, "guest_s": guest_s, "vmm_s": vmm_s}


def _nothing(value: Any) -> bool:
    """Whether a field says nothing; an address of 0 says something."""
    return value is None or value is False or value in ("", b"")


def _value(name: str, value: Any) -> str:
    """A field's value as a person would write it."""
    if isinstance(value, bytes):
        return value[:16].hex(" ") + (" …" if len(value) > 16 else "")
    if isinstance(value, int) and not isinstance(value, bool) and name not in ("size", "count", "vector", "number"):
        return f"{value:#x}"
    return str(value)


def passages(events: Sequence[Event]) -> tuple[list[Passage], list[Event]]:
    """Group events into exits; returns them and what the guest did after the last one."""
    grouped = any(event.lane == 0 for event in events)
    found: list[Passage] = []
    guest: list[Event] = []
    outside: list[Event] = []

    def finish() -> None:
        if outside:
            found.append(Passage(outside[0].label, tuple(guest), tuple(outside)))
            guest.clear()
            outside.clear()

    for event in events:
        if event.lane == 0 or not grouped:
            finish()
        (guest if event.lane == 0 else outside).append(event)
    finish()
    return found, guest


def histogram(found: Sequence[Passage]) -> list[tuple[str, int]]:
    """Reasons and how often each came, most frequent first, then by name."""
    counts = Counter(passage.reason for passage in found)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
