"""`python -m course.build`: the same as ``course build``, without the rest of the command line."""

from __future__ import annotations

import typer

from .cli import build_command

if __name__ == "__main__":
    typer.run(build_command)
