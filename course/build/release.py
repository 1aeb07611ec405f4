"""The student's version, made by nbgrader's own converter from the instructor's.

The same converter, with the same configuration, as ``nbgrader generate_assignment`` at the root, so both give the
same bytes; in this process, without a database, and into a folder of its own first, so that a failure leaves the old
release.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..error import BuildError
from .layout import Layout
from .text import without_grammar


def release(layout: Layout, lessons: Sequence[str]) -> list[str]:
    """Make the release of `lessons` from their notebooks in source/.

    Returns:
        The lessons whose release changed.

    Raises:
        BuildError: nbgrader refused one; with what it said.
    """
    changed = []
    with generated(layout, lessons) as folder:
        for lesson in lessons:
            if files(folder / lesson) != files(layout.release / lesson):
                _replace(layout.release / lesson, folder / lesson)
                changed.append(lesson)
    return changed


@contextmanager
def generated(layout: Layout, lessons: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that holds the releases of `lessons`."""
    with tempfile.TemporaryDirectory(prefix="course-release-") as scratch:
        folder = Path(scratch).resolve()
        for lesson in lessons:
            _convert(layout, lesson, folder)
        yield folder


def files(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its relative path; Jupyter's checkpoints are nobody's."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and ".ipynb_checkpoints" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _convert(layout: Layout, lesson: str, folder: Path) -> None:
    without_grammar()
    from nbgrader.converters import GenerateAssignment  # noqa: PLC0415 - slow to import
    from nbgrader.coursedir import CourseDirectory  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    config = _configuration(layout)
    override = Config()
    override.CourseDirectory.root = str(layout.root)
    override.CourseDirectory.assignment_id = lesson
    override.CourseDirectory.release_directory = str(folder)
    override.GenerateAssignment.no_database = True
    override.SaveCells.enabled = False
    override.BaseConverter.force = True
    config.merge(override)
    with _log() as said:
        try:
            GenerateAssignment(coursedir=CourseDirectory(config=config), config=config).start()
        except Exception as error:
            raise BuildError(lesson, f"nbgrader cannot make the release: {error}\n{said.getvalue().strip()}") from error


def _configuration(layout: Layout) -> Any:
    from traitlets.config import Config  # noqa: PLC0415
    from traitlets.config.loader import PyFileConfigLoader  # noqa: PLC0415

    if not layout.config.exists():
        return Config()
    return PyFileConfigLoader(layout.config.name, path=str(layout.config.parent)).load_config()


@contextmanager
def _log() -> Iterator[io.StringIO]:
    """Collect what nbgrader logs; traitlets' logger is where a converter without an application writes."""
    from traitlets.log import get_logger  # noqa: PLC0415

    logger = get_logger()
    assert isinstance(logger, logging.Logger)  # no application runs in this process
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    before, level, spread = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        logger.handlers, logger.propagate = before, spread
        logger.setLevel(level)


def _replace(target: Path, made: Path) -> None:
    """Put the new release in the place of the old one."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(made, target)
