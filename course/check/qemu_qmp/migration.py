"""`migrate(source_path, destination_path, uri) -> dict`: move a running guest, even one that outruns the wire.

The source's bandwidth is limited, as on a busy network, so that a guest that dirties 32 MiB over and over never gets
through by itself: the answer has to look at query-migrate and to react. The witness is the guest's counter in both
machines' RAM, their run states, and what the source says of its migration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...error import MachineGone
from ...machine import Machine
from ...machine.transcript import QmpProxy
from ..answer import Call, Outcome
from ..compare import shorten
from ..exercise import Exercise, Trial
from .witness import Transcript, bare_metal, counter, counts_on

migrate = Exercise("migrate", deadline_s=12)

WIRE_MIB_S = 24
"""Bandwidth of the source in MiB/s: 32 MiB take longer than any downtime allowed, and the guest never rests."""
DOWNTIME_MS = 1000
"""The longest downtime that an answer may allow."""
ASKED = "migrate(source_path, destination_path, uri)"
MIB = 1 << 20
_MEGABIT = 1_000_000 / 8
_UNDER_WAY = ("setup", "active", "device")
_BEGUN = "The reply to migrate says that it has begun. Which status says that it is over?"


@dataclasses.dataclass
class Pair:
    """Two machines between which a guest can move, and the address where the destination shall listen."""

    source: Machine
    destination: Machine
    uri: str


@contextlib.contextmanager
def pair(*, dirty_mib: int = 0, destination_mib: int = 64) -> Iterator[Pair]:
    """Run a source, its counter counting, and a destination that waits for a guest."""
    with (
        tempfile.TemporaryDirectory(prefix="check-") as directory,
        bare_metal(dirty_mib=dirty_mib) as source,
        bare_metal(dirty_mib=dirty_mib, memory=str(destination_mib), incoming=True) as destination,
    ):
        source.execute("migrate-set-parameters", {"max-bandwidth": WIRE_MIB_S * MIB})
        counts_on(source)
        yield Pair(source, destination, f"unix:{Path(directory) / 'wire'}")


def ask(trial: Trial, both: Pair) -> tuple[Call, Transcript, Transcript]:
    """Call the answer, with a relay before each of the two monitors."""
    with QmpProxy(both.source.qmp_path) as source, QmpProxy(both.destination.qmp_path) as destination:
        done = trial.attempt(source.path, destination.path, both.uri)
        return done, Transcript.of(source), Transcript.of(destination)


def judge(trial: Trial, *, dirty_mib: int) -> None:
    """Have a guest moved that dirties so many MiB of its RAM all the time."""
    with pair(dirty_mib=dirty_mib) as both:
        begin = counter(both.source)
        done, sent, received = ask(trial, both)
        info = both.source.execute("query-migrate")
        if done.outcome is Outcome.TIMED_OUT:
            _explain_hang(trial, done, info)
        _require_arrival(trial, both, done, info, sent)
        _require_life(trial, both, sent, received)
        _require_same_guest(trial, both, begin)
        got = trial.value_of(done, ASKED)
        _require_info(trial, got, info)


def _explain_hang(trial: Trial, done: Call, info: dict[str, Any]) -> None:
    status = info.get("status", "none")
    ram = info.get("ram", {})
    what = f"{ASKED} had not returned after {done.error}; the migration is {status!r}"
    if status == "active":
        trial.wrong(
            "never-converges",
            f"{what} in round {ram['dirty-sync-count']}: {ram['remaining'] / MIB:.0f} MiB remain, "
            f"{ram['mbps'] * _MEGABIT / MIB:.0f} MiB/s go over the wire, "
            f"expected downtime {info.get('expected-downtime')} ms.",
            "The guest writes faster than the wire carries. Which three knobs could change that?",
        )
    if status == "failed":
        trial.wrong(
            "failure-ignored",
            f"{what}: {info.get('error-desc', 'the destination has hung up')}.",
            "A migration can end in more ways than one. Which of them does your loop know?",
        )
    trial.value_of(done, ASKED)


def _require_arrival(trial: Trial, both: Pair, done: Call, info: dict[str, Any], sent: Transcript) -> None:
    """The source says that its guest has left."""
    status = info.get("status", "none")
    if status == "completed":
        return
    if done.outcome is Outcome.RAISED:
        _explain_exception(trial, done, sent)
    if status in _UNDER_WAY and done.outcome is Outcome.RETURNED:
        trial.wrong(
            "active-is-done",
            f"{ASKED} returned {shorten(done.value)}; the migration was {status!r} then.",
            _BEGUN,
        )
    if done.outcome is Outcome.RETURNED:
        trial.wrong(
            "not-moved",
            f"{ASKED} returned; the source is {both.source.runstate!r}, its migration {status!r}. "
            f"You sent it: {sent.told}.",
            "Which command makes the source send its guest?",
        )
    trial.value_of(done, ASKED)


def _explain_exception(trial: Trial, done: Call, sent: Transcript) -> None:
    said = " ".join(sent.errors())
    if "Failed to connect" in f"{said} {done.detail}":
        trial.wrong(
            "nobody-listens",
            f"{ASKED} raised {done.error}: {done.detail}. You sent the source: {sent.told}",
            "The destination was started with -incoming defer. What does it wait for?",
        )


def _require_life(trial: Trial, both: Pair, sent: Transcript, received: Transcript) -> None:
    """One machine runs, the other has handed its guest over; nothing was stopped or cut for longer than allowed."""
    source, destination = both.source.runstate, _arrived(both.destination)
    if source == "running" and destination == "running":
        trial.wrong(
            "split-brain",
            "After the migration the guest runs in both machines at once.",
            "Both would write to the same disk and answer under the same address. Leave the source alone.",
        )
    if "system_reset" in received.commands:
        trial.wrong(
            "restarted",
            f"You sent the destination: {received.told}. Its guest has lost its RAM.",
            "A migration moves a living guest. What does a reset leave of it?",
        )
    if "stop" in sent.commands:
        trial.wrong(
            "not-live",
            f"You sent the source: {sent.told}. From stop on, the guest stood still.",
            "What is the word live for in live migration?",
        )
    trial.expect(destination == "running", "left-paused", f"The guest arrived, and is {destination!r}.", "Let it run.")
    trial.expect(source == "postmigrate", "source-alive", f"The source is {source!r}; expected 'postmigrate'.")
    limit = both.source.execute("query-migrate-parameters")["downtime-limit"]
    trial.expect(
        limit <= DOWNTIME_MS,
        "downtime-unlimited",
        f"You allowed a downtime of {limit / 1000:g} s; at most {DOWNTIME_MS / 1000:g} s is allowed. This time it took "
        f"{both.source.execute('query-migrate').get('downtime', 0) / 1000:.1f} s.",
        "Whoever used the guest meanwhile saw it hang. Which other knob is there?",
    )


def _arrived(destination: Machine, patience_s: float = 3) -> str:
    """Return the destination's state once it has taken the guest in."""
    end = time.monotonic() + patience_s
    while (state := destination.runstate) == "inmigrate" and time.monotonic() < end:
        time.sleep(0.01)
    return state


def _require_same_guest(trial: Trial, both: Pair, begin: int) -> None:
    left, arrived = counter(both.source), counter(both.destination)
    told = (
        f"The guest had counted to {begin} before and to {left} when it left the source; in the destination it is at "
    )
    trial.expect(begin <= left <= arrived, "restarted", f"{told}{arrived}.", "Is this the same life?")
    counts_on(both.destination)


def _require_info(trial: Trial, got: Any, info: dict[str, Any]) -> None:
    # The numbers themselves may still change a little just after "completed" is first told.
    if isinstance(got, dict) and got.get("status") == "completed" and {"total-time", "downtime", "ram"} <= got.keys():
        return
    if isinstance(got, dict) and got.get("status") in _UNDER_WAY:
        trial.wrong(
            "active-is-done",
            f"{ASKED} returned a dict with status {got['status']!r}; the migration was not over then.",
            _BEGUN,
        )
    trial.nearly(
        "other-info",
        f"The guest has moved. {ASKED} has to return query-migrate's last words, those with status 'completed' and "
        f"total-time {info['total-time']} ms; obtained {shorten(got)}.",
        "Ask the source once more when all is over.",
    )


def judge_failure(trial: Trial) -> None:
    """Have a guest sent to a machine that cannot take it: the answer has to raise, the guest to stay."""
    with pair(dirty_mib=16, destination_mib=32) as both:
        done, sent, _ = ask(trial, both)
        info = both.source.execute("query-migrate")
        if done.outcome is Outcome.TIMED_OUT:
            _explain_hang(trial, done, info)
        if done.outcome is Outcome.RETURNED:
            trial.wrong(
                "failure-ignored",
                f"{ASKED} returned {shorten(done.value)} although the destination refused the guest. The source's "
                f"migration is {info.get('status')!r}.",
                "Whoever called you switches the source off now. Let them know: raise.",
            )
        if done.outcome is not Outcome.RAISED:
            trial.value_of(done, ASKED)
        trial.expect(
            both.source.runstate == "running",
            "guest-lost",
            f"{ASKED} raised {done.error}, rightly, but the source is {both.source.runstate!r}. "
            f"You sent it: {sent.told}.",
            "The guest lives only there: leave it running.",
        )
        counts_on(both.source)
        with contextlib.suppress(MachineGone):
            both.destination.execute("query-status")


@migrate.step("an idle guest moves, goes on counting, and runs in one place only")
def _idle(trial: Trial) -> None:
    judge(trial, dirty_mib=0)


@migrate.step(f"a guest that dirties 32 MiB all the time arrives too, over {WIRE_MIB_S} MiB/s")
def _busy(trial: Trial) -> None:
    judge(trial, dirty_mib=32)
