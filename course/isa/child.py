"""Run a function in a forked child with a deadline: a crash of an emulator costs an answer, not the notebook.

What comes back is JSON (bytes travel as hexadecimal), never a pickle: a child that runs machine code of unknown origin
can lie about values and do nothing else to its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from ..error import CourseError


class ChildError(CourseError):
    """The child ended without an answer.

    Attributes:
        why: ``"timed out"`` or the name of a signal.
    """

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


def in_child(function: Callable[..., Any], *args: Any, timeout_s: float = 10.0) -> Any:
    """Call ``function(*args)`` in a child process and return its JSON-able result.

    Args:
        function: returns numbers, strings, lists, dicts or None; raises `CourseError` to refuse.
        *args: its arguments.
        timeout_s: wall seconds after which the child is killed.

    Raises:
        ChildError: the child timed out or was ended by a signal.
        CourseError: what the function itself raised, by its text.
    """
    read_fd, write_fd = os.pipe()
    with warnings.catch_warnings():
        # Python >= 3.12 warns about fork in a threaded process. The child runs one function and leaves by _exit.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _work_and_exit(write_fd, function, args)
    os.close(write_fd)
    try:
        reply = _read(read_fd, time.monotonic() + timeout_s)
    finally:
        os.close(read_fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it has answered, or it is late
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if reply is None:
        raise ChildError("timed out", f"the machine code was still running after {timeout_s:g} s and was stopped")
    if not reply:
        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        raise ChildError(name, f"the process that ran the machine code ended with {name}")
    kind, value = json.loads(reply)
    if kind == "error":
        raise CourseError(str(value))
    return value


def _read(fd: int, end: float) -> bytes | None:
    data = bytearray()
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        chunk = os.read(fd, 1 << 16)
        data += chunk
        if not chunk or data.endswith(b"\n"):
            return bytes(data)


def _work_and_exit(fd: int, function: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        faulthandler.disable()
        try:
            reply = ["value", function(*args)]
        except CourseError as error:
            reply = ["error", str(error)]
        except Exception as error:  # a mistake of ours: say which instead of ending silently
            reply = ["error", f"{type(error).__name__}: {error}"]
        data = json.dumps(reply).encode() + b"\n"
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os._exit(1)
