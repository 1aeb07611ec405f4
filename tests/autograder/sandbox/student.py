"""A client of a kernel in a box: sends code, returns what it printed."""

from __future__ import annotations

import contextlib
import json
import queue
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from jupyter_client import BlockingKernelClient

from autograder.sandbox import Box
from autograder.sandbox.zygote import sockets

PATIENCE_S = 120


class Student:
    """Runs code in the kernel of a box; a context manager."""

    def __init__(self, box: Box) -> None:
        self.box = box
        await_until(lambda: all(path.exists() for path in sockets(box.run_dir)) or not box.alive())
        assert box.alive(), (box, box.why)
        self._client = BlockingKernelClient()
        self._client.load_connection_file(box.connection_file)
        self._client.start_channels()
        await_until(self._heard)

    def _heard(self) -> bool:
        """Ask the kernel something, and tell whether its broadcasts reach us: what it prints then will too."""
        self._client.kernel_info()
        with contextlib.suppress(queue.Empty):
            self._client.get_iopub_msg(timeout=0.2)
            return True
        return False

    def __enter__(self) -> Student:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.stop_channels()

    def run(self, code: str) -> str:
        """Run code; return what it printed, with the exception's name and text at the end if there was one."""
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "error":
                said.append(f"{content['ename']}: {content['evalue']}")

        self._client.execute_interactive(code, output_hook=hear, timeout=PATIENCE_S)
        return "".join(said)

    def send(self, code: str) -> None:
        """Start code and do not wait for it."""
        self._client.execute(code)

    def value(self, expression: str) -> Any:
        """Return the value of an expression that is plain data."""
        said = self.run(f"import json as _json; print(_json.dumps({expression}))")
        try:
            return json.loads(said)
        except ValueError:
            raise AssertionError(f"{expression} gave {said}") from None


def await_until(condition: Any, timeout_s: float = PATIENCE_S) -> None:
    """Wait for something to be true, on a host however busy."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def processes_of(uid: int) -> list[int]:
    """Return the processes of a user on the host."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid:
                found.append(int(path.name))
        except OSError:
            continue
    return found
