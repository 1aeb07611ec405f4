"""`lifecycle(qmp_path) -> list[str]`: take a machine through its life by waiting for events.

The witness is the order of messages on the answer's monitor: between a command and the next one, the answer must have
received the event that says that the first one took effect. The relay can hold an event back: a patient answer does
not mind, one that sleeps or polls goes on too early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...machine.transcript import QmpProxy
from ..answer import Call, Outcome
from ..exercise import Exercise, Trial
from .witness import Line, Message, Transcript, bare_metal, name_of

lifecycle = Exercise("lifecycle", deadline_s=4)

EFFECTS = [("cont", "RESUME"), ("stop", "STOP"), ("cont", "RESUME"), ("quit", "SHUTDOWN")]
STATES = ["prelaunch", "running", "paused", "running", "shutdown"]
ASKED = "lifecycle(qmp_path)"
_ROUTE = "prelaunch → running → paused → running → shutdown"
_HUNG_UP = ("EOFError", "ConnectionResetError", "BrokenPipeError", "ConnectError")
_PAUSE_S = 0.1  # longer than this between two commands is a sleep
_WAIT = "A reply says that a command was understood. Which message says that the machine has changed?"


def judge(trial: Trial, delays: Mapping[str, float] | None = None, foreign: Sequence[Message] = ()) -> None:
    """Run the answer on a new machine and look at what passed on its monitor.

    Args:
        trial: the running trial.
        delays: seconds by which events of these names come late.
        foreign: events of others that come in between.
    """
    with (
        bare_metal(paused=True) as vm,
        QmpProxy(vm.qmp_path, delay_events_s=delays or {}, foreign_events=foreign) as proxy,
    ):
        done = trial.attempt(proxy.path)
        seen = Transcript.of(proxy)
    _explain_exception(trial, done, seen)
    if done.outcome is Outcome.TIMED_OUT:
        _explain_hang(trial, done, seen)
    if done.outcome is not Outcome.RETURNED:
        trial.value_of(done, ASKED)
    _require_route(trial, done, seen)
    _require_patience(trial, done, seen)
    got = trial.value_of(done, ASKED)
    trial.equal(
        STATES,
        list(got) if isinstance(got, list | tuple) else got,
        "other-states",
        "The machine went the whole way. The returned list, though:",
        "It begins with the state in which you find the machine; each event adds the next one.",
    )


def _explain_exception(trial: Trial, done: Call, seen: Transcript) -> None:
    if done.outcome is not Outcome.RAISED:
        return
    if not seen.negotiated and any("qmp_capabilities" in text for text in seen.errors()):
        trial.wrong(
            "no-capabilities",
            f"You sent {seen.commands[0]!r} first. QEMU replied: {seen.errors()[0]}",
            "What does QEMU expect before any other command?",
        )
    if "quit" in seen.commands and done.error in (
        "EOFError",
        "ConnectionResetError",
        "BrokenPipeError",
        "ConnectError",
    ):
        trial.nearly(
            "eof-after-quit",
            f"{ASKED} did its work, then raised {done.error}: {done.detail}",
            "QEMU hangs up when it ends, because you told it to. Whose turn is it to be surprised?",
        )


def _explain_hang(trial: Trial, done: Call, seen: Transcript) -> None:
    _refuse_power_button(trial, seen)
    last = next((i for i, line in reversed(list(enumerate(seen.lines))) if line.sent), None)
    if last is None:
        return
    command = name_of(seen.lines[last].message)
    event = dict(EFFECTS).get(command, "")
    if not any(line.message.get("event") == event for line in seen.lines[last:]):
        return
    trial.wrong(
        "late-listener",
        f"{ASKED} was still waiting after {done.error}. The last command was {command!r}; its event {event} came "
        "before the reply.",
        "From which moment on does your listener listen? An event that comes earlier is gone.",
    )


def _require_route(trial: Trial, done: Call, seen: Transcript) -> None:
    """The commands that change the machine's state, in their order."""
    if not seen.commands:
        trial.wrong(
            "claimed",
            f"{ASKED} returned {done.value!r}, but no command ever reached the machine.",
            "Send the commands that take it from state to state.",
        )
    _refuse_power_button(trial, seen)
    moves = [name for name in seen.commands if name in ("cont", "stop", "quit", "system_reset")]
    wanted = [command for command, _ in EFFECTS]
    trial.expect(
        moves == wanted,
        "other-route",
        f"The way {_ROUTE} takes the commands {', '.join(wanted)}; the machine received {', '.join(moves) or 'none'}.",
        "Which command is missing, or one too many?",
    )


def _refuse_power_button(trial: Trial, seen: Transcript) -> None:
    trial.expect(
        "system_powerdown" not in seen.commands,
        "power-button",
        f"You sent {seen.told}. This machine has no operating system that reacts to its power button.",
        "Which command ends QEMU itself, whatever the guest does?",
    )


def _require_patience(trial: Trial, done: Call, seen: Transcript) -> None:
    """Between a command and the next one, its event was received."""
    at = [i for i, line in enumerate(seen.lines) if line.sent and name_of(line.message) in dict(EFFECTS)]
    for (command, event), begin, end in zip(EFFECTS, at, [*at[1:], len(seen.lines)], strict=True):
        between = seen.lines[begin + 1 : end]
        if any(line.message.get("event") == event for line in between):
            continue
        last = end == len(seen.lines)
        following = "the end of your function" if last else name_of(seen.lines[end].message)
        pause = (done.seconds if last else seen.lines[end].seconds) - seen.lines[end - 1].seconds
        _explain_impatience(trial, f"{command} → {event}", between, following, pause)


def _explain_impatience(trial: Trial, awaited: str, between: Sequence[Line], following: str, pause: float) -> None:
    command, event = awaited.split(" → ")
    what = f"After {command}, the event {event} had not come when {following!r} followed"
    polls = sum(line.sent and name_of(line.message) == "query-status" for line in between)
    others = [str(line.message["event"]) for line in between if not line.sent and "event" in line.message]
    if polls:
        trial.wrong(
            "polled",
            f"{what}; in between you asked for the state (×{polls}).",
            "Polling misses what happens between two questions. Who could tell you without being asked?",
        )
    if others and pause <= _PAUSE_S:
        trial.wrong(
            "any-event",
            f"{what}; what had come was {', '.join(others)}.",
            "Not every event is yours. Which name do you wait for?",
        )
    if pause > _PAUSE_S:
        trial.wrong(
            "slept", f"{what}, {pause:.1f} s later.", "How long is long enough, on a busy machine? Wait for a message."
        )
    trial.wrong("did-not-wait", f"{what} at once.", _WAIT)


@lifecycle.step("it goes from prelaunch to shutdown, and each step is seen to happen")
def _plain(trial: Trial) -> None:
    judge(trial)


@lifecycle.step("it waits for events that come 0.3 s late")
def _late(trial: Trial) -> None:
    judge(trial, {"STOP": 0.3})
