"""Checks of a device: a serial port as a function of what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..compare import shorten
from ..exercise import Exercise, Trial

uart = Exercise("uart")
DATA, STATUS = 0, 4
RX_READY, TX_READY, OVERRUN = 1, 2, 4
FIFO_BYTES, BUSY_ACCESSES = 4, 3
Script = Sequence[tuple[Any, ...]]
READ_STATUS, READ_DATA = ("read", STATUS), ("read", DATA)


def ask(trial: Trial, script: Script) -> dict[str, Any]:
    """Let the answer play the device; its replies have the right form."""
    got = trial.call(list(script))
    good = isinstance(got, dict) and isinstance(got.get("replies"), list | tuple) and isinstance(got.get("sent"), bytes)
    trial.expect(
        good,
        "misshapen",
        f"uart returned {shorten(got)}; expected replies (a list) and sent (bytes).",
        "bytes(…) makes bytes of a bytearray, and of a list of numbers below 256.",
    )
    reads = sum(event[0] == "read" for event in script)
    trial.expect(
        len(got["replies"]) == reads,
        "reply-per-read",
        f"The processor read {reads} times; there are {len(got['replies'])} replies.",
        "A processor that loads waits for a value; one that stores does not.",
    )
    return dict(got)


def judge_script(  # noqa: PLR0917 - calls read like rows of a table
    trial: Trial, script: Script, replies: Sequence[int], sent: bytes, misconception: str, what: str, hint: str
) -> None:
    """Compare replies and sent bytes; the first that differs is shown with the events before it."""
    got = ask(trial, script)
    reads = [at for at, event in enumerate(script) if event[0] == "read"]
    for number, (want, obtained) in enumerate(zip(replies, got["replies"], strict=True)):
        if want != obtained:
            at = reads[number]
            before = "; ".join(_told(event) for event in script[max(0, at - 5) : at]) or "nothing"
            trial.wrong(
                misconception,
                f"{what} Event {at} of {len(script)}, {_told(script[at])}: expected {want:#x}, obtained "
                f"{hex(obtained) if isinstance(obtained, int) else shorten(obtained)}. Before it came: {before}.",
                hint,
            )
    trial.equal(sent, got["sent"], misconception, f"{what} The bytes sent differ.", hint)


def _told(event: tuple[Any, ...]) -> str:
    names = {DATA: "DATA", STATUS: "STATUS"}
    if event[0] == "receive":
        return f"byte {event[1]:#x} arrives"
    name = names.get(event[1], f"offset {event[1]}")
    return f"read {name}" if event[0] == "read" else f"write {event[2]:#x} to {name}"


@uart.step("an idle port is ready to send, and what is written to it is sent")
def _sends(trial: Trial) -> None:
    letter = trial.rng.randrange(65, 90)
    script = [READ_STATUS, ("write", DATA, letter)]
    judge_script(trial, script, [TX_READY], bytes([letter]), "does-not-send", "An idle port.", "STATUS, bit 1.")


@uart.step("the transmitter is busy during the three accesses after a byte")
def _busy(trial: Trial) -> None:
    first, second = trial.rng.sample(range(65, 90), 2)
    script = [("write", DATA, first), READ_STATUS, READ_STATUS, READ_STATUS, READ_STATUS, ("write", DATA, second)]
    hint = "Keep a number of accesses for which it is still busy."
    what = "A byte is written, then the port is asked four times."
    judge_script(trial, script, [0, 0, 0, TX_READY], bytes([first, second]), "always-ready", what, hint)
    script = [("write", DATA, first), ("write", DATA, second)]
    what = "Two bytes are written at once: the transmitter is busy when the second comes."
    judge_script(trial, script, [], bytes([first]), "sends-while-busy", what, "A byte that comes too early is lost.")


@uart.step("received bytes wait in order until DATA is read, and reading STATUS changes nothing")
def _receives(trial: Trial) -> None:
    one, two = trial.rng.sample(range(97, 122), 2)
    both = TX_READY | RX_READY
    script = [("receive", one), READ_STATUS, READ_STATUS, READ_DATA, READ_STATUS]
    what, hint = "One byte arrives.", "Which of the two registers takes something away when it is read?"
    judge_script(trial, script, [both, both, one, TX_READY], b"", "status-takes", what, hint)
    what, hint = "Nothing has arrived.", "What does the table say about DATA when no byte waits?"
    judge_script(trial, [READ_DATA, READ_STATUS], [0, TX_READY], b"", "empty-is-not-zero", what, hint)
    script = [("receive", one), ("receive", two), READ_DATA, READ_STATUS, READ_DATA, READ_STATUS]
    judge_script(
        trial, script, [one, both, two, TX_READY], b"", "wrong-order", "Two bytes arrive.", "First in, first out."
    )


@uart.step("a byte that finds four others waiting is lost, and OVERRUN says so")
def _overrun(trial: Trial) -> None:
    letters = trial.rng.sample(range(97, 122), 5)
    script = [*(("receive", letter) for letter in letters), READ_STATUS, *[READ_DATA] * 5, READ_STATUS]
    status = TX_READY | RX_READY | OVERRUN
    replies = [status, *letters[:4], 0, TX_READY | OVERRUN]
    what, hint = "Five bytes arrive before the first is read.", "Which byte is lost, and how long is that remembered?"
    judge_script(trial, script, replies, b"", "no-overrun", what, hint)
