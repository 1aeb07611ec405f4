"""Execute one submission without a gradebook: what a worker does, here or on another machine.

A worker gets the files of a submission as bytes and gives back the outcomes under their keys (see `..cache`). It reads
its own checkout and writes nowhere else, so it makes no difference where it runs, how often, or whether it is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import notebooks
from ..cache import Cache
from .course import Course, Submission

if TYPE_CHECKING:
    from ..judge import Court
    from ..remembering import CachedExecute

_NEEDS_GRADEBOOK = ("OverwriteCells", "OverwriteKernelspec", "CheckCellMetadata")
_court: Court | None = None
MAX_BYTES = 256 << 20
"""Of all files of one submission."""


@dataclasses.dataclass(frozen=True)
class Executed:
    """What a worker gives back.

    Attributes:
        outcomes: by key; only of notebooks whose tests were all judged.
        remarks: sentences for the instructor, such as what had to be repaired.
        names: the keys of all its notebooks.
    """

    outcomes: Mapping[str, Mapping[str, Any]]
    remarks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def pack(folder: Path) -> dict[str, bytes]:
    """Read a submission's plain files; links and what is no file are left where they are.

    Raises:
        OSError: they cannot be read, or are larger than `MAX_BYTES` together.
    """
    files: dict[str, bytes] = {}
    total = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            total += path.stat().st_size
            if total > MAX_BYTES:
                raise OSError(f"{folder} holds more than {MAX_BYTES >> 20} MiB")
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files


def execute(root: str, one: Submission, files: Mapping[str, bytes]) -> Executed:
    """Repair, execute and judge one submission.

    Args:
        root: the checkout on this machine.
        one: whose, and which lesson.
        files: as `pack` gives them.
    """
    with _unpacked(one, files) as folder:
        return _worker(root).execute(one, folder)


def execute_here(root: str, one: Submission, *, anew: bool = False) -> Executed:
    """Execute a submission of this checkout, but for what its cache holds already, unless `anew`."""
    worker = _worker(root)
    with _unpacked(one, pack(worker.course.path("submitted", one.student, one.lesson))) as folder:
        return worker.execute(one, folder, known=None if anew else Cache(worker.course.work / "cache"))


def names(root: str, one: Submission) -> list[str]:
    """Name the executions of a submission of this checkout without executing anything: their keys in the cache."""
    worker = _worker(root)
    with _unpacked(one, pack(worker.course.path("submitted", one.student, one.lesson))) as folder:
        return worker.names(one, folder)


@contextlib.contextmanager
def _unpacked(one: Submission, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Write a submission's files into a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / one.student / one.lesson
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield folder


def kindle(course: Course, lessons: Iterable[str]) -> None:
    """Start what takes long to start and is needed to execute: zygote, usher for judges. Waits for neither."""
    global _court  # noqa: PLW0603 - one for each process, as the zygote
    from ..judge import Court  # noqa: PLC0415 - only who executes needs it

    if _court is None or not _court.open:
        _court = Court()
        atexit.register(_court.close)
    if sys.platform.startswith("linux") and not _unboxed(course):
        from ..sandbox import Isolation, probe  # noqa: PLC0415 - Linux only
        from ..sandbox.provisioner import zygote  # noqa: PLC0415 - Linux only

        if (level := probe()).level is not Isolation.NONE:
            sources = [path for lesson in lessons for path in course.source_notebooks(lesson)]
            plots = any("plot" in path.read_text(encoding="utf-8") for path in sources)
            zygote(level, wait=False, plots=plots)


def _unboxed(course: Course) -> bool:
    return any(course.config[name].get("sandbox") == "none" for name in ("CachedExecute", "SplitExecute"))


def warm(course: Course, lessons: Iterable[str]) -> None:
    """Get this process ready to be forked into workers: all imported, all started that they share."""
    kindle(course, lessons)
    _worker(str(course.root)).converter._court = _court
    importlib.import_module("..remembering", __package__)


def adopt(root: str, parent: int) -> None:
    """In a fork of a process that is warm: share its zygote, have an usher like its own."""
    from ..sandbox import provisioner  # noqa: PLC0415 - Linux only

    provisioner.adopt(parent)
    if _court is not None:
        _court.adopt()


@functools.cache
def _worker(root: str) -> Worker:
    return Worker(Course(Path(root)))


class Worker:
    """One process's share: nbgrader's converter without a gradebook, with judges and kernels that stay warm.

    Args:
        course: the checkout.
    """

    def __init__(self, course: Course) -> None:
        sys.path[:0] = [] if str(course.root) in sys.path else [str(course.root)]
        directory = course.directory
        from nbgrader.converters import Autograde  # noqa: PLC0415 - slow to import

        self.course = course
        self.converter: Any = Autograde(coursedir=directory, config=course.config)
        self.remarks = _Remarks()
        self.converter.log = self.remarks.logger

    def execute(self, one: Submission, folder: Path, *, known: Cache | None = None) -> Executed:
        """Execute the notebooks in `folder` that belong to the lesson and whose outcomes are not known."""
        from ..remembering import judged, outcome  # noqa: PLC0415 - slow to import

        outcomes, keys = {}, []
        self.remarks.lines.clear()
        for nb, resources, executor in self._prepared(one, folder):
            keys.append(name := executor.key(nb, resources))
            if known is not None and name in known:
                continue
            executor.cache = False
            executor.preprocess(nb, resources)
            if judged(nb):
                outcomes[name] = outcome(nb)
        return Executed(outcomes, tuple(self.remarks.lines), tuple(keys))

    def names(self, one: Submission, folder: Path) -> list[str]:
        """Name the executions."""
        return [executor.key(nb, resources) for nb, resources, executor in self._prepared(one, folder)]

    def _prepared(self, one: Submission, folder: Path) -> list[tuple[Any, Any, CachedExecute]]:
        """What plain nbgrader would execute: repaired, with the instructor's tests."""
        from ..remembering import CachedExecute  # noqa: PLC0415 - slow to import

        prepared = []
        for source in self.course.source_notebooks(one.lesson):
            submitted = folder / source.name
            if not os.path.lexists(submitted):
                continue
            names = {"student": one.student, "assignment": one.lesson, "notebook": source.stem, "db_url": ""}
            resources: Any = {"unique_key": source.stem, "nbgrader": names}
            exporter = self._exporter()
            text, resources = exporter.from_filename(str(submitted), resources=resources)
            nb = _with_tests(_parse(text), notebooks.read(source))
            self._add_files(source.parent, folder)
            resources["metadata"]["path"] = str(folder)
            prepared.append((nb, resources, CachedExecute(parent=exporter, config=self.course.config)))
        return prepared

    def _exporter(self) -> Any:
        """The exporter and the sanitising steps of the configuration, but for those that read the gradebook."""
        exporter = self.converter.exporter_class(parent=self.converter, config=self.course.config)
        self.converter.exporter = exporter
        exporter._preprocessors = []
        for step in self.converter.sanitize_preprocessors:
            if not str(getattr(step, "__name__", step)).endswith(_NEEDS_GRADEBOOK):
                exporter.register_preprocessor(step, enabled=True)
        return exporter

    def _add_files(self, source: Path, folder: Path) -> None:
        """The instructor's files beside the notebook, as nbgrader puts them there."""
        for path in source.rglob("*"):
            target = folder / path.relative_to(source)
            if path.is_file() and path.suffix != ".ipynb":
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    target.unlink()
                shutil.copy(path, target)


def _with_tests(nb: Any, source: Any) -> Any:
    """Put the instructor's text into the locked cells, as nbgrader does from its gradebook."""
    locked = {
        cell.metadata.nbgrader["grade_id"]: cell
        for cell in source.cells
        if cell.metadata.get("nbgrader", {}).get("locked")
    }
    for cell in nb.cells:
        if (grading := cell.metadata.get("nbgrader")) and (own := locked.get(grading["grade_id"])) is not None:
            cell.source = own.source
            if "points" in own.metadata.nbgrader:
                grading["points"] = own.metadata.nbgrader["points"]
    return nb


def _parse(text: str) -> Any:
    import nbformat  # noqa: PLC0415

    return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]


class _Remarks:
    """A logger that keeps warnings as lines."""

    def __init__(self) -> None:
        import logging  # noqa: PLC0415

        self.lines: list[str] = []
        self.logger = logging.getLogger("course.grading")
        self.logger.propagate = False
        self.logger.setLevel(logging.WARNING)
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        self.logger.handlers[:] = [handler]
