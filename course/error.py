"""Every error that this package raises on purpose.

::

    CourseError
    ├── UsageError              an argument that cannot be meant
    ├── CapabilityError         this machine cannot do it
    ├── MachineError            a QEMU process misbehaved; carries its evidence
    │   ├── LaunchError         it did not start
    │   ├── MachineGone         it ended while we needed it
    │   ├── ConsoleTimeout      the guest did not say what was expected
    │   ├── EventTimeout        the event did not come
    │   └── MigrationError      it stayed where it was
    ├── GuestError              a guest image cannot be built
    ├── ClusterError            the lab cluster refuses, in Proxmox VE's words
    │   ├── ParameterError      a parameter is wrong (400)
    │   └── PermissionRefused   the user may not (403)
    ├── BuildError              a lesson's text cannot become a notebook
    └── PublishError            the student bundle would be wrong

`CheckFailed`, which a failed check raises in a notebook, is not an error of this tree: it is a verdict on an
answer and lives in `course.check`.

Messages say what happened, with which values, what was expected and what to do next.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence


class CourseError(Exception):
    """The root: ``except CourseError`` catches all that this package raises on purpose."""


class UsageError(CourseError):
    """An argument that cannot be meant: names the value given and what was expected."""


class CapabilityError(CourseError):
    """This machine cannot do it.

    Attributes:
        capability: what is missing, such as ``"qemu-system-x86_64"`` or ``"user namespaces"``.
        why: what was observed.
        remedy: what a person can do about it.
    """

    def __init__(self, capability: str, why: str, remedy: str) -> None:
        super().__init__(f"{capability} is not available here: {why}. {remedy}")
        self.capability = capability
        self.why = why
        self.remedy = remedy


class MachineError(CourseError):
    """A QEMU process misbehaved.

    Attributes:
        command: the whole command line, one string per argument.
        exitcode: QEMU's exit status, negative for a signal; None while it runs.
        output: what QEMU wrote on its standard error (and, where it helps, the end of the serial console).
    """

    whose_words = "QEMU said: "

    def __init__(
        self, message: str, *, command: Sequence[str] = (), exitcode: int | None = None, output: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.command = list(command)
        self.exitcode = exitcode
        self.output = output

    def __str__(self) -> str:
        lines = [self.message]
        if self.output.strip():
            lines.append(self.whose_words + self.output.strip())
        if self.exitcode is not None:
            lines.append(f"exit code: {self.exitcode}")
        if self.command:
            lines.append("command: " + shlex.join(self.command))
        return "\n".join(lines)


class LaunchError(MachineError):
    """QEMU did not start."""


class MachineGone(MachineError):  # noqa: N818 - a state, as in FileNotFound
    """QEMU ended while it was needed."""


class ConsoleTimeout(MachineError):  # noqa: N818 - the field's word
    """The guest's serial console did not show what was expected in time; `output` is the end of the console."""

    whose_words = "the console ended with: "


class EventTimeout(MachineError):  # noqa: N818
    """A QMP event did not come in time."""


class MigrationError(MachineError):
    """A migration failed or did not converge; the source goes on running."""


class GuestError(CourseError):
    """A guest image cannot be built: names the piece, the reason and the remedy."""


class ClusterError(CourseError):
    """The lab cluster refuses, in Proxmox VE's own words (without its line's end).

    These words are what a client sees in the status line, so they follow Proxmox VE and not the style of this package.

    Attributes:
        message: the words.
        status: the HTTP status that they go with.
    """

    status = 500

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status


class ParameterError(ClusterError):
    """Parameters of a call are wrong.

    Attributes:
        errors: for each wrong parameter what is wrong with it, as the field ``errors`` of the answer.
    """

    status = 400

    def __init__(self, errors: Mapping[str, str], message: str = "Parameter verification failed.") -> None:
        super().__init__(message)
        self.errors = dict(errors)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"{name}: {words.rstrip()}" for name, words in self.errors.items())])


class PermissionRefused(ClusterError):  # noqa: N818 - `PermissionError` is Python's
    """The user lacks the privilege."""

    status = 403


class BuildError(CourseError):
    """A lesson's text cannot become a notebook.

    Attributes:
        lesson: such as ``"09-qemu-qmp"``.
        line: 1-based line of the lesson's text, or None when it concerns the whole lesson.
        cell: the cell's id, or None.
    """

    def __init__(self, lesson: str, message: str, *, line: int | None = None, cell: str | None = None) -> None:
        where = lesson + (f", line {line}" if line is not None else "") + (f", cell {cell}" if cell else "")
        super().__init__(f"{where}: {message}")
        self.lesson = lesson
        self.message = message
        self.line = line
        self.cell = cell

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process."""
        return (_build_error, (self.lesson, self.message, self.line, self.cell))


class PublishError(CourseError):
    """The student bundle would be wrong: names the file and what must not be in it."""


def _build_error(lesson: str, message: str, line: int | None, cell: str | None) -> BuildError:
    return BuildError(lesson, message, line=line, cell=cell)
