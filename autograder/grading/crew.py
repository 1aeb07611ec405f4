"""Worker processes of this machine, forked from one that has imported all: they start in milliseconds.

A worker has at most one submission waiting besides the one it executes, so that it never waits for whoever writes the
marks; of a worker that is killed it is known which submission it had. Workers share the zygote and fork the usher of
the process that they came from (see `..sandbox`, `..judge`).
"""

from __future__ import annotations

import collections
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from .course import Course, GradingError, Submission
from .execution import Executed, adopt, execute_here, warm

_TRIES = 2
_END_S = 10

Done = tuple[Submission, Executed | Exception]


class Crew:
    """The workers of one run: yields each submission with what came of it, in the order in which they end.

    A worker that is killed costs the submission it had, which is tried once more in a new one.

    Args:
        course: the checkout.
        submissions: what to execute.
        size: how many workers.
        anew: whether to execute also what the cache holds.
    """

    def __init__(self, course: Course, submissions: Sequence[Submission], size: int, *, anew: bool = False) -> None:
        self._root, self._anew = str(course.root), anew
        self._waiting = collections.deque(submissions)
        self._tries = collections.Counter[Submission]()
        self._size = min(size, len(submissions))
        if self._size and _may_fork():
            warm(course, {one.lesson for one in submissions})
            if not gc.isenabled():  # as the command has it; nothing that is there by now is garbage
                gc.freeze()
        self._hands = [_Hand(self._root, self._anew) for _ in range(self._size)]
        for hand in self._hands:
            self._feed(hand)

    def __iter__(self) -> Iterator[Done]:
        while any(hand.jobs for hand in self._hands):
            by_end: dict[Any, _Hand] = {hand.end: hand for hand in self._hands}
            for end in connection.wait(list(by_end)):
                yield from self._heard(by_end[end])
        for hand in self._hands:
            hand.close(at_once=False)
        self._hands.clear()

    def close(self) -> None:
        """End the workers at once, whatever they do."""
        while self._hands:
            self._hands.pop().close(at_once=True)

    def _feed(self, hand: _Hand) -> None:
        """Give a worker work; near the end none waits behind another, for who is free to take it."""
        while self._waiting and len(hand.jobs) < (2 if len(self._waiting) > 2 * self._size else 1):
            hand.give(self._waiting.popleft())

    def _heard(self, hand: _Hand) -> Iterator[Done]:
        try:
            result = hand.end.recv()
        except (EOFError, OSError):
            yield from self._replace(hand)
            return
        one = hand.jobs.popleft()
        self._feed(hand)
        yield one, result

    def _replace(self, hand: _Hand) -> Iterator[Done]:
        """Put a new worker in the place of one that was killed; what had waited behind its work goes first."""
        hand.close(at_once=True)
        one, *rest = hand.jobs
        self._waiting.extendleft(reversed(rest))
        self._tries[one] += 1
        if self._tries[one] < _TRIES:
            self._waiting.append(one)
        new = self._hands[self._hands.index(hand)] = _Hand(self._root, self._anew)
        self._feed(new)
        if self._tries[one] >= _TRIES:
            yield one, GradingError("the process that executed it was killed, twice")


class _Hand:
    """One worker, seen from the grader.

    Attributes:
        end: where its results come from.
        jobs: what it was given and has not done, the one that it does first.
    """

    def __init__(self, root: str, anew: bool) -> None:
        self.jobs: collections.deque[Submission] = collections.deque()
        forked = _may_fork()
        context: Any = multiprocessing.get_context("fork" if forked else "spawn")
        self.end, other = context.Pipe()
        with other:
            self._process = context.Process(
                target=_work, args=(root, other, os.getpid(), forked, anew), daemon=True, name="grading worker"
            )
            self._process.start()

    def give(self, one: Submission) -> None:
        """Have it executed, after what it has to do."""
        self.jobs.append(one)
        with contextlib.suppress(OSError):  # it is found dead when it is listened to
            self.end.send(one)

    def close(self, *, at_once: bool) -> None:
        """End it: once it has nothing more to do, or at once."""
        with contextlib.suppress(OSError):
            self.end.send(None)
        if at_once:
            self._process.kill()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.end.close()


def _may_fork() -> bool:
    """Whether this process may be forked: Linux, and no other thread, which could hold a lock for ever in the fork."""
    if not sys.platform.startswith("linux"):
        return False
    return threading.active_count() == 1 and len(list(Path("/proc/self/task").iterdir())) == 1


def _work(root: str, orders: Any, parent: int, forked: bool, anew: bool) -> None:
    """Be a worker: it dies with its parent, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    if sys.platform.startswith("linux"):
        from ..sandbox import linux  # noqa: PLC0415 - Linux only

        linux.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
    if forked:
        adopt(root, parent)
        gc.enable()
    with contextlib.suppress(EOFError, OSError):
        while (one := orders.recv()) is not None:  # the end of the pipe may be open in younger workers
            orders.send(_result(root, one, anew))


def _result(root: str, one: Submission, anew: bool) -> Executed | Exception:
    try:
        return execute_here(root, one, anew=anew)
    except Exception as error:
        return GradingError(f"{type(error).__name__}: {error}")
