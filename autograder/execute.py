"""Run a submission to its end, also when an answer ends the kernel.

An answer can end the process that runs it: with ``os._exit``, or by taking more memory than there is. Plain nbgrader
then drops the whole submission: no marks, no page, whatever was right before. `TolerantExecute` keeps what ran; each
code cell that did not gets an error in its place, so that a test counts as failed and the page says why. Enabled in
``nbgrader_config.py`` in place of nbgrader's ``Execute``, whose options it takes.
"""

from __future__ import annotations

from typing import Any

from nbclient.exceptions import DeadKernelError
from nbgrader.preprocessors import Execute

Node = Any
"""An nbformat node: its package ships no types."""

ENDED = "KernelEnded"
"""Name of the error in the cells that could not run."""


class TolerantExecute(Execute):  # type: ignore[misc]
    """Executes a notebook; a kernel that ends leaves errors in the cells from there on."""

    def preprocess(self, nb: Node, resources: Any, *arguments: Any, **options: Any) -> tuple[Node, Any]:
        """Execute `nb` in place."""
        self._ran = 0
        try:
            return super().preprocess(nb, resources, *arguments, **options)  # type: ignore[no-any-return]
        except DeadKernelError:
            culprit, *others = [cell for cell in nb.cells[self._ran :] if cell.cell_type == "code"]
            names = resources["nbgrader"]
            where = culprit.metadata.get("nbgrader", {}).get("grade_id") or culprit.get("id")
            self.log.warning(
                "%s, %s/%s: cell %s ended the kernel; it and the cells after it count as failed",
                *(names[key] for key in ("student", "assignment", "notebook")),
                where,
            )
            _mark(culprit, "This cell ended the Python process that ran the notebook (os._exit, or too much memory?).")
            for cell in others:
                _mark(cell, f"This cell could not run: cell {where}, above, had ended the Python process.")
            return nb, resources

    def preprocess_cell(self, cell: Node, resources: Any, index: int) -> tuple[Node, Any]:
        """Execute one cell, and count it when it is over."""
        done: tuple[Node, Any] = super().preprocess_cell(cell, resources, index)
        self._ran = index + 1
        return done


def _mark(cell: Node, why: str) -> None:
    from nbformat.v4 import new_output  # noqa: PLC0415 - only where a kernel ended

    error = new_output("error", ename=ENDED, evalue=why, traceback=[f"{ENDED}: {why}"])  # type: ignore[no-untyped-call]
    cell.outputs = [*cell.outputs, error]
