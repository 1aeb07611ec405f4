"""Execute a submission: the student's cells in their kernel, the tests in a judge's process.

In plain nbgrader a test is one more cell of the student's kernel, where a student's code can change what it compares
with, read it, skip it or speak for it. Here it never gets there:

    cells of student and instructor ──▶ the student's kernel (any Jupyter kernel; in a box, see `sandbox`)
                                              ▲ calls of answers, plain data only (`channel`, `course.check.service`)
    test cells, hidden tests included ──▶ judge (`judge`, `session`), its outputs ──▶ the notebook

The kernel works in a copy of the submission's folder without notebooks: nbgrader has just written the hidden tests into
them. `SplitExecute` takes the place of nbgrader's ``Execute`` in nbgrader_config.py; all that nbgrader does afterwards,
such as writing marks, is nbgrader's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

from traitlets import Enum, Integer, Unicode

from . import variants
from .going_on import GoingOn, Node
from .judge import Court, Judge, JudgeError
from .session import Result, Test
from .split import Needs, Plan, is_test, modules, source_notebook

VERDICTS = "course"
"""Key of the notebook's metadata under which verdicts are kept: ``{"verdicts": {grade id: […]}, "sandbox": …}``."""

_RUN_MIB, _ADDRESS_SPACE_MIB = 1024, 64 << 10
"""Room for the disks of machines that checks start; addresses for Unicorn, which reserves a GiB for each processor and
ends the process when there is none left. What is *used* is limited by the box's memory."""


class SplitExecute(GoingOn):
    """Executes a notebook with its tests outside the student's process."""

    check_timeout = Integer(900, help="seconds for one test cell, all calls of answers included").tag(config=True)
    sandbox = Enum(["auto", "none"], "auto", help="whether kernels are started in boxes, where this machine can").tag(
        config=True
    )

    course_secret = Unicode("", help="makes each student's own inputs; empty: all get the same (see variants)").tag(
        config=True
    )

    source: Node | None = None
    """The instructor's notebook, where no converter knows the course."""
    court: Court | None = None
    """Where judges come from, if several notebooks are to share it and no converter keeps it."""

    def preprocess(self, nb: Node, resources: Any, *_: Any, **__: Any) -> tuple[Node, Any]:
        """Execute `nb` in place; tests get their outputs from the judge alone."""
        with contextlib.ExitStack() as stack:
            self._folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True))
            )
            self._court = self._shared_court(stack)
            self._judge: Judge | None = None
            self._needs = self._plan(nb, resources)
            self._results: dict[int, Result] = {}
            self._kernels = 0
            self._box: Any = None
            self._level = "none"
            stack.callback(self._end_judge)
            nb, resources = super().preprocess(nb, resources)
        verdicts = {}
        for index, result in self._results.items():
            cell = nb.cells[index]
            cell.outputs = _nodes(result.outputs)
            verdicts[cell.metadata["nbgrader"]["grade_id"]] = {
                "marks": result.marks, "seconds": result.seconds, "checks": list(result.verdicts),
            }  # fmt: skip
        nb.metadata[VERDICTS] = {"verdicts": verdicts, "sandbox": self._level}
        return nb, resources

    def run(self, cell: Node, index: int) -> None:
        """Run a student's cell in the kernel, a test before the judge."""
        if not is_test(cell):
            super().run(cell, index)
            return
        cell.outputs = []
        self._results[index] = self._judged(cell, index)

    # ── tests ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _judged(self, cell: Node, index: int) -> Result:
        needs = self._needs[index]
        if needs.refused:
            self.log.error("test %s cannot be run: %s", cell.metadata["nbgrader"]["grade_id"], needs.refused)
            return _failed(f"The instructor has to mend this test: {needs.refused}.")
        if self._left() <= 0:
            return _failed(f"This test was not run: the notebook had used up its {self.notebook_timeout} s.")
        if not self.ready():
            return _failed(f"This test could not be run: {self._why}")
        test = Test(
            name=cell.metadata["nbgrader"]["grade_id"],
            source=cell.source,
            points=float(cell.metadata["nbgrader"]["points"]),
            answers=str(self._answers_path),
            preamble=needs.preamble,
            functions=needs.functions,
            values=needs.values,
            seed=self.seed(self.resources),
        )
        result = self._present(test)
        if result.marks < test.points and not self._alive() and self.ready():
            # The kernel ended meanwhile: by this answer, or by a trap of a cell before. Whose fault it was shows now.
            result = self._present(dataclasses.replace(test, answers=str(self._answers_path)))
        return result

    def seed(self, resources: Any) -> int | None:
        """The seed of the student whose submission this is; None without a secret."""
        names = resources.get("nbgrader", {})
        return variants.seed(self.course_secret, str(names.get("student", "")), str(names.get("assignment", "")))

    def _present(self, test: Test) -> Result:
        timeout = max(1.0, min(self.check_timeout, self._left()))
        try:
            return self._present_judge().run(test, timeout)
        except JudgeError as error:
            self._end_judge()
            gone = not self._settled()  # what ended the judge may be ending the box: the next cell must not be blamed
            cause = self.why_ended() if gone else ""
            if gone:
                self._discard()
            self._warn("test %s: %s (within %g s) %s", test.name, error, timeout, cause)
            if cause:
                return _failed(f"While this test called an answer, its processes were stopped: {cause}.")
            return _failed(f"This test had not ended after {timeout:g} s, or an answer ended its process: {error}.")

    def _present_judge(self) -> Judge:
        if self._judge is None or not self._judge.alive:
            wanted = set()
            for index, needs in self._needs.items():
                wanted |= modules(self.nb.cells[index].source).union(*(modules(code) for _, code in needs.preamble))
            self._judge = self._court.judge(self._run_dir / "judge", modules=wanted, box=self._box)
        return self._judge

    def _end_judge(self) -> None:
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    def _plan(self, nb: Node, resources: Any) -> dict[int, Needs]:
        course = getattr(getattr(self.parent, "parent", None), "coursedir", None)
        source = self.source or (source_notebook(course, resources) if course is not None else None)
        if source is None:
            self.log.warning("no instructor's notebook to say which names are answers; the submission's own is used")
        return Plan(nb if source is None else source).needs(nb.cells)

    def _shared_court(self, stack: contextlib.ExitStack) -> Court:
        """The court of this grading process, kept by the converter that runs us; an own one without a converter."""
        if self.court is not None:
            return self.court
        converter = getattr(self.parent, "parent", None)
        if converter is None:
            return stack.enter_context(Court())
        court = getattr(converter, "_court", None)
        if court is None or not court.open:
            court = converter._court = Court()
            weakref.finalize(converter, court.close)
        return court

    # ── the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────

    def kernel_options(self) -> dict[str, Any]:
        """Start kernels in a copy of the submission without notebooks; a box makes its own copy of that."""
        self._end_judge()
        submission = self.resources.get("metadata", {}).get("path")
        self._kernels += 1
        self._run_dir = self._folder / str(self._kernels)
        work = self._run_dir / "work"
        if submission:
            shutil.copytree(submission, work, ignore=_not_for_students, symlinks=True)
        else:
            work.mkdir(parents=True)
        if self._boxes():
            return {"cwd": str(work)}
        (self._run_dir / "tmp").mkdir()
        environment = {"TMPDIR": str(self._run_dir / "tmp"), "IPYTHONDIR": str(self._run_dir / "ipython")}
        return {"cwd": str(work), "env": os.environ | environment}

    def started(self) -> None:
        """Let the kernel serve calls of its answers."""
        self._box = getattr(self.km.provisioner, "box", None)
        if self._box is not None:
            self._run_dir = self._box.run_dir
        folder = self._run_dir / "judge"
        folder.mkdir()
        if self._box is not None and self._box.uid != os.getuid():
            os.chown(folder, self._box.uid, self._box.uid)
        self._answers_path = self._run_dir / "answers"
        serve = f"__import__('course.check.service', fromlist=['serve']).serve({str(self._answers_path)!r}, globals())"
        said = self.silently(serve, self.startup_timeout or 60)
        if said is None or said.get("status") != "ok":
            raise JudgeError(f"the kernel cannot serve calls of answers: {(said or {}).get('evalue', 'it ended')}")

    def why_ended(self) -> str:
        """Which limit of its box a kernel went beyond."""
        return str(self._box.why) if self._box is not None and not self._box.alive() else ""

    def _boxes(self) -> bool:
        """Have this process's kernels started in boxes, if that is wanted and can be."""
        if not sys.platform.startswith("linux"):
            self._level = f"none; {sys.platform} is not Linux"
            return False
        from .sandbox import Isolation, SandboxProvisioner, probe, register, unregister  # noqa: PLC0415 - Linux only

        level = probe() if self.sandbox == "auto" else None
        if level is None or level.level is Isolation.NONE:
            self._level = str(level or "none; not wanted")
            if self._kernels == 1:
                self.log.warning("%s", level.warning if level else "Students' code runs with your rights: no sandbox.")
            unregister()
            return False
        self._level = str(level)
        if level.warning and self._kernels == 1:
            self.log.warning("%s", level.warning)
        SandboxProvisioner.limits = dataclasses.replace(
            SandboxProvisioner.limits, run_mib=_RUN_MIB, address_space_mib=_ADDRESS_SPACE_MIB
        )
        register()
        return True


def _not_for_students(folder: str, names: list[str]) -> list[str]:
    """Notebooks (they hold hidden tests by now), links, and what is no file."""
    return [
        name
        for name in names
        if name.endswith(".ipynb")
        or os.path.islink(path := os.path.join(folder, name))  # noqa: PTH114, PTH118
        or not (os.path.isfile(path) or os.path.isdir(path))  # noqa: PTH112, PTH113
    ]


def _failed(why: str) -> Result:
    error = {"output_type": "error", "ename": "NotJudged", "evalue": why, "traceback": [why]}
    return Result([error], 0.0)


def _nodes(outputs: Any) -> list[Node]:
    from nbformat import from_dict  # noqa: PLC0415

    return [from_dict(output) for output in outputs]  # type: ignore[no-untyped-call]
