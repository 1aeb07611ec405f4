"""Plain nbgrader on a course in a temporary folder."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

NBGRADER = Path(sys.executable).parent / "nbgrader"


@dataclasses.dataclass
class Course:
    """A course root on which plain nbgrader commands are run."""

    root: Path

    def nbgrader(
        self, *arguments: str, cwd: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command as an instructor types it at the root (or a student elsewhere)."""
        done = subprocess.run(
            [str(NBGRADER), *arguments],
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {"NBGRADER_EXCHANGE": str(self.root / "exchange"), "USER": os.environ.get("USER", "teacher")},
        )
        assert not check or done.returncode == 0, done.stderr[-4000:]
        return done

    def submit(self, student: str, lesson: str, text: str) -> None:
        """Put a submission where `collect` would."""
        folder = self.root / "autograder" / "work" / "submitted" / student / lesson
        folder.mkdir(parents=True)
        (folder / f"{lesson}.ipynb").write_text(text)

    def marks(self) -> dict[str, float]:
        """Marks by student, as `nbgrader export` writes them."""
        self.nbgrader("export", "--to", "grades.csv")
        with (self.root / "grades.csv").open() as file:
            return {row["student_id"]: float(row["score"] or 0) for row in csv.DictReader(file)}

    def feedback(self, student: str, lesson: str) -> str:
        """The page that a student gets."""
        folder = self.root / "autograder" / "work" / "feedback" / student / lesson
        return (folder / f"{lesson}.html").read_text()
