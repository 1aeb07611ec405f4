"""Execute nothing whose outcome is known: `CachedExecute` takes the place of nbgrader's ``Execute``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from traitlets import Bool, Unicode

from .cache import Cache, key
from .execute import VERDICTS, SplitExecute
from .split import source_notebook

Node = Any

_NOT_JUDGED = "NotJudged"
_BUDGETS = ("timeout", "check_timeout", "notebook_timeout", "max_restarts", "output_limit", "notebook_output_limit")


class CachedExecute(SplitExecute):
    """`SplitExecute` that executes nothing whose outcome is known."""

    cache = Bool(True, help="whether outcomes are kept and looked up").tag(config=True)
    cache_directory = Unicode("", help="where; empty for autograder/work/cache of the course").tag(config=True)

    def preprocess(self, nb: Node, resources: Any, *_: Any, **__: Any) -> tuple[Node, Any]:
        """Give `nb` its outputs, from the cache where they are known."""
        folder = self._folder_of_outcomes()
        if not self.cache or folder is None:
            return super().preprocess(nb, resources)
        name, store = self.key(nb, resources), Cache(folder)
        if (known := store.get(name)) is not None and restore(nb, known):
            self.log.info("%s: nothing has changed since it was executed", name[:12])
            return nb, resources
        nb, resources = super().preprocess(nb, resources)
        if judged(nb):
            try:
                store.put(name, outcome(nb))
            except OSError as error:
                self.log.warning("what was executed cannot be kept for another time: %s", error)
        return nb, resources

    def key(self, nb: Node, resources: Any) -> str:
        """Name this execution (see `key`)."""
        source, directory = self.source, self._course_directory()
        if source is None and directory is not None:
            source = source_notebook(directory, resources)
        folder = resources.get("metadata", {}).get("path")
        files = Path(folder) if folder else None
        return key(nb, source, files, self._apartness(), seed=self._variant(resources), budgets=self._budgets())

    def _budgets(self) -> dict[str, float]:
        return {name: float(getattr(self, name) or 0) for name in _BUDGETS}

    def _apartness(self) -> str:
        if self.sandbox == "none" or not sys.platform.startswith("linux"):
            return "none"
        from .sandbox import probe  # noqa: PLC0415 - Linux only

        return str(probe().level)

    def _variant(self, resources: Any) -> str:
        seed = self.seed(resources)
        return "" if seed is None else str(seed)

    def _course_directory(self) -> Any:
        return getattr(getattr(self.parent, "parent", None), "coursedir", None)

    def _folder_of_outcomes(self) -> Path | None:
        """None where no course is known that outcomes could belong to."""
        if self.cache_directory:
            return Path(self.cache_directory)
        directory = self._course_directory()
        return None if directory is None else Path(directory.root) / "autograder" / "work" / "cache"


def outcome(nb: Node) -> dict[str, Any]:
    """What executing a notebook has added to it, as plain data."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    return {
        "cells": [{"outputs": cell.outputs, "execution_count": cell.execution_count} for cell in code],
        "metadata": {VERDICTS: nb.metadata.get(VERDICTS, {}), "language_info": nb.metadata.get("language_info", {})},
    }


def restore(nb: Node, known: Mapping[str, Any]) -> bool:
    """Add to a notebook what executing it had added; False, and nothing done, when it does not fit."""
    from nbformat import from_dict  # noqa: PLC0415

    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    cells: Sequence[Mapping[str, Any]] = known.get("cells", ())
    if len(cells) != len(code):
        return False
    for cell, kept in zip(code, cells, strict=True):
        cell.outputs = [from_dict(output) for output in kept["outputs"]]  # type: ignore[no-untyped-call]
        cell.execution_count = kept["execution_count"]
    nb.metadata.update(from_dict(known["metadata"]))  # type: ignore[no-untyped-call]
    return True


def judged(nb: Node) -> bool:
    """Whether every test was judged: what a busy or broken grader could not judge is to be tried again."""
    outputs = (output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs)
    return not any(output.get("ename") == _NOT_JUDGED for output in outputs)
