"""What a backup says: lines for the task's log, and the same with times in a file beside the archive."""

from __future__ import annotations

import time

from ..storage.transfer import human
from ..tasks import Task

STEP_S = 3.0


class Journal:
    """The log of a backup job.

    Args:
        task: whose log it is.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._kept: list[str] = []

    def info(self, words: str) -> None:
        """Say what is done."""
        self._say("INFO", words)

    def error(self, words: str) -> None:
        """Say what failed."""
        self._say("ERROR", words)

    def _say(self, level: str, words: str) -> None:
        for line in words.splitlines() or [""]:
            self.task.log(f"{level}: {line}")
            self._kept.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level}: {line}\n")

    def begin(self) -> None:
        """Begin with another guest."""
        self._kept.clear()

    def text(self) -> str:
        """Return what was said since `begin`."""
        return "".join(self._kept)


class Meter:
    """Says now and then how far a copy is: its share, its bytes, its speed.

    Args:
        journal: where.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        """Take note of bytes that are done and bytes that there are."""
        now, (then, before) = time.monotonic(), self._last
        share = 100 * done // total if total else 100
        if share <= self._shown or (share < 100 and now - then < STEP_S):
            return
        rate = (done - before) / max(now - then, 1e-3)
        seconds = int(now - self._began)
        self._journal.info(
            f"{share:3}% ({human(done)} of {human(total)}) in {clock(seconds)}, read: {human(rate)}/s, "
            f"write: {human(rate)}/s"
        )
        self._shown, self._last = share, (now, done)


def clock(seconds: int) -> str:
    """Write a duration as progress lines do: ``1m 5s``."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def duration(seconds: float) -> str:
    """Write a duration as the last line of a backup does: ``00:01:05``."""
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def short(size: int) -> str:
    """Write an archive's size: ``4MB``."""
    if size >= 1 << 30:
        return f"{size / (1 << 30):.2f}GB"
    return f"{size >> 20}MB" if size >= 1 << 20 else f"{size >> 10}KB"
