"""`demux(chunks) -> dict`: sort a raw QMP stream into its greeting, replies and events."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

from ..answer import Outcome
from ..compare import shorten
from ..exercise import Exercise, Trial

Message = dict[str, Any]

demux = Exercise("demux")

GREETING: Message = {
    "QMP": {"version": {"qemu": {"major": 8, "minor": 2, "micro": 2}, "package": ""}, "capabilities": ["oob"]}
}
_NAMES = ["disque système", "Ω-pool", "зал 3", "磁盘", "réseau ☎", "plain"]
_EVENTS = ["STOP", "RESUME", "JOB_STATUS_CHANGE", "DEVICE_DELETED", "RTC_CHANGE", "NIC_RX_FILTER_CHANGED"]
_RECEIVED = "recv hands you whatever has arrived by then; only the stream itself says where a message ends."


def event(rng: random.Random, name: str = "") -> Message:
    """Make an event as QEMU sends it."""
    stamp = {"seconds": 1_700_000_000 + rng.randrange(10**6), "microseconds": rng.randrange(10**6)}
    return {"timestamp": stamp, "event": name or rng.choice(_EVENTS), "data": {"id": rng.choice(_NAMES)}}


def reply(rng: random.Random, key: int | str) -> Message:
    """Make a reply to the command that was sent under `key`: a result, or one time in three an error."""
    if rng.random() < 1 / 3:
        error = {"class": "GenericError", "desc": f"Device '{rng.choice(_NAMES)}' not found"}
        return {"id": key, "error": error}
    return {"return": {"status": rng.choice(["running", "paused"]), "name": rng.choice(_NAMES)}, "id": key}


def wire(messages: Iterable[Message]) -> bytes:
    """Encode messages as they travel: one JSON text each, ended by a carriage return and a line feed."""
    return b"".join(json.dumps(m, ensure_ascii=False).encode() + b"\r\n" for m in messages)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut `data` before each of the offsets in `places`."""
    ends = [0, *sorted({p for p in places if 0 < p < len(data)}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def inside_characters(data: bytes) -> list[int]:
    """Find the offsets that lie inside a character of several bytes (its UTF-8 continuation bytes)."""
    return [i for i, byte in enumerate(data) if byte & 0xC0 == 0x80]


def sort_out(messages: Sequence[Message]) -> dict[str, Any]:
    """Say what `demux` has to return for these messages."""
    return {
        "greeting": next((m for m in messages if "QMP" in m), None),
        "replies": {m["id"]: m for m in messages if "id" in m},
        "events": [m for m in messages if "event" in m],
    }


def judge(trial: Trial, messages: Sequence[Message], chunks: list[bytes], *, torn: str = "", tail: str = "") -> None:
    """Check one stream.

    Args:
        trial: the running trial.
        messages: the whole messages in the stream, in order.
        chunks: the stream as the answer receives it.
        torn: what is special about the way it is cut; empty when each chunk is one message.
        tail: the beginning of a message whose end has not arrived, if there is one.
    """
    done = trial.attempt(chunks)
    count = f"{len(chunks)} chunk{'s' * (len(chunks) != 1)}"
    seen = f"The stream of {len(messages)} messages came in {count}, {torn or 'one message each'}"
    if done.outcome is Outcome.RAISED:
        _explain_exception(trial, f"{seen}: {done.error}: {done.detail}", done.error, tail)
    got = trial.value_of(done, f"demux(chunks), with {len(chunks)} chunks,")
    expected = sort_out(messages)
    if not isinstance(got, dict) or set(got) != set(expected):
        keys = sorted(map(str, got)) if isinstance(got, dict) else type(got).__name__
        trial.wrong("shape", f"Expected a dict with the keys {sorted(expected)}, obtained {keys}.")
    if got == expected:
        return
    _explain_replies(trial, expected, got, seen)
    _explain_events(trial, expected, got, seen)
    trial.equal(expected, got, "another-result", f"{seen}.", "Print the first message that is missing or changed.")


def _explain_exception(trial: Trial, what: str, error: str, tail: str) -> None:
    if error == "UnicodeDecodeError":
        trial.wrong("utf8-split", what, "One character can take up to 4 bytes. When is it safe to decode them?")
    if error in ("JSONDecodeError", "ValueError") and tail:
        trial.wrong("incomplete-tail", f"{what}\nThe stream ends within a message: {tail!r}.", _RECEIVED)
    if error in ("JSONDecodeError", "ValueError"):
        trial.wrong("one-recv-one-message", what, _RECEIVED)


def _explain_replies(trial: Trial, expected: dict[str, Any], got: dict[str, Any], seen: str) -> None:
    replies, wanted = got["replies"], expected["replies"]
    if not isinstance(replies, dict):
        trial.wrong("by-order", f"replies has to be a dict from id to reply, obtained {shorten(replies)}.")
    intruder = next((m for m in replies.values() if isinstance(m, dict) and "event" in m), None)
    if intruder:
        trial.wrong(
            "event-as-reply",
            f"{seen}; under replies you returned the event {shorten(intruder)}.",
            "An event is nobody's answer: it can come between a command and its reply.",
        )
    if any(isinstance(m, dict) and "QMP" in m for m in replies.values()):
        trial.wrong("greeting-as-reply", f"{seen}; the greeting is under replies.", "Which command does it answer?")
    lost = [key for key in wanted if key not in replies]
    if lost and all(str(key) in replies for key in lost):
        trial.wrong("id-changed", f"The reply to id {lost[0]!r} is under {str(lost[0])!r}.", "Keep an id as it came.")
    if lost and set(replies) == set(range(len(wanted))):
        trial.wrong(
            "by-order",
            f"{seen}; you numbered the replies {list(replies)}, their ids are {list(wanted)}.",
            "Replies may overtake each other; what tells you which command a reply belongs to?",
        )
    _explain_lost(trial, lost, wanted, got, seen)
    wrong = next((key for key in wanted if key in replies and replies[key] != wanted[key]), None)
    if wrong is not None:
        _explain_changed(trial, wanted[wrong], replies[wrong], seen)


def _explain_lost(trial: Trial, lost: list[Any], wanted: Message, got: dict[str, Any], seen: str) -> None:
    if not lost:
        return
    if any(isinstance(m, dict) and "event" not in m for m in got["events"]):
        stray = next(m for m in got["events"] if "event" not in m)
        trial.wrong(
            "event-by-text",
            f"{seen}; under events you returned {shorten(stray)}.",
            "The word may stand anywhere in a reply. Which key of which object makes a message an event?",
        )
    if all("error" in wanted[key] for key in lost):
        trial.wrong(
            "errors-dropped",
            f"{seen}; the reply {shorten(wanted[lost[0]])} is missing.",
            "A command that fails is answered too.",
        )
    if all(not key for key in lost):
        trial.wrong("falsy-id", f"The reply to id {lost[0]!r} is missing.", "Is 0 no id? What does `if x` ask?")
    trial.wrong(
        "one-recv-one-message",
        f"{seen}; {len(lost)} of {len(wanted)} replies are missing, first the one to id {lost[0]!r}.",
        _RECEIVED,
    )


def _explain_changed(trial: Trial, wanted: Message, got: Any, seen: str) -> None:
    if got == wanted:
        return
    if not isinstance(got, dict) or got.keys() != wanted.keys():
        trial.wrong("message-not-whole", f"Expected the whole message {shorten(wanted)}, obtained {shorten(got)}.")
    expected, obtained = (json.dumps(m, ensure_ascii=False) for m in (wanted, got))
    if "\ufffd" in obtained or _without_wide(obtained) == _without_wide(expected):
        trial.wrong(
            "utf8-split",
            f"{seen}; characters were lost: expected {shorten(wanted)}, obtained {shorten(got)}.",
            "Look at the bytes on both sides of a cut. To which character do they belong?",
        )


def _without_wide(text: str) -> str:
    """Leave only the characters that take one byte."""
    return "".join(c for c in text if ord(c) < 128)


def _explain_events(trial: Trial, expected: dict[str, Any], got: dict[str, Any], seen: str) -> None:
    events, wanted = got["events"], expected["events"]
    names = [m["event"] for m in wanted]
    if isinstance(events, list) and events == names:
        trial.wrong("message-not-whole", f"events has to hold whole messages, obtained {shorten(events)}.")
    if not isinstance(events, list) or events == wanted:
        return
    if len(events) < len(wanted) and all(m in wanted for m in events):
        what = f"{seen}; {len(wanted)} events came ({', '.join(names)}), you returned {len(events)}."
        if {m["event"] for m in events} == set(names):
            trial.wrong("events-merged", what, "The same event can come twice, and both count.")
        trial.wrong("one-recv-one-message", what, _RECEIVED)
    if len(events) == len(wanted) and all(m in events for m in wanted):
        trial.wrong("events-order", f"{seen}; the events came as {', '.join(names)}: keep their order.")
    if len(events) == len(wanted):
        for want, obtained in zip(wanted, events, strict=True):
            _explain_changed(trial, want, obtained, seen)


@demux.step("a greeting, a reply and an event are told apart")
def _simple(trial: Trial) -> None:
    messages = [
        GREETING,
        {"return": {}, "id": "a"},
        event(trial.rng, "STOP"),
        {"return": {"status": "paused"}, "id": "b"},
    ]
    judge(trial, messages, [wire([m]) for m in messages])


@demux.step("a failed command has a reply as well, and replies may overtake each other")
def _errors(trial: Trial) -> None:
    error = {"class": "CommandNotFound", "desc": "The command sleep has not been found"}
    messages = [
        GREETING,
        {"return": {}, "id": "c"},
        {"id": "a", "error": error},
        event(trial.rng),
        {"return": [], "id": "b"},
    ]
    judge(trial, messages, [wire([m]) for m in messages])


@demux.step("several messages may come in one chunk")
def _glued(trial: Trial) -> None:
    messages = [GREETING, {"return": {}, "id": "a"}, event(trial.rng, "STOP"), event(trial.rng, "STOP")]
    judge(trial, messages, [wire(messages[:1]), wire(messages[1:])], torn="with several messages in one chunk")


@demux.step("a message may come in several chunks")
def _torn(trial: Trial) -> None:
    messages = [GREETING, {"return": {"status": "running"}, "id": "a"}, event(trial.rng, "RESUME")]
    data = wire(messages)
    judge(trial, messages, cut(data, [10, len(data) // 2, len(data) - 20]), torn="cut in the middle of messages")
