"""What the judge does with one test cell: run it beside the answers, and turn what happened into outputs and marks.

Runs in the judge's process, which is forked for each submission (see `judge`).

The marks of a cell are written as nbgrader reads them (`nbgrader.utils.determine_grade`): an error is nothing, an
``execute_result`` with a number is that many points, anything else is all of them. Only what the judge saw decides;
nothing that an answer prints or warns about gets here.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import builtins
import contextlib
import dataclasses
import inspect
import io
import json
import linecache
import math
import re
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from course.check import Verdict
from course.check.exercise import variant
from course.check.verdict import CheckFailed, collected

from .channel import Channel, Remote

TEXT_LIMIT = 100_000
"""Characters of one output that are kept."""
_OUTPUTS_LIMIT = 100

Output = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Test:
    """A test cell, ready to be run.

    Attributes:
        name: its grade id.
        source: its code, hidden tests included.
        points: what it is worth.
        answers: socket at which the student's process serves calls.
        preamble: names that it may name besides, and the statements that bind them; those bound already are left out.
        functions: names of answers that are called.
        values: names of answers that are values.
        seed: the student's own, for the exercises that vary.
    """

    name: str
    source: str
    points: float
    answers: str
    preamble: Sequence[tuple[str, str]] = ()
    functions: Sequence[str] = ()
    values: Sequence[str] = ()
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a test cell.

    Attributes:
        outputs: as a notebook keeps them.
        marks: what nbgrader will read from them.
        verdicts: of the checks that ran, as plain data.
        seconds: wall time.
    """

    outputs: Sequence[Output]
    marks: float
    verdicts: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0


class Session:
    """One submission before the judge: a namespace that lasts from test to test."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        self._made: set[str] = set()

    def run(self, test: Test) -> Result:
        """Run a test cell; never raises for anything that the test or an answer does."""
        start = time.monotonic()
        shown = _Shown()
        value: Any = None
        failure: BaseException | None = None
        with collected() as verdicts, shown.captured(), variant(test.seed):
            try:
                self._prepare(test)
                value = _execute(test, self.names)
            except Exception as error:
                failure = error
            except SystemExit as error:
                failure = RuntimeError(f"the test ended with {error!r}")
        marks = _marks(test, value, failure, verdicts)
        outputs = [*shown.outputs, *_graded(test, marks, failure)]
        return Result(outputs, marks, [_plain(one) for one in verdicts], time.monotonic() - start)

    def _prepare(self, test: Test) -> None:
        channel = Channel(test.answers)
        self.names |= {name: Remote(name, channel) for name in test.functions}
        for name in test.values:
            self.names.pop(name, None)
        self.names |= channel.values(test.values)
        for name, statement in test.preamble:
            if name not in self.names and name not in self._made:
                exec(compile(statement, "<preamble>", "exec"), self.names)  # noqa: S102 - the instructor's own words
                self._made.add(name)


def _execute(test: Test, names: dict[str, Any]) -> Any:
    """Run the cell's code; returns the value of its last expression, if it ends in one."""
    filename = f"<test {test.name}>"
    linecache.cache[filename] = (len(test.source), None, test.source.splitlines(keepends=True), filename)
    tree = ast.parse(test.source, filename)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    _evaluate(tree, filename, names)
    return _evaluate(ast.Expression(last.value), filename, names) if isinstance(last, ast.Expr) else None


def _evaluate(tree: ast.Module | ast.Expression, filename: str, names: dict[str, Any]) -> Any:
    mode = "eval" if isinstance(tree, ast.Expression) else "exec"
    code = compile(tree, filename, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, names)  # noqa: S307 - the instructor's own words
    if code.co_flags & inspect.CO_COROUTINE:
        return asyncio.run(made)
    return made


def _marks(test: Test, value: Any, failure: BaseException | None, verdicts: Sequence[Verdict]) -> float:
    """Points for what happened: all, nothing, or the part that the checks or the test itself say."""
    if failure is None:
        if type(value) not in (int, float):
            return test.points
        if type(value) is float and not math.isfinite(value):
            return 0.0  # reckoned from what an answer said
        return float(min(max(value, 0), test.points))
    if isinstance(failure, CheckFailed) and failure.verdict.partial:
        checks = max(_count_calls(test.source), len(verdicts))
        part = sum(verdict.credit for verdict in verdicts) / checks
        return round(test.points * part, 2)
    return 0.0


def _count_calls(source: str) -> int:
    """How many checks a test calls: statements such as ``check.step(step)``."""
    return sum(
        1
        for node in ast.parse(source).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    )


def _graded(test: Test, marks: float, failure: BaseException | None) -> list[Output]:
    """The outputs from which nbgrader reads the marks: the number stands before the error, or it would be nothing."""
    outputs: list[Output] = []
    if 0 < marks < test.points or (failure is None and marks < test.points):
        data = {"text/plain": repr(marks)}
        outputs.append({"output_type": "execute_result", "execution_count": None, "data": data, "metadata": {}})
    if failure is not None:
        said = _limited(str(failure))
        lines = [_limited(line) for line in _lines(failure)]
        outputs.append({"output_type": "error", "ename": type(failure).__name__, "evalue": said, "traceback": lines})
    return outputs


def _lines(failure: BaseException) -> list[str]:
    """What a notebook shows of an exception: a verdict's own words, else the test's lines that led to it."""
    render = getattr(failure, "_render_traceback_", None)
    if render is not None:
        return [str(line) for line in render()]
    frames = [f for f in traceback.extract_tb(failure.__traceback__) if f.filename.startswith("<test ")]
    shown = "".join(traceback.format_list(frames)).splitlines()
    return [*shown, *"".join(traceback.format_exception_only(failure)).splitlines()]


def _plain(verdict: Verdict) -> dict[str, Any]:
    kept = ("exercise", "step", "message", "misconception", "next_step")
    words = {name: _limited(str(getattr(verdict, name))) for name in kept}
    numbers = {"passed": verdict.passed, "total": verdict.total, "hidden": verdict.hidden, "credit": verdict.credit}
    return {"state": verdict.state.value, **words, **numbers}


def _limited(text: str) -> str:
    text = re.sub(r"[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]} … ({len(text)} characters)"


def _writable(value: Any) -> Any:
    """A display's data as a notebook keeps it: text, or an image as base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _limited(value) if isinstance(value, str) else json.loads(json.dumps(value, default=str))


class _Shown:
    """What a test displays and prints, in order."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    @contextlib.contextmanager
    def captured(self) -> Any:
        """Collect displays and prints of the block."""
        from IPython.core.interactiveshell import InteractiveShell  # noqa: PLC0415 - made in `judge`, once

        vars(InteractiveShell.instance().display_pub)["publish"] = self.publish
        printed = _Printed(self)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            yield

    def publish(self, data: Mapping[str, Any], metadata: Any = None, **_: Any) -> None:
        """Keep one display, as `IPython.display.display` sends it."""
        kept = {mime: _writable(value) for mime, value in data.items()}
        self._add({"output_type": "display_data", "data": kept, "metadata": metadata or {}})

    def write(self, text: str) -> None:
        """Keep printed text."""
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream":
            last["text"] = _limited(last["text"] + text)
        else:
            self._add({"output_type": "stream", "name": "stdout", "text": _limited(text)})

    def _add(self, output: Output) -> None:
        if len(self.outputs) < _OUTPUTS_LIMIT:
            self.outputs.append(output)


class _Printed(io.TextIOBase):
    def __init__(self, shown: _Shown) -> None:
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.write(text)
        return len(text)
