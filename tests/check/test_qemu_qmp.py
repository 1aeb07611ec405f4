"""The witnesses of lesson 09's checks, apart from any answer."""

from __future__ import annotations

import asyncio
import json
import random

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.checks import qemu_qmp as hidden
from course.check import Exercise, State, qemu_qmp
from course.check.qemu_qmp import backups, memory, migration, snapshots, states, stream
from course.check.qemu_qmp.witness import Line, Transcript, bare_metal, counter, counts_on
from course.error import EventTimeout


def test_each_exercise_has_a_hidden_check_of_its_name():
    """What students check is graded, and nothing else is."""
    graded = {name for name, value in vars(hidden).items() if isinstance(value, Exercise)}
    assert graded == set(qemu_qmp.__all__)
    for name in graded:
        visible, unseen = getattr(qemu_qmp, name), getattr(hidden, name)
        assert (visible.hidden, unseen.hidden) == (False, True)
        assert visible.steps
        assert unseen.steps


# ─── streams ─────────────────────────────────────────────────────────────────


@given(st.integers(), st.lists(st.integers(-5, 3000)))
def test_a_cut_stream_is_the_same_stream(seed, places):
    """However a stream is cut, joining gives its messages back, as Python's own reader sees them."""
    rng = random.Random(seed)
    messages = [stream.GREETING, *(stream.reply(rng, k) for k in range(5)), *(stream.event(rng) for _ in range(5))]
    data = stream.wire(messages)
    chunks = stream.cut(data, places)
    assert b"".join(chunks) == data
    assert all(chunks)
    assert [json.loads(line) for line in data.splitlines()] == messages


def test_cuts_inside_characters_break_them():
    """Each offset that is called inside a character is one where decoding fails on both sides."""
    data = "é☎😀a".encode()
    places = stream.inside_characters(data)
    assert len(places) == 1 + 2 + 3
    for place in places:
        for half in (data[:place], data[place:]):
            with pytest.raises(UnicodeDecodeError):
                half.decode()


def test_messages_are_sorted_by_what_they_are():
    """Greeting, replies by id and events in order."""
    stop, resume = {"event": "STOP"}, {"event": "RESUME"}
    reply, error = {"return": {}, "id": 0}, {"error": {}, "id": "x"}
    expected = {"greeting": stream.GREETING, "replies": {0: reply, "x": error}, "events": [stop, resume]}
    assert stream.sort_out([stream.GREETING, error, stop, reply, resume]) == expected


# ─── transcripts ─────────────────────────────────────────────────────────────


def lines(*messages):
    """A transcript of messages: those with execute were sent."""
    return Transcript([Line("execute" in m, float(i), m) for i, m in enumerate(messages)])


def test_a_transcript_knows_commands_and_errors():
    """Negotiation is no command; an error is what QEMU said, not what a value contains."""
    seen = lines(
        {"QMP": {}},
        {"execute": "qmp_capabilities"},
        {"return": {}},
        {"execute": "stop", "arguments": {"a": 1}},
        {"error": {"class": "GenericError", "desc": "no"}},
        {"event": "STOP"},
    )
    assert seen.negotiated
    assert seen.commands == ["stop"]
    assert seen.arguments("stop") == [{"a": 1}]
    assert seen.errors() == ["no"]
    assert seen.delivered("STOP") == [{"event": "STOP"}]
    assert not lines({"execute": "stop"}).negotiated


def test_a_transcript_knows_what_was_told_of_jobs():
    """News come by events and by query-jobs; errors by query-jobs and from the human monitor."""
    job = {"id": "j", "type": "snapshot-save", "status": "concluded", "error": "full"}
    seen = lines(
        {"event": "JOB_STATUS_CHANGE", "data": {"id": "j", "status": "created"}},
        {"execute": "query-jobs"},
        {"return": [job]},
        {"return": [{"name": "a device with a status", "status": "ok"}]},
        {"return": "Error: no such snapshot\r\n"},
    )
    assert seen.news_of_jobs() == ["created", "concluded"]
    assert seen.errors_of_jobs() == ["full", "Error: no such snapshot"]


# ─── machines ────────────────────────────────────────────────────────────────


@pytest.mark.qemu
def test_a_guest_that_does_not_count_is_told():
    """A paused guest stands still; waiting for it ends with a message that says where it stands."""
    with bare_metal() as vm:
        reached = counts_on(vm)
        vm.pause()
        stood = counter(vm)
        assert stood >= reached
        with pytest.raises(EventTimeout, match=f"stands at {stood}"):
            counts_on(vm, timeout_s=0.2)


@pytest.mark.qemu
def test_memory_of_a_machine_is_what_qemu_says():
    """Plugged DIMMs count, backends without one are orphans."""
    with memory.machine() as vm:
        assert (memory.total_mib(vm), memory.orphans(vm)) == (64, [])
        memory.plug(vm, "one", 32)
        vm.execute("object-add", {"qom-type": "memory-backend-ram", "id": "lost", "size": 32 << 20})
        assert (memory.total_mib(vm), memory.orphans(vm)) == (96, ["lost"])
        assert [d["id"] for d in memory.dimms(vm)] == ["one"]


@pytest.mark.qemu
def test_snapshots_with_and_without_ram_differ():
    """A whole snapshot has a state, one of the disk has none, and one that was never made is None."""
    with snapshots.machine("node7") as vm:
        vm.snapshot("whole")
        vm.execute("blockdev-snapshot-internal-sync", device="node7", name="disk-only")
        assert snapshots.kept(vm, "whole")["vm-state-size"] > 0
        assert snapshots.kept(vm, "disk-only")["vm-state-size"] == 0
        assert snapshots.kept(vm, "never") is None


@pytest.mark.qemu
@pytest.mark.parametrize(("backed", "depth"), [(False, 1), (True, 2)])
def test_a_writing_machine_has_the_chain_that_was_asked_for(backed, depth):
    """The disk stands alone or on a backing file, and holds what the guest never wrote."""
    with backups.writing(backed=backed) as running:
        assert backups.attached(running.vm) == {"file": str(running.directory / "disk.qcow2"), "depth": depth}
        assert counter(running.vm) >= backups.SECTORS


@pytest.mark.qemu
def test_the_wire_is_too_narrow_for_the_busy_guest():
    """At the bandwidth and the downtime that are given, 32 MiB cannot be sent in the last round."""
    with migration.pair(dirty_mib=32) as both:
        given = both.source.execute("query-migrate-parameters")
        assert given["max-bandwidth"] == migration.WIRE_MIB_S << 20
        sent_in_downtime_mib = migration.WIRE_MIB_S * given["downtime-limit"] / 1000
        assert sent_in_downtime_mib < 32
        assert migration.WIRE_MIB_S * migration.DOWNTIME_MS / 1000 < 28


@pytest.mark.qemu
def test_checks_work_inside_a_running_loop():
    """A notebook runs a loop already; a check that calls an asynchronous answer works there."""

    async def untouched(qmp_path: str) -> list[str]:
        raise NotImplementedError

    async def lifecycle(qmp_path: str) -> list[str]:
        return states.STATES

    async def cell() -> list[State]:
        return [qemu_qmp.lifecycle.examine(answer).state for answer in (untouched, lifecycle)]

    assert asyncio.run(cell()) == [State.UNANSWERED, State.WRONG]


@pytest.mark.qemu
def test_an_answer_that_never_ends_leaves_nothing_running():
    """When the time of an answer is up, its machines are gone with it."""

    async def waits_for_ever(qmp_path: str, tag: str) -> None:
        await asyncio.sleep(3600)

    check = Exercise("checkpoint", deadline_s=0.3)
    check.steps = qemu_qmp.checkpoint.steps[:1]
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    verdict = check.examine(waits_for_ever)
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert verdict.misconception == "endless"
    assert after <= before
