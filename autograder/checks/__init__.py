"""Hidden checks, one module per lesson, with the names of the visible ones in `course.check`."""
