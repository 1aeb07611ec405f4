"""Figures of a lesson: how hard each exercise was, how well it told students apart, which mistakes were made.

Difficulty and discrimination are those of classical test theory: the mean share of the points (1 is easy), and the
correlation of the item's share with the marks of all *other* items (corrected item-total correlation).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from .records import Item, Lesson, Submission


@dataclasses.dataclass(frozen=True)
class ItemFigures:
    """Figures of one item.

    Attributes:
        item: the graded cell.
        answered: how many students answered it at all.
        share: mean of points / possible points over all graded submissions, 0..1; None when there are none.
        discrimination: -1..1; None when all got the same, or fewer than three submissions are graded.
        states: how many submissions ended in each state.
        misconceptions: how many hit each, most frequent first.
        example: per misconception, one message that a student got.
        seconds: median time of its tests, in seconds.
    """

    item: Item
    answered: int
    share: float | None
    discrimination: float | None
    states: Mapping[str, int]
    misconceptions: Mapping[str, int]
    example: Mapping[str, str]
    seconds: float

    @property
    def advice(self) -> str:
        """What an instructor may want to look at, in words; empty when nothing stands out."""
        if self.share is not None and self.share < 0.3:
            return "few solved it: look at the most frequent mistake"
        if self.discrimination is not None and self.discrimination < 0:
            return "stronger students did worse here: read the exercise and its check again"
        return ""


@dataclasses.dataclass(frozen=True)
class LessonFigures:
    """Figures of one lesson.

    Attributes:
        lesson: its record.
        items: figures in the notebook's order.
        mean, median: of the marks after penalties; None without submissions.
        histogram: submissions per tenth of the marks, ten numbers.
    """

    lesson: Lesson
    items: tuple[ItemFigures, ...]
    mean: float | None
    median: float | None
    histogram: tuple[int, ...]


def measure(lesson: Lesson) -> LessonFigures:
    """Compute a lesson's figures."""
    totals = [submission.total for submission in lesson.submissions]
    bins = [0] * 10
    for total in totals:
        bins[min(9, int(10 * total / lesson.max_score)) if lesson.max_score else 0] += 1
    return LessonFigures(
        lesson,
        tuple(_item(item, lesson.submissions) for item in lesson.items),
        statistics.fmean(totals) if totals else None,
        statistics.median(totals) if totals else None,
        tuple(bins),
    )


def _item(item: Item, submissions: Sequence[Submission]) -> ItemFigures:
    graded = [one for one in submissions if item.cell in one.marks and one.marks[item.cell].points is not None]
    marks = [one.marks[item.cell] for one in graded]
    points = [float(mark.points or 0) for mark in marks]
    rest = [one.score - own for one, own in zip(graded, points, strict=True)]
    mistakes = [mark for mark in marks if mark.misconception and mark.misconception != "unanswered"]
    return ItemFigures(
        item,
        sum(mark.state != "not answered yet" for mark in marks),
        statistics.fmean(points) / item.points if points and item.points else None,
        discrimination(points, rest),
        dict(Counter(mark.state for mark in marks).most_common()),
        dict(Counter(mark.misconception for mark in mistakes).most_common()),
        {mark.misconception: mark.message for mark in reversed(mistakes)},
        statistics.median(mark.seconds for mark in marks) if marks else 0.0,
    )


def discrimination(own: Sequence[float], rest: Sequence[float]) -> float | None:
    """Correlate an item's marks with those of all other items.

    Returns:
        Pearson's r, or None for fewer than three students or where one side does not vary.
    """
    if len(own) < 3:
        return None
    try:
        return statistics.correlation(own, rest)
    except statistics.StatisticsError:
        return None
