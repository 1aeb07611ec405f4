"""QMP events, kept so that none is lost.

QEMU sends events when it likes: often before the reply to the command that caused them. Whoever starts to listen
after the command has missed them. So the monitor's thread puts every event here, in order, and callers take them:

* the *backlog* holds the latest events that nobody took; `EventLog.wait` takes the oldest match from it;
* a `Recording` holds all events of some names between its start and its end, whoever else takes them.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from ..error import EventTimeout, MachineError, MachineGone

Event = dict[str, Any]
Fault = Callable[[type[MachineError], str], MachineError]
"""Makes an error of a class, with a message, that carries its machine's evidence."""

BACKLOG = 1000


def matches(event: Event, name: str | None, wanted: dict[str, Any]) -> bool:
    """Tell whether an event has this name and, in its data, these values (``_`` in a key stands for ``-`` too)."""
    if name is not None and event["event"] != name:
        return False
    data = event.get("data", {})
    keys = {key: key if key in data else key.replace("_", "-") for key in wanted}
    return all(keys[key] in data and data[keys[key]] == value for key, value in wanted.items())


class EventLog:
    """All events of one machine; filled by the monitor's thread, read by any."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.changed = threading.Condition()
        self.ended = False
        self._backlog: collections.deque[Event] = collections.deque(maxlen=BACKLOG)
        self._recordings: list[Recording] = []

    def put(self, event: Event) -> None:
        """Add an event."""
        with self.changed:
            self._backlog.append(event)
            for recording in self._recordings:
                recording.put(event)
            self.changed.notify_all()

    def end(self) -> None:
        """Wake up those who wait: no event will come any more."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def discard(self, *names: str) -> None:
        """Forget the events of these names that nobody took; recordings keep theirs."""
        with self.changed:
            kept = [event for event in self._backlog if event["event"] not in names]
            self._backlog.clear()
            self._backlog.extend(kept)

    def wait(self, name: str, timeout_s: float, **match: Any) -> Event:
        """Take the oldest matching event out of the backlog, waiting for it if need be."""

        def take() -> Event | None:
            for event in self._backlog:
                if matches(event, name, match):
                    self._backlog.remove(event)
                    return event
            return None

        return self.await_(take, name, timeout_s, match, lambda: [event["event"] for event in self._backlog])

    def add(self, recording: Recording) -> None:
        """Start a recording."""
        with self.changed:
            self._recordings.append(recording)

    def remove(self, recording: Recording) -> None:
        """End a recording."""
        with self.changed:
            self._recordings = [other for other in self._recordings if other is not recording]

    def await_(
        self,
        take: Callable[[], Event | None],
        name: str | None,
        timeout_s: float,
        match: dict[str, Any],
        seen: Callable[[], Iterable[str]],
    ) -> Event:
        """Call `take` at each new event until it returns one.

        Raises:
            EventTimeout: when none came in time.
            MachineGone: when QEMU ended first.
        """
        end = time.monotonic() + timeout_s
        with self.changed:
            while (event := take()) is None:
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    break
                self.changed.wait(left)
            else:
                return event
            others = ", ".join(list(seen())[-10:]) or "nothing"
            ended = self.ended
        wanted = (name or "event") + (f" with {match}" if match else "")
        if ended:
            raise self.fault(MachineGone, f"QEMU ended before {wanted} came; seen: {others}.")
        raise self.fault(
            EventTimeout,
            f"{wanted} did not come within {timeout_s:g} s; seen: {others}. "
            "Check that the command that causes it was executed, and the spelling in query-qmp-schema.",
        )


class Recording(list[Event]):
    """The events of some names from the start of a `with` block to its end, in order; a list that grows.

    ::

        with vm.record("STOP", "RESUME") as events:
            vm.pause()
            events.wait("STOP")
    """

    def __init__(self, log: EventLog, names: Iterable[str]) -> None:
        super().__init__()
        self.names = frozenset(names)
        self._log = log
        self._taken: set[int] = set()

    def __enter__(self) -> Recording:
        self._log.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.remove(self)

    def put(self, event: Event) -> None:
        """Add an event if it has one of the names; called with the log's lock held."""
        if not self.names or event["event"] in self.names:
            self.append(event)

    def wait(self, name: str | None = None, timeout_s: float = 10, **match: Any) -> Event:
        """Return the first matching event that no earlier `wait` returned, waiting for it if need be.

        Args:
            name: the event's name; None takes any that is recorded.
            timeout_s: seconds to wait.
            **match: values that the event's data must have; ``_`` stands for ``-``.

        Raises:
            EventTimeout: when it did not come in time.
            MachineGone: when QEMU ended first.
        """

        def take() -> Event | None:
            for index, event in self._untaken():
                if matches(event, name, match):
                    self._taken.add(index)
                    return event
            return None

        return self._log.await_(take, name, timeout_s, match, lambda: [event["event"] for event in self])

    def _untaken(self) -> Iterator[tuple[int, Event]]:
        return ((index, event) for index, event in enumerate(self) if index not in self._taken)
