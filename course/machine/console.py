"""A machine's serial console: everything it said, and a shell's conversation.

The background loop reads whatever comes, at once, so a guest never blocks on a full buffer and the transcript is
complete even when nobody looks. `expect` searches what has not been consumed by an earlier `expect`.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import secrets
import socket
import threading
import time

from ..error import ConsoleTimeout, MachineGone, UsageError
from .events import Fault
from .loop import background

TRANSCRIPT_LIMIT = 4 << 20
"""Characters kept; the oldest go first."""

_TAIL = 600


class Console:
    """The serial console of a running machine.

    Attributes:
        closed: True when QEMU closed its end: it ended.
    """

    def __init__(self, sock: socket.socket, fault: Fault) -> None:
        self._sock = sock
        self._sock.settimeout(10)  # for sending, to a guest that may not read
        self._fault = fault
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._changed = threading.Condition()
        self._consumed = ""
        self._unread: list[str] = []
        self._unread_length = 0
        self.closed = False
        self._background = background()
        self._background.post(self._background.loop.add_reader, sock.fileno(), self._read)

    def __repr__(self) -> str:
        return f"<Console {'closed' if self.closed else 'open'}: …{self.tail(40)!r}>"

    @property
    def text(self) -> str:
        """The transcript: all that the guest wrote (its last 4 Mi characters), line ends shown as newlines."""
        with self._changed:
            return self._consumed + self._merge()

    def tail(self, length: int = _TAIL) -> str:
        """Return the last characters of the transcript."""
        return self.text[-length:]

    def expect(self, pattern: str | re.Pattern[str], timeout_s: float = 10) -> re.Match[str]:
        """Wait until the guest has written what `pattern` matches, and consume the text up to its end.

        Args:
            pattern: regular expression, searched in what no earlier `expect` consumed.
            timeout_s: seconds to wait.

        Returns:
            The match; ``match.string[: match.start()]`` is what came before it.

        Raises:
            ConsoleTimeout: when it did not come in time; `output` is the end of the console.
            MachineGone: when QEMU ended first.
        """
        wanted = re.compile(pattern)
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                text = self._merge()
                if match := wanted.search(text):
                    self._consume(match.end())
                    return match
                left = end - time.monotonic()
                if self.closed or left <= 0:
                    break
                self._changed.wait(left)
            closed = self.closed
        if closed:
            raise self._fault(
                MachineGone,
                f"QEMU ended before the console showed {wanted.pattern!r}. Its console ended with:\n{self.tail()}",
            )
        error = self._fault(
            ConsoleTimeout,
            f"the console did not show {wanted.pattern!r} within {timeout_s:g} s. "
            "Compare the pattern with the end of the console, below; a guest that is still busy needs a longer "
            "timeout_s.",
        )
        error.output = self.tail()
        raise error

    def send(self, text: str | bytes) -> None:
        r"""Type `text` as it is, without a newline (``"\x03"`` is Ctrl-C).

        Raises:
            ConsoleTimeout: when the guest does not read what is typed.
            MachineGone: when QEMU has ended.
        """
        data = text.encode() if isinstance(text, str) else text
        try:
            self._sock.sendall(data)
        except TimeoutError as timeout:
            error = self._fault(ConsoleTimeout, f"the guest read only a part of {len(data)} bytes typed in 10 s.")
            error.output = self.tail()
            raise error from timeout
        except OSError as error:
            raise self._fault(MachineGone, "QEMU has ended; nothing can be typed on its console.") from error

    def sendline(self, line: str = "") -> None:
        """Type a line and Enter."""
        self.send(line + "\n")

    def run(self, command: str, timeout_s: float = 10) -> tuple[int, str]:
        """Run a command in the guest's POSIX shell, which must be waiting at its prompt.

        Args:
            command: one or more lines of shell.
            timeout_s: seconds until it must have ended.

        Returns:
            Its exit status and what it wrote.

        Raises:
            ConsoleTimeout: when it did not end in time (or there is no shell).
            MachineGone: when QEMU ended first.
        """
        if not command.strip():
            raise UsageError("console.run() needs a command; use sendline() to press Enter")
        # The marks are typed in two halves, so that the echo of what is typed does not look like what is printed.
        mark = secrets.token_hex(4)
        self.sendline(f"echo 'B''{mark}'; {{ {command}\n}}; echo 'E''{mark}' $?")
        end = time.monotonic() + timeout_s
        self.expect(rf"B{mark}\n", timeout_s)
        match = self.expect(rf"E{mark} (\d+)\n", max(0.0, end - time.monotonic()))
        return int(match[1]), match.string[: match.start()]

    def close(self) -> None:
        """Read what is left, then close the socket; the transcript stays."""

        async def close() -> None:
            self._read()
            self._hang_up()

        with contextlib.suppress(TimeoutError):
            self._background.run(close(), 5)

    def _read(self) -> None:
        if self.closed:
            return
        try:
            data = os.read(self._sock.fileno(), 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._append(self._decoder.decode(data).replace("\r\n", "\n"))
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._sock.fileno() >= 0:
            self._background.loop.remove_reader(self._sock.fileno())
            self._sock.close()
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _append(self, text: str) -> None:
        with self._changed:
            if text.startswith("\n") and self._unread and self._unread[-1].endswith("\r"):
                self._unread[-1] = self._unread[-1][:-1]  # a line's end that came in two parts
                self._unread_length -= 1
            self._unread.append(text)
            self._unread_length += len(text)
            if self._unread_length > 2 * TRANSCRIPT_LIMIT:
                self._merge()
            self._changed.notify_all()

    def _merge(self) -> str:
        """Return the unread text, at most the last 4 Mi characters of it."""
        text = "".join(self._unread)[-TRANSCRIPT_LIMIT:]
        self._unread = [text]
        self._unread_length = len(text)
        return text

    def _consume(self, length: int) -> None:
        text = self._merge()
        self._consumed = (self._consumed + text[:length])[-TRANSCRIPT_LIMIT:]
        self._unread = [text[length:]]
        self._unread_length -= length
