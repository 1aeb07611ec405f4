"""One asyncio loop in one background thread, for all machines of this process.

A notebook already runs a loop in its main thread, a script runs none, an answer runs in a forked child where every
thread of the parent is gone. A loop of our own works in all three: synchronous code hands it work and waits.

It is found by process id, so a forked child makes its own on first use. The one inherited from the parent must stay
untouched until the child has gone: the two processes share one epoll set, and any transport that the child closes,
be it in the garbage collection at its end, is taken out of the parent's set too. The parent would wait forever. So
the child gives the inherited loop and all that lives on it one reference too many: they are never collected.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import ctypes
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_backgrounds: dict[int, Background] = {}


class Background:
    """A running asyncio loop, owned by a daemon thread.

    Attributes:
        loop: the loop.
        held: objects that live on the loop and end there. asyncio itself holds streams and tasks only weakly: without
            this, any thread's garbage collection could tear them down.
    """

    def __init__(self) -> None:
        self.held: set[object] = set()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment] # made by start()

    def start(self) -> Background:
        """Start the thread unless it runs; returns self."""
        with self._lock:
            if self._thread is None:
                self.loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self.loop.run_forever, name="course-machine-loop", daemon=True)
                self._thread.start()
                atexit.register(self._stop)
                os.register_at_fork(after_in_child=self._immortalize)
        return self

    def inside(self) -> bool:
        """Tell whether the caller runs on this loop's thread, where waiting for the loop would never end."""
        return threading.current_thread() is self._thread

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Have the loop call ``function(*args)`` soon; does not wait."""
        self.loop.call_soon_threadsafe(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
            TimeoutError: when it is not done after `timeout_s` seconds; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError as error:
            if future.done():
                raise
            future.cancel()
            raise TimeoutError(f"not done after {timeout_s:g} s") from error
        except BaseException:
            future.cancel()
            raise

    def _immortalize(self) -> None:
        for thing in (self, self.loop, *asyncio.all_tasks(self.loop)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))

    def _stop(self) -> None:
        if os.getpid() != self._pid or self._thread is None:
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=2)
        self._immortalize()  # the process ends: connections that are still open need no farewell, nor warnings


def background() -> Background:
    """Return this process's loop, started."""
    # setdefault on a dict is atomic, so two threads agree on one object without a lock that a fork could leave held.
    return _backgrounds.setdefault(os.getpid(), Background()).start()
