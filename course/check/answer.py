"""Call a student's function as if it lived on another planet.

The call happens in a forked child with a deadline, so that an answer that loops, exits, or crashes the interpreter
costs its own verdict and nothing else. What comes back is plain data (numbers, strings, bytes, lists, tuples, dicts,
sets): never an object with behaviour, so ``__eq__`` cannot be bribed. A coroutine is run to its end, a generator is
listed.

The child inherits the caller's memory (fork), so functions defined in a notebook work as they are; it cannot change it.

    parent                         child
    ──────                         ─────
    fork ────────────────────────▶ dies with its parent (PR_SET_PDEATHSIG)
    poll(pipe, deadline)           result = answer(*args)
    ◀──────────── length + pickle  of plain data only, then os._exit(0)
    waitpid / SIGKILL

An answer may live in another process altogether: one that is an `Elsewhere` is asked for the child's end instead of
being called here (`service` makes that child where the answer lives). Checks do not see the difference.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import contextlib
import ctypes
import dataclasses
import enum
import faulthandler
import inspect
import io
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .reply import MAX_REPLY_BYTES, NotPlainError, decode, encode, plain

_PRINT_LIMIT = 20_000
_WORDS_LIMIT = 4_000
_PR_SET_PDEATHSIG = 1


class Outcome(enum.Enum):
    """How a call ended."""

    RETURNED = "returned"
    RAISED = "raised"
    UNANSWERED = "not implemented"
    TIMED_OUT = "timed out"
    DIED = "died"
    NOT_PLAIN = "returned something that is not plain data"


@dataclasses.dataclass(frozen=True)
class Call:
    """What became of one call of an answer.

    Attributes:
        outcome: how it ended.
        value: the plain data returned (only when `outcome` is RETURNED).
        error: exception type, signal name or type name, by outcome.
        detail: the exception's message and the student's line, if known.
        printed: what the answer wrote on stdout, at most 20,000 characters; its process says so.
        seconds: wall time of the call.
    """

    outcome: Outcome
    value: Any = None
    error: str = ""
    detail: str = ""
    printed: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Series:
    """What became of several calls in one child.

    Attributes:
        end: how the child ended; RETURNED when it made all calls, UNANSWERED when one was not implemented.
        calls: one per call, in order; empty when `end` is neither RETURNED nor UNANSWERED.
        left_open: how many descriptors of each kind were open after the last call that were not after the first. Like
            what was printed, this is what the answer's process says: good for a message, no proof.
    """

    end: Outcome
    calls: Sequence[Call] = ()
    left_open: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
    """Calls that one child makes, one after the other.

    Attributes:
        arguments: positional and named arguments of each call, plain data.
        deadline_s: wall seconds for all of them.
        descriptors: whether to look which descriptors stay open.
    """

    arguments: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
    deadline_s: float
    descriptors: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        reply: what it wrote; None when its time was over.
        exitcode: its exit status, negative for a signal.
    """

    reply: bytes | None
    exitcode: int = 0


class Elsewhere(abc.ABC):
    """An answer that lives in another process and brings its own way there."""

    @abc.abstractmethod
    def ask(self, request: Request) -> Ended:
        """Have `in_child` done where the answer lives; keep the deadline, whatever the other side does."""


Answer = Callable[..., Any] | Elsewhere


def call(answer: Answer, *args: Any, deadline_s: float = 10.0, **kwargs: Any) -> Call:
    """Call ``answer(*args, **kwargs)`` in a child process.

    Args:
        answer: the student's function; a coroutine function is run with `asyncio.run`.
        *args: plain data (addresses, bytes, numbers).
        deadline_s: wall seconds after which the child is killed.
        **kwargs: plain data.

    Returns:
        What became of the call; never raises for anything that the answer does.
    """
    start = time.monotonic()
    request = Request([(args, kwargs)], deadline_s)
    series = _series(_ended(answer, request), request)
    return dataclasses.replace(series.calls[0], seconds=time.monotonic() - start)


def call_each(
    answer: Answer, arguments: Iterable[Sequence[Any]], *, deadline_s: float = 60.0, descriptors: bool = False
) -> Series:
    """Call an answer many times in one child: a thousand small questions cost one fork.

    Args:
        answer: the student's function.
        arguments: the positional arguments of each call.
        deadline_s: wall seconds for all calls together.
        descriptors: whether to look which descriptors stay open.

    Returns:
        What became of the calls. A call that raises does not end the series; NotImplementedError does.
    """
    request = Request([(tuple(args), {}) for args in arguments], deadline_s, descriptors)
    series = _series(_ended(answer, request), request)
    whole = series.end in (Outcome.RETURNED, Outcome.UNANSWERED)
    return series if whole else dataclasses.replace(series, calls=())


def in_child(answer: Callable[..., Any], request: Request) -> Ended:
    """Make the calls of `request` in a forked child, and end it in time."""
    end = time.monotonic() + request.deadline_s
    read_fd, write_fd = os.pipe()
    parent = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with warnings.catch_warnings():
        # Python >= 3.12 warns about fork in a threaded process. The child runs only the answer and leaves by _exit.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _answer_and_exit(write_fd, parent, answer, request)
    os.close(write_fd)
    reply: bytes | None = None
    try:
        reply = _receive(read_fd, end)
    finally:
        os.close(read_fd)
        exitcode = _reap(pid, kill_now=reply is None)
    return Ended(reply, exitcode)


def _ended(answer: Answer, request: Request) -> Ended:
    return answer.ask(request) if isinstance(answer, Elsewhere) else in_child(answer, request)


def _receive(fd: int, end: float) -> bytes | None:
    """Read to the end of the reply; None when `end` (monotonic seconds) comes first."""
    data = bytearray()
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        chunk = os.read(fd, 1 << 16)
        if not chunk or len(data) > MAX_REPLY_BYTES:
            return bytes(data)
        data += chunk


def _reap(pid: int, *, kill_now: bool) -> int:
    """Wait for the child, which has nothing more to say; returns its exit code, negative for a signal."""
    end = time.monotonic() + (0 if kill_now else 1.0)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.001)


def _series(ended: Ended, request: Request) -> Series:
    """Read what a child says, which may be anything; there is always one call at least."""
    if ended.reply is None:
        return Series(Outcome.TIMED_OUT, [Call(Outcome.TIMED_OUT, error=f"{request.deadline_s:g} s")])
    try:
        calls, printed, left_open = decode(ended.reply)
        printed = str(printed)[:_PRINT_LIMIT]
        made = [
            Call(Outcome[outcome], value, str(error)[:_WORDS_LIMIT], str(detail)[:_WORDS_LIMIT], printed)
            for outcome, value, error, detail in calls
        ]
        open_now = {str(kind)[:_WORDS_LIMIT]: int(count) for kind, count in left_open.items()}
        unanswered = any(one.outcome is Outcome.UNANSWERED for one in made)
        if not made or (not unanswered and len(made) != len(request.arguments)):
            raise ValueError("not a reply")
        return Series(Outcome.UNANSWERED if unanswered else Outcome.RETURNED, made, open_now)
    except NotPlainError as error:
        return Series(Outcome.NOT_PLAIN, [Call(Outcome.NOT_PLAIN, error=str(error))])
    except Exception:  # an incomplete or forged reply: the child died while, or instead of, answering
        code = ended.exitcode
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"exit code {code}"
        return Series(Outcome.DIED, [Call(Outcome.DIED, error=name)])


class _Tee(io.StringIO):
    """Keeps the first characters of what is printed and counts on silently."""

    def write(self, text: str) -> int:
        if self.tell() < _PRINT_LIMIT:
            super().write(text[:_PRINT_LIMIT])
        return len(text)


def _answer_and_exit(fd: int, parent: int, answer: Callable[..., Any], request: Request) -> None:
    """Run in the child; never returns."""
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return  # it died before the signal was asked for; `finally` ends this child
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        faulthandler.disable()  # a crash is reported by the verdict, not by a dump in the middle of the notebook
        printed = _Tee()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(_Tee()):
            results, left_open = _run_each(answer, request)
        reply = encode((results, printed.getvalue(), left_open))
        if len(reply) > MAX_REPLY_BYTES:
            too_much = f"{len(reply) >> 20} MiB of data (at most {MAX_REPLY_BYTES >> 20} can be checked)"
            reply = encode(([("NOT_PLAIN", None, too_much, "")] * len(results), "", {}))
        with os.fdopen(fd, "wb") as pipe:
            pipe.write(reply)
    finally:
        os._exit(0)


_Result = tuple[str, Any, str, str]


def _run_each(answer: Callable[..., Any], request: Request) -> tuple[list[_Result], dict[str, int]]:
    results: list[_Result] = []
    before: collections.Counter[str] | None = None
    for args, kwargs in request.arguments:
        results.append(_run(answer, args, kwargs))
        if results[-1][0] == "UNANSWERED":
            return results, {}
        if request.descriptors and before is None:
            # The first call may open what stays for good, such as a cached module.
            before = _descriptors()
    return results, dict(_descriptors() - before) if before is not None else {}


def _descriptors() -> collections.Counter[str]:
    """How many descriptors of each kind are open here."""
    from ..kernel.descriptors import kinds  # noqa: PLC0415 - few checks ask

    return kinds()


def _run(answer: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Result:
    try:
        value = answer(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        return ("RETURNED", plain(value), "", "")
    except NotImplementedError as error:
        return ("UNANSWERED", None, "NotImplementedError", str(error))
    except NotPlainError as error:
        return ("NOT_PLAIN", None, str(error), "")
    except BaseException as error:  # SystemExit and KeyboardInterrupt included: all is the answer's own doing
        return ("RAISED", None, type(error).__name__, _where(error))


def _where(error: BaseException) -> str:
    """The exception's message and the innermost line of the answer that was running."""
    own = __file__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != own]
    in_answer = [f for f in frames if "site-packages" not in f.filename and "/lib/python" not in f.filename]
    line = in_answer[-1] if in_answer else None
    where = f" (line {line.lineno} of {line.name}: {line.line})" if line and line.line else ""
    return f"{error}{where}"
