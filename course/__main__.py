"""``python -m course`` is ``course``."""

from .cli import app

app(prog_name="course")
