"""Each student's own inputs: a seed from the course's secret, the student and the lesson.

Two students who compare what the grader told them see different numbers, and nobody can compute another's inputs, or
their own, without the secret. Exercises whose checks are fair on any seed say so (``Exercise(varies=True)``); all the
others are the same for everybody. Without a secret (the default) everybody gets the same.

The secret is a trait (``c.SplitExecute.course_secret``), best set from the environment in nbgrader_config.py. Whoever
changes it changes inputs: marks given before stay as they are until a submission is graded again.
"""

from __future__ import annotations

import hashlib
import hmac


def seed(secret: str, student: str, lesson: str) -> int | None:
    """A student's seed for a lesson: 0 … 2⁶³-1, the same on every machine; None without a secret."""
    if not secret:
        return None
    message = f"{len(student)}:{student}{lesson}".encode()
    return int.from_bytes(hmac.digest(secret.encode(), message, hashlib.sha256)[:8], "big") >> 1
