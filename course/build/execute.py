"""Run a lesson's notebook in a kernel of its own and keep its outputs.

Kernels run in an empty scratch folder (with the lesson's figures), so that a lesson cannot litter the checkout, and
several run at once in threads: nbclient is safe there. A kernel dies with the build, and its children (QEMU) with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..error import BuildError
from .expand import KERNELSPEC, LANGUAGE_INFO, kind_of
from .text import Cell, Lesson, plain, without_grammar

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"Cell In\[\d+\], line (\d+)")

_running: set[Any] = set()
_lock = threading.Lock()


def execute(
    lesson: Lesson,
    notebook: dict[str, Any],
    *,
    timeout_s: float = 300,
    figures: Callable[[Path], None] = lambda folder: None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run `notebook`, made of `lesson`, from its first cell to its last.

    Args:
        lesson: for the lines of errors; its cells are those of `notebook`.
        notebook: plain data, left as it is.
        timeout_s: limit of one cell, in seconds.
        figures: puts the lesson's figures into the folder it is given.
        progress: called after each cell.

    Returns:
        The executed notebook.

    Raises:
        BuildError: a cell raised, hung or ended its kernel; or a test's output would cost points.
    """
    without_grammar()
    import nbformat  # noqa: PLC0415 - slow to import
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError  # noqa: PLC0415

    node = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    at = _Position()
    with tempfile.TemporaryDirectory(prefix="course-build-") as scratch:
        figures(Path(scratch))
        client = _client(node, Path(scratch), timeout_s)
        client.on_cell_start = at
        client.on_cell_complete = lambda **_: progress()
        try:
            with _registered(client):
                asyncio.run(client.async_execute())  # its own loop: nbclient's would be left open in this thread
        except CellExecutionError as error:
            raise _raised(lesson, lesson.cells[at.index], error.ename, error.evalue, error.traceback) from None
        except CellTimeoutError:
            raise _at(lesson, at, f"the cell had not ended after {timeout_s:g} s; give its wait a limit") from None
        except DeadKernelError:
            raise _at(lesson, at, "the kernel died while the cell ran (a crash, or not enough memory)") from None
    made: dict[str, Any] = plain(node)
    _clean(made)
    _refuse_costly_outputs(lesson, made)
    return made


def kill_running() -> None:
    """Kill the kernels of all running builds, for an interrupt; their threads end with an error."""
    with _lock:
        clients = list(_running)
    for client in clients:
        with contextlib.suppress(Exception):
            client.km.provisioner.process.kill()


class _Position:
    """Which cell is running."""

    index = 0

    def __call__(self, *, cell_index: int, **_: Any) -> None:
        self.index = cell_index


def _client(node: Any, scratch: Path, timeout_s: float) -> Any:
    from nbclient import NotebookClient  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    config = Config()
    config.KernelManager.transport_encryption = "auto"  # a kernel over plain TCP complains on stderr
    quiet = logging.getLogger("course.build.nbclient")
    quiet.setLevel(logging.CRITICAL)
    return NotebookClient(
        node,
        config=config,
        log=quiet,
        timeout=timeout_s,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(scratch)}},
    )


@contextlib.contextmanager
def _registered(client: Any) -> Iterator[None]:
    with _lock:
        _running.add(client)
    try:
        yield
    finally:
        with _lock:
            _running.discard(client)


def _at(lesson: Lesson, at: _Position, message: str) -> BuildError:
    cell = lesson.cells[at.index]
    return BuildError(lesson.name, message, line=cell.line, cell=cell.id)


def _raised(lesson: Lesson, cell: Cell, ename: str, evalue: str, traceback: str) -> BuildError:
    where = _LINE.search(_ANSI.sub("", traceback))
    line = cell.line + (int(where[1]) - 1 if where else 0)
    return BuildError(lesson.name, f"the cell raised {ename}: {_ANSI.sub('', evalue)}", line=line, cell=cell.id)


def _clean(notebook: dict[str, Any]) -> None:
    """Take away what differs from one machine to the next."""
    notebook["metadata"] |= {"kernelspec": dict(KERNELSPEC), "language_info": dict(LANGUAGE_INFO)}
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", []):
            output.pop("transient", None)


def _refuse_costly_outputs(lesson: Lesson, notebook: dict[str, Any]) -> None:
    """Nbgrader reads a test's value as its points, and anything on stderr as a failure."""
    for cell, made in zip(lesson.cells, notebook["cells"], strict=True):
        if kind_of(cell) != "test":
            continue
        for output in made["outputs"]:
            if output["output_type"] == "execute_result":
                why = "the test ends in an expression with a value; nbgrader would take it for partial credit"
            elif output.get("name") == "stderr":
                why = f"the test wrote on stderr, for which nbgrader gives no points: {output['text'][:200]!r}"
            else:
                continue
            raise BuildError(lesson.name, why, line=cell.line, cell=cell.id)
