"""The thread that moves frames: it sleeps until a frame comes, and then takes all that are there.

One lock guards everything that the thread touches. Handlers run under it; whoever changes a switch from another thread
takes it too. Nothing runs while nothing comes: there is no clock to wake the thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable

Handler = Callable[[int, float], None]
"""Gets what epoll saw, and a clock that never goes back."""

BATCH = 64
"""How many frames one source may bring before the others have their turn."""


class Loop:
    """A thread over epoll.

    Args:
        name: of the thread.
        before: called under the lock whenever the thread wakes, before the frames are handled.
        report: gets an error that a handler raised.
    """

    def __init__(self, name: str, before: Callable[[], None], report: Callable[[BaseException], None]) -> None:
        self.lock = threading.RLock()
        self._before = before
        self._report = report
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._bell, self._ear = socket.socketpair()
        self._ended = False
        self.add(self._ear.fileno(), select.EPOLLIN, self._rung)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._ended = True
        self._bell.send(b".")
        if self._thread.is_alive():
            self._thread.join()
        self._poll.close()
        self._bell.close()
        self._ear.close()

    def _rung(self, events: int, now: float) -> None:
        self._ear.recv(64)

    def add(self, handle: int, events: int, handler: Handler) -> None:
        """Have a handler called when a file is ready."""
        with self.lock:
            self._handlers[handle] = handler
            self._poll.register(handle, events)

    def remove(self, handle: int) -> None:
        """Forget a file; call it before it is closed."""
        with self.lock:
            self._handlers.pop(handle, None)
            with contextlib.suppress(OSError, ValueError):
                self._poll.unregister(handle)

    def _run(self) -> None:
        while not self._ended:
            ready = self._poll.poll()
            with self.lock:
                self._guarded(self._before)
                now = time.monotonic()
                for handle, events in ready:
                    handler = self._handlers.get(handle)
                    if handler is not None:
                        self._guarded(handler, events, now)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Do something; one frame that nobody thought of must not end the network."""
        try:
            work(*arguments)
        except Exception as error:  # reported, and the next frame is taken
            self._report(error)
