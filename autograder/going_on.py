"""Run a submission to its end, whatever its cells do to the process that runs them.

An answer can end its kernel (``os._exit``, a stack overflow, too much memory), keep it busy for ever, or flood it with
output. Plain nbgrader then drops the whole submission, or writes a notebook of 100 MB. `GoingOn` gives the cell an
error that says what happened, starts a fresh kernel, runs again what had worked before, and goes on with the next cell.

    cell k ends the kernel      a fresh kernel replays the cells before k that had worked; k is not run again
    a replayed cell ends it     it had laid a trap (a timer, a thread): it is left out from then on, and k gets its turn
    cell k blocks it            likewise, but a cell before may have broken the kernel: each is watched in the replay
    too many times              the other cells are not run; what has marks keeps them

Budgets are traits (``c.GoingOn.…`` in nbgrader_config.py), besides nbgrader's own ``timeout`` for a cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from queue import Empty
from typing import Any

from jupyter_core.utils import run_sync
from nbclient.client import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbgrader.preprocessors import Execute
from traitlets import Integer

from .displays import harmless

Node = Any
"""An nbformat node: its package ships no types."""

ENDED = "KernelEnded"
"""Name of the error in a cell that ended its kernel, or could not run."""
CUT = "… output cut: more than {} bytes …\n"

_SETTLE_S = 0.3
_START_S = 60
_PATIENCE_S = 0.02
_FLOOD = 40
_MESSAGE_LIMIT = 64 << 20
_SURROGATES = re.compile(r"[\ud800-\udfff]")


class GoingOn(Execute):  # type: ignore[misc]
    """Executes a notebook's code cells to the last, with as many kernels as it takes."""

    notebook_timeout = Integer(3600, help="seconds for all cells of a notebook, tests included").tag(config=True)
    max_restarts = Integer(10, help="how many kernels may be started anew for one notebook").tag(config=True)
    interrupt_timeout = Integer(20, help="seconds for a kernel to answer after it was interrupted").tag(config=True)
    output_limit = Integer(1 << 20, help="bytes of output that are kept of one cell").tag(config=True)
    notebook_output_limit = Integer(8 << 20, help="bytes of output that are kept of one notebook").tag(config=True)

    km: Any
    kc: Any

    def preprocess(self, nb: Node, resources: Any, *_: Any, **__: Any) -> tuple[Node, Any]:
        """Execute `nb` in place."""
        NotebookClient.__init__(self, nb, None)
        self.reset_execution_trackers()
        self._check_assign_resources(resources)
        self._end = time.monotonic() + self.notebook_timeout
        self._done: list[int] = []
        self._restarts = 0
        self._why = ""
        self._kept = 0
        self._begin_cell(-1)
        try:
            self._start()
            nb.metadata["language_info"] = {"name": "python"}
            for index, cell in enumerate(nb.cells):
                if cell.cell_type == "code" and cell.source.strip():
                    self.run(cell, index)
        finally:
            self._stop()
        return nb, self.resources

    def run(self, cell: Node, index: int) -> None:
        """Execute one code cell of the student's side."""
        cell.outputs = []
        if self._left() <= 0:
            mark(cell, f"This cell was not run: the notebook had used up its {self.notebook_timeout} s.")
        elif not self.ready():
            mark(cell, f"This cell could not run: {self._why}")
        else:
            self._execute(cell, index)

    def ready(self) -> bool:
        """Make sure that there is a kernel that has run what had worked; False when there is none to be had."""
        return (self.km is not None and self._alive()) or self._revive(careful=True)

    # ── one cell ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _execute(self, cell: Node, index: int) -> None:
        self._begin_cell(index)
        try:
            self.execute_cell(cell, index, store_history=True)
        except DeadKernelError:
            self._blame(cell, index, self._flooded() or "ended the Python process that ran the notebook")
        except Exception as error:  # it does not even end its output, or says what no kernel says
            self.log.debug("%s", error, exc_info=True)
            self._blame(cell, index, "kept its kernel from answering", careful=True)
        else:
            if self._flood >= _FLOOD * self.output_limit:
                self._blame(cell, index, self._flooded())
            elif self._timed_out and not self._answers():
                what = f"had not ended after {self._cell_timeout:g} s and could not be interrupted"
                self._blame(cell, index, what, careful=True)
            elif not self._timed_out:
                self._done.append(index)

    def _begin_cell(self, index: int) -> None:
        self._index = index
        self._flood = 0
        self._cut = False
        self._timed_out = False
        self._cell_timeout = 0.0

    def _blame(self, cell: Node, index: int, what: str, *, careful: bool = False) -> None:
        """Tell student and instructor that a cell has cost its kernel; unless it was a cell before, as it turns out."""
        if cause := self.why_ended():
            what = f"{what}; it was stopped: {cause}"
        self._discard()
        before = len(self._done)
        revived = self._restarts < self.max_restarts and self._revive(careful=careful)
        if revived and len(self._done) < before:
            self._execute(cell, index)
            return
        self._why = f"cell {_name(cell)}, above, {what}."
        self._warn("cell %s ended the kernel: it %s", _name(cell), what)
        mark(cell, f"This cell {what} (os._exit, too much memory, an endless loop?).")

    def _flooded(self) -> str:
        return "wrote too much output" if self._flood >= _FLOOD * self.output_limit else ""

    def _get_timeout(self, cell: Node | None) -> float | None:
        """A cell's seconds: its own budget, or what is left of the notebook's."""
        timeout = super()._get_timeout(cell)
        left = max(1.0, self._left())
        self._cell_timeout = left if timeout is None else min(timeout, left)
        return self._cell_timeout

    def _left(self) -> float:
        return self._end - time.monotonic()

    async def _async_handle_timeout(self, timeout: int, cell: Node | None = None) -> Any:
        self._timed_out = True
        return await super()._async_handle_timeout(timeout, cell)

    def process_message(self, msg: dict[str, Any], cell: Node, cell_index: int) -> Any:
        """Take a message of the kernel; outputs beyond the limit are dropped, and a flood ends the kernel."""
        if msg["msg_type"] != "status":
            size = _size(msg["content"]) + sum(len(part) for part in msg.get("buffers", ()))
            before, self._flood = self._flood, self._flood + size
            if self._flood > self.output_limit or self._kept + size > self.notebook_output_limit:
                if not self._cut:
                    self._cut = True
                    cell.outputs.append(_stream(CUT.format(self.output_limit)))
                if before < _FLOOD * self.output_limit <= self._flood:
                    self._killing = asyncio.ensure_future(self._async_kill())
                return None
            self._kept += size
        content = _writable(msg["content"])
        if isinstance(data := content.get("data"), dict) and isinstance(about := content.get("metadata"), dict):
            content["data"], content["metadata"] = harmless(data, about)
        return super().process_message({**msg, "content": content}, cell, cell_index)

    # ── the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────

    def kernel_options(self) -> dict[str, Any]:
        """What the kernel is started with: its folder, its environment."""
        return {}

    def started(self) -> None:
        """Called when a kernel has come up, before any cell."""

    def why_ended(self) -> str:
        """Why the kernel was ended from outside, if it was and somebody knows."""
        return ""

    def _start(self) -> None:
        import zmq  # noqa: PLC0415 - Jupyter has imported it by now

        self.create_kernel_manager()
        assert self.km is not None
        with contextlib.suppress(AttributeError, zmq.ZMQError):
            self.km.context.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_LIMIT)
        self.start_new_kernel(**self.kernel_options())
        run_sync(self._async_connect)()
        self.started()

    async def _async_connect(self) -> None:
        """Make a client of the kernel; it is ready as soon as both of its channels have been heard.

        Jupyter's own ``wait_for_ready`` ends 0.2 s after the last broadcast: two thirds of a start in a box.
        """
        assert self.km is not None
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.allow_stdin = False
        end = time.monotonic() + (self.startup_timeout or _START_S)
        waiting = [self.kc.shell_channel, self.kc.iopub_channel]
        patience = _PATIENCE_S
        while waiting:
            if not await self.km.is_alive() or time.monotonic() > end:
                raise RuntimeError("the kernel did not answer: it ended, or this computer is very busy")
            self.kc.kernel_info()
            with contextlib.suppress(Empty):
                while waiting:
                    await waiting[-1].get_msg(timeout=patience)
                    waiting.pop()
            patience = min(1.0, 2 * patience)

    def _stop(self) -> None:
        """End the kernel, if there is one, and the client."""
        if self.km is None:
            return
        try:
            self._cleanup_kernel()
        except Exception as error:  # a kernel that died by itself, in whatever way
            self.log.debug("%s", error, exc_info=True)
            self.km = None
            self.kc = None

    def _discard(self) -> None:
        if self.km is not None:
            with contextlib.suppress(Exception):
                run_sync(self._async_kill)()
        self._stop()

    async def _async_kill(self) -> None:
        if self.km is not None and self.km.provisioner is not None:
            await self.km.provisioner.kill()

    def _alive(self) -> bool:
        return self.km is not None and bool(run_sync(self.km.is_alive)())

    def _revive(self, *, careful: bool = False) -> bool:
        """Start a fresh kernel and replay what had worked; cells that end it again are dropped.

        Args:
            careful: see `_replay`; from the second time on it is anyway.
        """
        while self._restarts < self.max_restarts:
            self._restarts += 1
            self._discard()
            try:
                self._start()
            except Exception as error:
                self._why = f"no other Python process could be started: {error}"
                self._warn("%s", self._why)
                continue
            culprit = self._replay(careful=careful)
            if culprit is None:
                return True
            if careful:
                self._drop(culprit, "ended the Python process when it was run again")
            careful = True
        self._discard()
        self._why = self._why or "the Python process ended too often."
        return False

    def _replay(self, *, careful: bool) -> int | None:
        """Run again what had worked; returns the cell that ended the kernel, if one did.

        Args:
            careful: wait behind each cell, until a trap that it may have laid has sprung.
        """
        for index in self._done:
            budget = min(self.timeout or self._left(), max(1.0, self._left()))
            gone = self.silently(self.nb.cells[index].source, budget) is None
            if gone or ((careful or index == self._done[-1]) and not self._settled()):
                return index
        return None

    def _settled(self) -> bool:
        time.sleep(_SETTLE_S)
        return self._answers()

    def _drop(self, index: int, what: str) -> None:
        cell = self.nb.cells[index]
        self._done.remove(index)
        self._why = self._why or f"cell {_name(cell)}, above, {what}."
        self._warn("cell %s %s", _name(cell), what)
        mark(cell, f"This cell {what}; it was left out from then on.")

    def silently(self, code: str, timeout_s: float) -> Mapping[str, Any] | None:
        """Run code without a cell; returns the kernel's reply, None when the kernel ends or does not reply in time."""
        reply: Mapping[str, Any] | None = run_sync(self._async_silently)(code, timeout_s)
        return reply

    def _answers(self) -> bool:
        return self.silently("", self.interrupt_timeout) is not None

    async def _async_silently(self, code: str, timeout_s: float) -> Mapping[str, Any] | None:
        assert self.kc is not None
        assert self.km is not None
        asked = self.kc.execute(code, silent=True, store_history=False, allow_stdin=False, stop_on_error=False)
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            try:
                said = await self.kc.shell_channel.get_msg(timeout=min(0.5, left))
                replied = said["parent_header"].get("msg_id") == asked
            except Empty:
                if not await self.km.is_alive():
                    return None
            except Exception as error:  # unsigned, or of a shape that no kernel's messages have
                self.log.debug("%s", error, exc_info=True)
            else:
                if replied:
                    return said["content"] if isinstance(said["content"], dict) else None
        return None

    def _warn(self, text: str, *values: Any) -> None:
        names = self.resources.get("nbgrader", {})
        who = "{}, {}/{}: ".format(*(names.get(key, "?") for key in ("student", "assignment", "notebook")))
        self.log.warning(who.replace("%", "%%") + text, *values)


def mark(cell: Node, why: str) -> None:
    """Give a cell an error with these words, behind what it had shown."""
    from nbformat.v4 import new_output  # noqa: PLC0415 - only where something went wrong

    error = new_output("error", ename=ENDED, evalue=why, traceback=[f"{ENDED}: {why}"])  # type: ignore[no-untyped-call]
    cell.outputs = [*cell.outputs, error]


def _name(cell: Node) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id") or cell.get("id"))


def _stream(text: str) -> Node:
    from nbformat.v4 import new_output  # noqa: PLC0415

    return new_output("stream", name="stdout", text=text)  # type: ignore[no-untyped-call]


def _writable(value: Any) -> Any:
    """The same without halves of characters, which no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if _SURROGATES.search(value) else value
    if isinstance(value, dict):
        return {_writable(key): _writable(part) for key, part in value.items()}
    return [_writable(part) for part in value] if isinstance(value, list) else value


def _size(content: Mapping[str, Any]) -> int:
    """Characters of a message, wherever they are."""
    return sum(len(text) for text in _texts(content))


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
