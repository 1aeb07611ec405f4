"""The judge's end of the channel to the student's process, and what stands for an answer there.

A test names an answer; in the judge that name is a `Remote`. Checks call it through `course.check.answer`, plain tests
call it like the function itself; either way the call is made in the student's process (`course.check.service`), and
only plain data comes back. What comes back was said by the student's side: it may be forged, endless, or never come.
It costs that call, nothing else.
"""

from __future__ import annotations

import builtins
import dataclasses
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from course.check import Call, Outcome
from course.check.answer import Elsewhere, Ended, Request, call
from course.check.reply import MAX_REPLY_BYTES, NotPlainError, plain
from course.check.service import FrameError, receive_frame, send_frame

GRACE_S = 10.0
"""How much later than a call's deadline the other side may say that it was over; hosts can be busy."""
_GONE = -1


@dataclasses.dataclass(frozen=True)
class Channel:
    """Where calls go.

    Attributes:
        path: the socket that the student's process serves.
        deadline_s: deadline of calls that plain tests make.
    """

    path: str
    deadline_s: float = 30.0

    def ask(self, question: Mapping[str, Any], deadline_s: float) -> tuple[Any, ...] | None:
        """Ask the student's process; None when it says nothing, nothing sensible, or not in time."""
        end = time.monotonic() + deadline_s + GRACE_S
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(deadline_s + GRACE_S)
            try:
                client.connect(self.path)
                send_frame(client, dict(question))
                told = receive_frame(client, end)
            except (OSError, FrameError, NotPlainError):
                return None
        return told if isinstance(told, tuple) and told and isinstance(told[0], str) else None

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """What the student's names stand for: plain data as it is, anything else a `Remote`; missing ones are missing.

        A forged answer can only claim another value.
        """
        wanted = sorted(names)
        if not wanted:
            return {}
        told = _ended(self.ask({"values": wanted}, 10.0))
        series = Call(Outcome.DIED) if told is None else call(_Said(told))
        found = series.value if isinstance(series.value, dict) else {}
        values: dict[str, Any] = {}
        for name in wanted:
            said = found.get(name)
            if isinstance(said, list) and len(said) == 1:
                values[name] = said[0]
            elif said is not None:
                values[name] = Remote(name, self)
        return values


@dataclasses.dataclass(frozen=True)
class _Said(Elsewhere):
    """What has been told already, to be read as a call's end."""

    ended: Ended

    def ask(self, request: Request) -> Ended:
        """Return it."""
        return self.ended


class Remote(Elsewhere):
    """Stands for an answer that lives in the student's process."""

    def __init__(self, name: str, channel: Channel) -> None:
        self._name = name
        self._channel = channel

    def __repr__(self) -> str:
        return f"<answer {self._name}>"

    def ask(self, request: Request) -> Ended:
        """Have the calls made in the student's process.

        Raises:
            NameError: the student's notebook defines no such name.
            NotPlainError: the check passes what is not plain data.
        """
        question = {
            "name": self._name,
            "arguments": [(plain(list(args)), plain(dict(kwargs))) for args, kwargs in request.arguments],
            "deadline_s": request.deadline_s,
            "descriptors": request.descriptors,
        }
        told = self._channel.ask(question, request.deadline_s)
        if told is not None and told[0] == "missing":
            raise NameError(f"name {self._name!r} is not defined: did the cell that should define it fail?")
        if told is not None and told[0] == "late":
            return Ended(None)
        return _ended(told) or Ended(b"", _GONE)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the answer as a plain test does: its value, or its exception."""
        done = call(self, *args, deadline_s=self._channel.deadline_s, **kwargs)
        if done.outcome is Outcome.RETURNED:
            return done.value
        raise _error(self._name, done)


def _ended(told: tuple[Any, ...] | None) -> Ended | None:
    """Read ``("ended", reply, exit code)``; None for anything else."""
    if told is None or len(told) != 3 or told[0] != "ended":
        return None
    _, reply, exitcode = told
    if type(reply) is not bytes or type(exitcode) is not int or len(reply) > MAX_REPLY_BYTES:
        return None
    return Ended(reply, exitcode)


def _error(name: str, done: Call) -> Exception:
    """The exception that a plain test sees in place of a value."""
    if done.outcome is Outcome.UNANSWERED:
        return NotImplementedError(f"{name} is not answered yet")
    if done.outcome is Outcome.TIMED_OUT:
        return TimeoutError(f"{name} had not returned after {done.error}")
    if done.outcome is Outcome.NOT_PLAIN:
        return TypeError(f"{name} returned what is not plain data: {done.error}")
    if done.outcome is Outcome.DIED:
        return RuntimeError(f"{name} ended its process ({done.error})")
    kind = getattr(builtins, done.error, None)
    known = isinstance(kind, type) and issubclass(kind, Exception)
    try:
        made = kind(done.detail) if known and kind is not None else None
    except Exception:  # such as UnicodeDecodeError, which wants five arguments
        made = None
    return made if isinstance(made, Exception) else RuntimeError(f"{name} raised {done.error}: {done.detail}")
