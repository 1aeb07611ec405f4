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
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import ctypes
import dataclasses
import enum
import faulthandler
import inspect
import io
import os
import pickle
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

MAX_REPLY_BYTES = 32 << 20
_PRINT_LIMIT = 20_000
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
        printed: what the answer wrote on stdout, at most 20,000 characters.
        seconds: wall time of the call.
    """

    outcome: Outcome
    value: Any = None
    error: str = ""
    detail: str = ""
    printed: str = ""
    seconds: float = 0.0


class NotPlainError(TypeError):
    """A value that cannot cross: carries the offending type's name."""


def plain(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 - one return per kind of value
    """Copy `value` into exact builtin types.

    Subclasses are reduced to what they stand for (an IntEnum member to its int, a named tuple to a tuple, a memoryview
    to bytes), generators and iterators are listed.

    Raises:
        NotPlainError: for anything else, or nesting deeper than 50.
    """
    if depth > 50:
        raise NotPlainError("nested deeper than 50 levels")
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, collections.abc.Mapping):
        return {plain(k, depth + 1): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(v, depth + 1) for v in value)
    if isinstance(value, set | frozenset):
        return {plain(v, depth + 1) for v in value}
    if isinstance(value, list) or inspect.isgenerator(value) or isinstance(value, collections.abc.Iterator):
        return [plain(v, depth + 1) for v in value]
    raise NotPlainError(type(value).__name__)


def call(answer: Callable[..., Any], *args: Any, deadline_s: float = 10.0, **kwargs: Any) -> Call:
    """Call ``answer(*args, **kwargs)`` in a child process.

    Args:
        answer: the student's function; a coroutine function is run with `asyncio.run`.
        *args: plain data (addresses, bytes, numbers).
        deadline_s: wall seconds after which the child is killed.
        **kwargs: plain data.

    Returns:
        What became of the call; never raises for anything that the answer does.
    """
    read_fd, write_fd = os.pipe()
    start = time.monotonic()
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
        _answer_and_exit(write_fd, parent, answer, args, kwargs)
    os.close(write_fd)
    reply: bytes | None = None
    try:
        reply = _receive(read_fd, start + deadline_s)
    finally:
        os.close(read_fd)
        late = reply is None
        status = _reap(pid, kill_now=late)
    seconds = time.monotonic() - start
    if late:
        return Call(Outcome.TIMED_OUT, error=f"{deadline_s:g} s", seconds=seconds)
    return dataclasses.replace(_decode(reply or b"", status), seconds=seconds)


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


class _PlainUnpickler(pickle.Unpickler):
    """Builtin containers and numbers only: nothing that a reply names is ever imported."""

    def find_class(self, module: str, name: str) -> Any:
        """Allow what protocol 4 needs for sets and complex numbers; refuse the rest."""
        if (module, name) in {("builtins", "set"), ("builtins", "frozenset"), ("builtins", "complex")}:
            return {"set": set, "frozenset": frozenset, "complex": complex}[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _decode(reply: bytes, exitcode: int) -> Call:
    try:
        outcome, value, error, detail, printed = _PlainUnpickler(io.BytesIO(reply)).load()
        return Call(Outcome[outcome], value, str(error), str(detail), str(printed)[:_PRINT_LIMIT])
    except Exception:  # an incomplete or forged reply: the child died while, or instead of, answering
        name = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
        return Call(Outcome.DIED, error=name)


class _Tee(io.StringIO):
    """Keeps the first characters of what is printed and counts on silently."""

    def write(self, text: str) -> int:
        if self.tell() < _PRINT_LIMIT:
            super().write(text[:_PRINT_LIMIT])
        return len(text)


def _answer_and_exit(fd: int, parent: int, answer: Callable[..., Any], args: Any, kwargs: Any) -> None:
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
            result = _run(answer, args, kwargs)
        reply = pickle.dumps((*result, printed.getvalue()), protocol=4)
        if len(reply) > MAX_REPLY_BYTES:
            too_much = f"{len(reply) >> 20} MiB of data (at most {MAX_REPLY_BYTES >> 20} can be checked)"
            reply = pickle.dumps(("NOT_PLAIN", None, too_much, "", ""), protocol=4)
        with os.fdopen(fd, "wb") as pipe:
            pipe.write(reply)
    finally:
        os._exit(0)


def _run(answer: Callable[..., Any], args: Any, kwargs: Any) -> tuple[str, Any, str, str]:
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
