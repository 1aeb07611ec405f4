"""The timeline, without a front end: exits from events, from lists and from a running virtual CPU."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from course.error import UsageError
from course.vcpu import Budget, BudgetSpentError, Hlt, Io, PageFault, Privileged, Vcpu
from course.widgets.timeline import Timeline
from course.widgets.timeline_static import duration

# Two bytes to a port, then hlt.
HELLO = bytes.fromhex("66bae900 b048 ee b069 ee f4")
EVENTS = [
    {"lane": "guest", "start": 0.0, "end": 2.0, "label": "runs"},
    {"lane": "host", "start": 2.0, "end": 2.5, "label": "Io", "detail": "out 0xe9"},
    {"lane": "VMM", "start": 2.5, "end": 3.0, "label": "prints"},
    {"lane": "guest", "start": 3.0, "end": 4.0, "label": "runs"},
    {"lane": "VMM", "start": 4.0, "end": 4.5, "label": "Hlt"},
    {"lane": "guest", "start": 4.5, "end": 5.0, "label": "runs"},
]


def vmm(vcpu):
    """Answer every exit until hlt."""
    while not isinstance(reason := vcpu.run(), Hlt):
        vcpu.complete(reason)


def test_an_exit_lasts_until_the_guest_goes_on():
    """Host and VMM may both work at one exit; the guest's end begins it."""
    timeline = Timeline(EVENTS)
    assert [(one.reason, one.guest_time, one.outside_time) for one in timeline.exits] == [
        ("Io", 2.0, 1.0),
        ("Hlt", 1.0, 0.5),
    ]
    assert timeline.histogram == {"Hlt": 1, "Io": 1}
    assert timeline.run["last"] == [[0, 4.5, 5.0, "runs", ""]]


def test_events_come_in_any_order():
    """What counts is when they start."""
    assert str(Timeline(EVENTS[::-1])) == str(Timeline(EVENTS))


def test_without_a_guest_each_event_is_an_exit():
    """Nothing says which of them belong together."""
    timeline = Timeline([event for event in EVENTS if event["lane"] != "guest"])
    assert [one.reason for one in timeline.exits] == ["Io", "prints", "Hlt"]


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"lane": "guest", "start": 0}, "has no end"),
        ({"lane": "gust", "start": 0, "end": 1}, "there is no lane 'gust'; there are guest, VMM, host"),
        ({"lane": "guest", "start": 2, "end": 1}, "goes from 2.0 to 1.0"),
        ({"lane": "guest", "start": "soon", "end": 1}, "to be numbers"),
        ({"lane": "guest", "start": 0, "end": float("inf")}, "goes from 0.0 to inf"),
    ],
)
def test_an_event_that_cannot_be_meant_is_named(event, problem):
    """The message carries the event's number, its values and what was expected."""
    with pytest.raises(UsageError, match="event 2, ") as caught:
        Timeline([EVENTS[0], event])
    assert problem in str(caught.value)


def test_exits_may_be_dicts_without_times():
    """Then there is no axis of time, and nothing is said about time."""
    timeline = Timeline.of_exits([{"reason": "Io", "rip": 0x7C00, "detail": "out 0x3f8"}, {"reason": "Hlt"}])
    assert timeline.run["timed"] is False
    assert str(timeline).splitlines() == [
        "Exits: 2 exits",
        "   1  Io   at 0x7c00, out 0x3f8",
        "   2  Hlt",
        "by reason: 1 Hlt, 1 Io",
    ]


def test_exits_may_have_times():
    """Guest and VMM take turns; the text says how long."""
    timeline = Timeline.of_exits([{"reason": "Io", "guest_s": 2e-6, "vmm_s": 0.25}] * 2)
    assert timeline.run["timed"] is True
    assert timeline.exits[1].guest[0].start == pytest.approx(0.250002)
    assert str(timeline).splitlines()[1] == "   1  Io  [guest 2 µs, then out 250 ms]"
    assert str(timeline).splitlines()[-1] == "time: 4 µs in the guest, 500 ms outside"


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        ({"rip": 1}, "has no reason"),
        ("Io", "is no exit"),
        ({"reason": "Io", "guest_s": -1, "vmm_s": 0}, "guest_s is -1"),
    ],
)
def test_an_exit_that_cannot_be_meant_is_named(one, problem):
    """A list of something else is refused in words."""
    with pytest.raises(UsageError, match=problem):
        Timeline.of_exits([one])


def test_recording_sees_each_run_of_a_cpu():
    """The VMM runs as ever; afterwards the timeline holds its exits, with times, and the CPU is as before."""
    with Vcpu.open("unicorn", HELLO) as vcpu:
        with Timeline.recording(vcpu) as timeline:
            vmm(vcpu)
            assert timeline.length == 0
        assert "run" not in vars(vcpu)
        assert vcpu.exits == timeline.length == 3
    assert timeline.histogram == {"Io": 2, "Hlt": 1}
    assert all(one.guest_time > 0 and one.outside_time >= 0 for one in timeline.exits)
    first = timeline.exits[0].outside[0].detail
    assert first == "at 0x100006, out dx, al, port 0xe9, data 48"


@pytest.mark.parametrize(
    ("exit_", "words"),
    [
        (Io(0, port=0x70, size=2, direction="in", count=3), "at 0x0, port 0x70, size 2, count 3"),
        (PageFault(4, address=0, access="write"), "at 0x4, address 0x0, access write"),
        (Io(4, data=bytes(20)), "at 0x4, port 0x0, data " + "00 " * 16 + "…"),
        (Privileged(4, text="mov rax, cr3", mnemonic="mov", operands="rax, cr3"), "at 0x4, mov rax, cr3"),
    ],
)
def test_an_exit_is_told_in_words(exit_, words):
    """What its place and its disassembly do not say yet; an address of 0 is said."""
    assert Timeline.of_exits([exit_]).exits[0].outside[0].detail == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ns"), (1.234e-8, "12.3 ns"), (2e-6, "2 µs"), (0.9999, "1000 ms"), (12.5, "12.5 s"), (4321, "4321 s")],
)
def test_durations_are_written_in_the_form_that_notebook_comparison_knows(seconds, text):
    """A number, a space, a unit; no exponent."""
    assert duration(seconds) == text


def test_recording_keeps_what_came_before_an_exception():
    """A VMM that fails can be looked at."""
    with Vcpu.open("unicorn", HELLO, budget=Budget(exits=2)) as vcpu:
        with pytest.raises(BudgetSpentError), Timeline.recording(vcpu) as timeline:
            vmm(vcpu)
        assert [one.reason for one in timeline.exits] == ["Io", "Io", "BudgetSpent"]


def test_recordings_may_be_nested():
    """The inner one ends, the outer one goes on."""
    with Vcpu.open("unicorn", HELLO) as vcpu, Timeline.recording(vcpu) as outer:
        with Timeline.recording(vcpu) as inner:
            vcpu.complete(vcpu.run())
        vmm(vcpu)
    assert (inner.length, outer.length) == (1, 3)


def test_long_runs_are_cut_and_say_so():
    """The browser gets the first thousand; the text shows the first ones."""
    timeline = Timeline.of_exits([{"reason": "Io"}] * 1200)
    assert (timeline.length, timeline.left_out) == (1000, 200)
    assert str(timeline).splitlines()[0] == "Exits: 1000 exits, and 200 more that were not kept"
    assert "      … 976 more exits" in str(timeline)


def test_a_recording_that_grows_too_long_counts_on():
    """A guest that exits without end does not fill the memory."""
    with Vcpu.open("unicorn", bytes.fromhex("e6e9 ebfc"), budget=Budget(exits=1100)) as vcpu:
        with Timeline.recording(vcpu) as timeline:
            while not (reason := vcpu.run()).final:
                vcpu.complete(reason)
        assert (timeline.length, timeline.left_out, timeline.run["left_out"]) == (1000, 101, 101)


def test_positions_stay_within_the_exits():
    """Beyond the ends there is nothing; an empty timeline has no position."""
    timeline = Timeline(EVENTS, position=99)
    assert timeline.position == 2
    timeline.position = -3
    assert timeline.position == 1
    assert Timeline([]).position == 0


def test_what_the_browser_gets_is_json():
    """Events and exits are plain lists."""
    run = json.loads(json.dumps(Timeline(EVENTS).run))
    assert run["lanes"] == ["guest", "VMM", "host"]
    assert run["exits"][0]["outside"][0] == [2, 2.0, 2.5, "Io", "out 0xe9"]


def test_the_static_forms_are_the_same_in_every_run():
    """A committed picture may not depend on how fast the machine was."""
    slow, fast = (Timeline.of_exits([{"reason": "Io", "guest_s": t, "vmm_s": 3 * t}] * 3) for t in (1e-3, 2e-6))
    assert slow.static() == fast.static()
    later = [{**event, "start": 2 * event["start"], "end": 2 * event["end"]} for event in EVENTS]
    stretched = [{**event, "end": event["end"] + 3} if event["start"] == 4.5 else event for event in EVENTS]
    assert Timeline(EVENTS).static() == Timeline(later).static() == Timeline(stretched).static()


def test_times_that_are_always_the_same_may_be_drawn():
    """A constructed example is drawn to scale."""
    drawn = Timeline(EVENTS, measured=False).static()["image/svg+xml"]
    assert "time, left to right: 4.5 s" in drawn


@pytest.mark.parametrize("timeline", [Timeline(EVENTS), Timeline([]), Timeline.of_exits([{"reason": "<Io>"}] * 40)])
def test_without_a_front_end_there_is_a_picture(timeline):
    """SVG with a title and a description, and a text."""
    bundle, _ = timeline._repr_mimebundle_()
    root = ET.fromstring(bundle["image/svg+xml"])
    names = [child.tag.rpartition("}")[2] for child in root]
    assert names[:2] == ["title", "desc"]
    assert root.attrib["aria-label"] == "Exits"
    assert bundle["text/plain"] == str(timeline)
