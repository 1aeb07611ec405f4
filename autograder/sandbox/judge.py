"""A trusted process beside a student's kernel: it sees the same processes under the same numbers.

A check is given a pid by an answer, or an answer the pid of a machine that the check started: both must mean the same.
So the judge is a fork of the grader that enters the box's PID namespace, with the grader's files and network, and with
a ``/proc`` that shows that namespace::

    grader ── fork ──▶ (enters) ── fork ──▶ judge: private mounts, /proc of the box, the grader's rights

What the student can do to it: see that it is there. It cannot be traced or read (it is not "dumpable"). Where the
grader is root it cannot be signalled either, since the student is another user; else the student is the same user to
the kernel, and can kill it: then the check has failed (`Judge.guarded`).

Where boxes have no PID namespace (landlock, none), all pids are the host's anyway.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from . import linux
from .level import Isolation
from .zygote import Box, SandboxError

_MAX_BYTES = 64 << 20


class JudgeError(SandboxError):
    """A judge ended without a result, or could not enter the box."""


class Judge:
    """A running judge; a context manager. Made by `judge_in`.

    Attributes:
        pid: host pid of the process that answers for it.
        guarded: the student's processes cannot signal it.
        shares_pids: it is in the PID namespace of the box (or there is only one for all).
    """

    def __init__(self, pid: int, reply: int, *, guarded: bool, shares_pids: bool) -> None:
        self.pid = pid
        self.guarded = guarded
        self.shares_pids = shares_pids
        self._reply = reply
        self._lock = threading.Lock()
        self._data = bytearray()
        self._open = True

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def result(self, timeout_s: float) -> Any:
        """Wait for what the callable returns.

        Raises:
            JudgeError: it took longer than `timeout_s` seconds (and was killed), or it ended without a result.
            Exception: what the callable raised.
        """
        if not self._collect(time.monotonic() + timeout_s):
            self.kill()
            raise JudgeError(f"a judge did not end within {timeout_s:g} s and was killed")
        if not self._data:
            raise JudgeError("a judge ended without a result; was it, or its box, killed?")
        fine, value = pickle.loads(bytes(self._data))  # noqa: S301 - written by our own fork
        if fine:
            return value
        raise value

    def kill(self) -> None:
        """End it; does nothing when it has ended."""
        with self._lock:
            if self._open:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                self._close()

    def _collect(self, end: float) -> bool:
        """Read until the judge has ended; False when `end` (monotonic seconds) comes first."""
        poll = select.poll()
        with self._lock:
            if not self._open:
                return True
            poll.register(self._reply, select.POLLIN)
            while poll.poll(max(0.0, end - time.monotonic()) * 1000):
                part = os.read(self._reply, 1 << 16)
                self._data += part
                if not part or len(self._data) > _MAX_BYTES:
                    self._close()
                    return True
        return False

    def _close(self) -> None:
        os.close(self._reply)
        self._open = False
        os.waitpid(self.pid, 0)


def judge_in(box: Box, target: Callable[..., Any], *args: Any) -> Judge:
    """Run ``target(*args)`` in a trusted process that shares the pids of a box.

    Args:
        box: a box that is alive.
        target: what to run; it is forked, not pickled: a closure will do. Its result is pickled.
        *args: for it.

    Raises:
        JudgeError: the box has ended.
    """
    if not box.alive():
        raise JudgeError(f"a judge cannot enter {box!r}: {box.why or 'its kernel ended by itself'}")
    receive, send = os.pipe()
    _flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, Python ≥ 3.12
        pid = os.fork()
    if pid == 0:
        os.close(receive)
        _enter(box, send, target, args)
    os.close(send)
    shares = bool(box.namespaces) or box.level.level in (Isolation.LANDLOCK, Isolation.NONE)
    return Judge(pid, receive, guarded=os.getuid() == 0 and box.uid != 0, shares_pids=shares)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _enter(box: Box, send: int, target: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    try:
        linux.die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not box.namespaces:
            linux.prctl(linux.PR_SET_DUMPABLE, 0)
            _answer(send, target, args)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        if os.getuid() != 0 and "user" in box.namespaces:
            linux.setns(box.namespaces["user"], linux.CLONE_NEWUSER)
            linux.die_with_parent()
        linux.setns(box.namespaces["pid"], linux.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            linux.die_with_parent()
            linux.unshare(linux.CLONE_NEWNS)
            linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
            linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
            _answer(send, target, args)
        os.close(send)
        os.waitpid(pid, 0)
    except BaseException as error:
        _write(send, pickle.dumps((False, JudgeError(f"a judge could not enter: {type(error).__name__}: {error}"))))
    finally:
        os._exit(0)


def _answer(send: int, target: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    try:
        try:
            reply = (True, target(*args))
        except BaseException as error:
            reply = (False, error)
        _write(send, _pickled(reply))
    finally:
        os._exit(0)


def _pickled(reply: tuple[bool, Any]) -> bytes:
    try:
        data = pickle.dumps(reply)
        pickle.loads(data)  # noqa: S301 - an exception whose constructor differs fails only here
    except Exception as error:
        what = f"{type(reply[1]).__name__}: {reply[1]}"
        return pickle.dumps((False, JudgeError(f"a judge's result cannot be handed back ({error}): {what[:2000]}")))
    return data


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError), os.fdopen(fd, "wb") as pipe:
        pipe.write(data)
