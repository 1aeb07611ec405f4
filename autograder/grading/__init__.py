"""``course grade``: many submissions at once, and one writer of the gradebook.

    submitted/ ──▶ N workers, or Dask's: repair, execute, judge ──▶ cache ──▶ nbgrader's own autograde ──▶ gradebook.db
                   (nothing of the gradebook)                                (one process; finds all executed)

The marks are those of plain ``nbgrader autograde``, because it is what writes them. Ending the command at any moment,
by whatever means, loses nothing: what was executed is in the cache, what was graded is in the gradebook.
"""
