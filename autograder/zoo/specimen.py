"""What a submission of the zoo is, and the lesson that it is a submission of."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

LESSON = "01-zoo"
FULL = 12.0
"""Marks of the lesson's own answers, without the part that a person grades."""
POINTS = {"double": 2.0, "total": 3.0, "first_line": 2.0, "shout": 2.0, "primes": 1.0, "estimate": 2.0}
FUNCTIONS = ("double", "total", "first_line", "shout", "estimate")
SEAL = "hidden-seal-5c1f77"
"""Stands in every hidden test, and must stand on no page that a student gets."""

Notebook = dict[str, Any]
Handed = Notebook | bytes | None


class Kind(enum.StrEnum):
    """What a submission tries, one module of the zoo for each."""

    FORGING = "forging"
    READING = "reading"
    PERSISTING = "persisting"
    ESCAPING = "escaping"
    EXHAUSTING = "exhausting"
    BROKEN = "broken"
    HONEST = "honest"


@dataclasses.dataclass(frozen=True)
class Lure:
    """What the zoo lays out for hostile code to find, and looks at afterwards.

    Attributes:
        root: the course's root, with source, release and other students' work.
        home: the grader's home.
        port: of a TCP and a UDP listener on 127.0.0.1 that nobody may reach.
        socket: path of a Unix socket of the host that nobody may reach.
        secret: a word in the grader's environment, home and gradebook.
        marker: stands in the command line of every process that hostile code leaves.
    """

    root: str = "/nowhere"
    home: str = "/nowhere"
    port: int = 9
    socket: str = "/nowhere/socket"
    secret: str = "the-secret"  # noqa: S105 - nobody has it
    marker: str = "the-marker"

    def fill(self, code: str) -> str:
        """Put the places into code: ``@root``, ``@home``, ``@port``, ``@socket``, ``@marker``."""
        for name in ("root", "home", "port", "socket", "marker"):
            code = code.replace(f"@{name}", str(getattr(self, name)))
        return code


@dataclasses.dataclass(frozen=True)
class Lesson:
    """The zoo's lesson, of which every submission is one.

    Attributes:
        source: the instructor's notebook.
        release: the student's.
        lure: where things are that hostile code looks for.
    """

    source: Notebook
    release: Notebook
    lure: Lure = dataclasses.field(default_factory=Lure)

    def blank(self) -> Notebook:
        """The release, untouched."""
        return copy.deepcopy(self.release)

    def solved(self, answers: Mapping[str, str] | None = None, *, first: str = "", last: str = "") -> Notebook:
        """The lesson's own answers, but for those given, and cells of the student's own before and behind all."""
        return self.answered({**self._own(), **(answers or {})}, first=first, last=last)

    def answered(self, answers: Mapping[str, str] | None = None, *, first: str = "", last: str = "") -> Notebook:
        """The release with some answers, and cells of the student's own before and behind all others."""
        made = self.blank()
        for cell in made["cells"]:
            if cell["id"] in (answers or {}):
                cell["source"] = self.lure.fill((answers or {})[cell["id"]])
        if first:
            made["cells"].insert(0, code_cell(self.lure.fill(first), "own-first"))
        if last:
            made["cells"].append(code_cell(self.lure.fill(last), "own-last"))
        return made

    def tests(self, notebook: Notebook) -> list[dict[str, Any]]:
        """The test cells of a submission."""
        ids = {f"correct_{name}" for name in POINTS} | {"close_estimate"}
        return [cell for cell in notebook["cells"] if cell["id"] in ids]

    def _own(self) -> dict[str, str]:
        return {cell["id"]: cell["source"] for cell in self.source["cells"] if cell["id"] in POINTS}


@dataclasses.dataclass(frozen=True)
class Specimen:
    """One submission of the zoo.

    Attributes:
        name: also the student's id, unless `student` says otherwise.
        kind: what it is.
        tries: what it tries, in one sentence.
        make: makes it, in a folder; what it returns is written as the lesson's notebook.
        marks: what it deserves; None where chance decides what is left of its own answers.
        box: only a sandbox keeps it from doing harm or gaining points; without one it is not graded in tests.
        slow: it uses up budgets; graded with small ones.
        plain: whether plain nbgrader may be shown it (in a box of its own) to compare.
        graded: whether it can have marks at all; what nbgrader cannot even name has a reason instead.
        student: its student's id.
    """

    name: str
    kind: Kind
    tries: str
    make: Callable[[Lesson, Path], Handed]
    marks: float | None = 0.0
    box: bool = False
    slow: bool = False
    plain: bool = True
    graded: bool = True
    student: str = ""

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}: {self.tries}>"

    @property
    def whose(self) -> str:
        """The id of the student who hands it in."""
        return self.student or self.name

    def hand_in(self, lesson: Lesson, submitted: Path) -> None:
        """Put it where nbgrader's ``collect`` would, below the folder `submitted`."""
        folder = submitted / self.whose / LESSON
        folder.mkdir(parents=True)
        made = self.make(lesson, folder)
        if made is not None:
            data = made if isinstance(made, bytes) else json.dumps(made).encode()
            (folder / f"{LESSON}.ipynb").write_bytes(data)


class Cage:
    """Collects the specimens of one module."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.specimens: list[Specimen] = []

    def __call__(
        self, tries: str, **about: Any
    ) -> Callable[[Callable[[Lesson, Path], Handed]], Callable[[Lesson, Path], Handed]]:
        """Add the decorated function, under its own name."""

        def add(make: Callable[[Lesson, Path], Handed]) -> Callable[[Lesson, Path], Handed]:
            name = make.__name__.strip("_").replace("_", "-")
            self.specimens.append(Specimen(name, self.kind, tries, make, **about))
            return make

        return add

    def cell(self, name: str, tries: str, code: str, *, last: str = "", solved: bool = False, **about: Any) -> None:
        """Add a submission that is blank (or solved) but for a cell of the student's own before all others."""

        def make(lesson: Lesson, _: Path) -> Handed:
            return (lesson.solved if solved else lesson.answered)(first=code, last=last)

        about.setdefault("marks", FULL if solved else 0.0)
        self.specimens.append(Specimen(name, self.kind, tries, make, **about))

    def answers(self, name: str, tries: str, answers: Mapping[str, str], *, solved: bool = False, **about: Any) -> None:
        """Add a submission with these answers; the others are missing, or the lesson's own."""

        def make(lesson: Lesson, _: Path) -> Handed:
            return (lesson.solved if solved else lesson.answered)(answers)

        if solved:
            about.setdefault("marks", FULL - sum(POINTS[one] for one in answers))
        self.specimens.append(Specimen(name, self.kind, tries, make, **about))


def code_cell(source: str, name: str) -> dict[str, Any]:
    """A code cell without a past."""
    return {
        "cell_type": "code", "id": name, "metadata": {}, "source": source, "outputs": [], "execution_count": None,
    }  # fmt: skip


def markdown_cell(source: str, name: str, kind: str = "markdown") -> dict[str, Any]:
    """A cell of text."""
    return {"cell_type": kind, "id": name, "metadata": {}, "source": source}


def everywhere(code: str, names: Iterable[str] = FUNCTIONS) -> dict[str, str]:
    """The same answer for several exercises; ``NAME`` stands for the exercise's."""
    return {name: code.replace("NAME", name) for name in names}
