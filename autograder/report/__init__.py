"""What the instructor reads after grading: a page and a table per lesson and per class.

    gradebook.db ───────┐
                        ├─▶ records.read() ─▶ items.measure() ─▶ pages.write()   HTML, one file each, nothing to load
    autograded/*.ipynb ─┘                                     └▶ tables.write()  CSV for a spreadsheet

The gradebook knows marks, penalties and dates; the graded notebooks know why: each test cell carries what its checks
said (``cell.metadata["course"]``, written by the grader's execution). Nothing here changes either of them.
"""

from .items import ItemFigures, LessonFigures, measure
from .records import Item, Lesson, Mark, Submission, read

__all__ = ["Item", "ItemFigures", "Lesson", "LessonFigures", "Mark", "Submission", "measure", "read"]
