"""A timeline where no widget can be shown: an SVG of the first exits, and a table in text.

The drawing gives each exit the same room unless its times are the same in every run; the text keeps times at the ends
of its lines, in units that notebook comparison knows to be volatile.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from .happenings import Event, Passage, histogram

_DRAWN, _WRITTEN = 30, 24
_LEFT, _WIDTH, _TOP, _LANE, _GAP = 64.0, 900.0, 34.0, 76.0, 6.0
_FILLS = ("#cfe3f1", "#f6dcc8", "#dcecd3", "#ead8e6", "#e4e4e4")
_INK = "#1a1a1a"
_LETTER = 6.6
"""Points that a letter of 11 points takes, generously."""


def duration(seconds: float) -> str:
    """Three digits and a unit, such as ``12.3 µs``."""
    sizes = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
    unit, size = next((pair for pair in sizes if seconds >= pair[1]), sizes[-1])
    value = seconds / size
    return f"{value:.3g} {unit}" if value < 999 else f"{value:.0f} {unit}"


def counts(found: Sequence[Passage]) -> str:
    """The histogram in one line, such as ``26 Io, 1 Hlt``."""
    return ", ".join(f"{number} {reason}" for reason, number in histogram(found)) or "none"


def as_text(found: Sequence[Passage], lanes: Sequence[str], title: str, *, timed: bool, left_out: int = 0) -> str:
    """Every exit in a line, and what came how often."""
    more = f", and {left_out} more that were not kept" if left_out else ""
    lines = [f"{title}: {len(found)} exits{more}"]
    width = max([len(passage.reason) for passage in found[:_WRITTEN]], default=0)
    for number, passage in enumerate(found[:_WRITTEN], 1):
        details = "; ".join(_words(event, lanes, first=at == 0) for at, event in enumerate(passage.outside))
        line = f"{number:4}  {passage.reason:<{width}}  {details}".rstrip()
        if timed:
            line += f"  [{lanes[0]} {duration(passage.guest_time)}, then out {duration(passage.outside_time)}]"
        lines.append(line)
    if len(found) > _WRITTEN:
        lines.append(f"      … {len(found) - _WRITTEN} more exits")
    lines.append(f"by reason: {counts(found)}")
    if timed and found:
        inside, outside = sum(p.guest_time for p in found), sum(p.outside_time for p in found)
        lines.append(f"time: {duration(inside)} in the {lanes[0]}, {duration(outside)} outside")
    return "\n".join(lines)


def _words(event: Event, lanes: Sequence[str], *, first: bool) -> str:
    """What an event says; the exit's reason is not said twice."""
    said = event.detail if first else ": ".join(part for part in (event.label, event.detail) if part)
    return said if first and event.lane == 1 else f"{lanes[event.lane]}: {said}".rstrip(": ")


def as_svg(found: Sequence[Passage], lanes: Sequence[str], title: str, *, timed: bool) -> str:
    """The first exits as boxes in lanes."""
    shown = found[:_DRAWN]
    boxes = _by_time(shown) if timed else _by_exit(shown)
    height = _TOP + len(lanes) * (_LANE + _GAP) + 24
    head = f"{title}: {len(found)} exits ({counts(found)})" + (f"; the first {_DRAWN}" if len(found) > _DRAWN else "")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 10:.0f} {height:.0f}" role="img"'
        f' aria-label="{html.escape(title)}" font-family="sans-serif" font-size="11" fill="{_INK}">',
        f"<title>{html.escape(title)}</title><desc>{html.escape(head)}</desc>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="4" y="18" font-size="13" font-weight="bold">{html.escape(head)}</text>',
    ]
    parts += [_lane(at, name) for at, name in enumerate(lanes)]
    parts += [_box(event, left, right) for event, left, right in boxes]
    span = duration(shown[-1].outside[-1].end - _begin(shown)) if timed and shown else ""
    parts.append(
        f'<text x="{_LEFT:.0f}" y="{height - 8:.0f}">{"time, left to right: " + span if timed else "exits in order"}'
        f"{'' if timed else ', each with the same room'}</text></svg>"
    )
    return "\n".join(parts)


def _begin(found: Sequence[Passage]) -> float:
    first = found[0]
    return (first.guest or first.outside)[0].start


def _by_time(found: Sequence[Passage]) -> list[tuple[Event, float, float]]:
    """Events and where they begin and end, by their times."""
    if not found:
        return []
    events = [event for passage in found for event in (*passage.guest, *passage.outside)]
    begin, end = _begin(found), max(event.end for event in events)
    scale = _WIDTH / ((end - begin) or 1)
    return [(event, (event.start - begin) * scale, (event.end - begin) * scale) for event in events]


def _by_exit(found: Sequence[Passage]) -> list[tuple[Event, float, float]]:
    """Events and where they begin and end when every exit gets as much room."""
    room = min(_WIDTH / max(1, len(found)), 120.0)
    boxes = []
    for number, passage in enumerate(found):
        for half, events in enumerate((passage.guest, passage.outside)):
            for at, event in enumerate(events):
                left = number * room + (half + at / len(events)) * room / 2
                boxes.append((event, left, left + room / 2 / len(events)))
    return boxes


def _lane(at: int, name: str) -> str:
    top = _TOP + at * (_LANE + _GAP)
    return (
        f'<text x="4" y="{top + _LANE / 2 + 4:.1f}" font-weight="bold">{html.escape(name)}</text>'
        f'<line x1="{_LEFT:.1f}" x2="{_LEFT + _WIDTH:.1f}" y1="{top + _LANE:.1f}" y2="{top + _LANE:.1f}"'
        f' stroke="#767676"/>'
    )


def _box(event: Event, left: float, right: float) -> str:
    """A box with its label: across if it fits, else upwards, else not at all."""
    top = _TOP + event.lane * (_LANE + _GAP)
    width = max(1.0, right - left)
    box = (
        f'<rect x="{_LEFT + left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_LANE:.1f}"'
        f' fill="{_FILLS[event.lane % len(_FILLS)]}" stroke="{_INK}" stroke-width="0.6"/>'
    )
    room, label = len(event.label) * _LETTER, html.escape(event.label)
    x, y = _LEFT + (left + right) / 2, top + _LANE / 2
    if not label or (room > width and (width < 12 or room > _LANE + 8)):
        return box
    if room <= width:
        return f'{box}<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{label}</text>'
    turned = f'transform="rotate(-90 {x:.1f} {y:.1f})"'
    return f'{box}<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" {turned}>{label}</text>'
