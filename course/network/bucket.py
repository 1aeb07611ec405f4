"""How much may pass per second: a bucket of tokens that fills at a rate and holds a burst."""

from __future__ import annotations


class Bucket:
    """Tokens for frames, bytes or lines of a log.

    Args:
        rate: tokens that come back in a second.
        burst: tokens that it holds; it begins full.
    """

    __slots__ = ("burst", "level", "rate", "since")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.level, self.since = burst, 0.0

    def take(self, now: float, tokens: float = 1) -> bool:
        """Take tokens if there are enough; say whether there were.

        Args:
            now: a clock that never goes back, in seconds.
            tokens: how many.
        """
        if now > self.since:
            self.level = min(self.burst, self.level + (now - self.since) * self.rate)
            self.since = now
        if self.level < tokens:
            return False
        self.level -= tokens
        return True
