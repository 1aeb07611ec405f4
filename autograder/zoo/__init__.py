"""The zoo: submissions that a grader meets, and some that it should not: hostile, broken, honest but odd.

Each `Specimen` says in one sentence what it tries, what it deserves, and whether only a sandbox keeps it from doing
harm. `Habitat` is a course of one small lesson in a temporary folder, with secrets, sockets and another student's work
laid out as lures; it hands specimens in, grades them as an instructor would, and looks afterwards at what they did::

    with Habitat() as habitat:
        habitat.hand_in(specimens())
        habitat.grade(jobs=2)                  # course grade -j 2; or habitat.autograde(): plain nbgrader
        habitat.marks()                        # by student
        habitat.harm()                         # sentences; empty when nobody was harmed

A new attack is one more function in the module of its kind.
"""

from __future__ import annotations

from . import broken, escaping, exhausting, forging, honest, meddling, persisting, reading
from .habitat import Habitat
from .specimen import FULL, LESSON, POINTS, Kind, Lesson, Lure, Specimen

__all__ = ["FULL", "LESSON", "POINTS", "Habitat", "Kind", "Lesson", "Lure", "Specimen", "specimens"]

_MODULES = (honest, broken, forging, reading, persisting, escaping, exhausting, meddling)


def specimens() -> list[Specimen]:
    """All submissions of the zoo, honest ones first."""
    return [specimen for module in _MODULES for specimen in module.ZOO.specimens]
