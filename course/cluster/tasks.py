"""Tasks: work that goes on after the call that began it was answered.

A task runs in a thread of its node's process. Its log ends with how it ended::

    nodes/<node>/tasks/5/UPID:michael:...:    TASK OK | TASK ERROR: words | TASK WARNINGS: 2
    nodes/<node>/tasks/active                 UPID 0            runs
                                              UPID 1 65F0A1C9 OK    ended, one of the last
    nodes/<node>/tasks/index                  UPID 65F0A1C9 OK  all that ended, one line each, appended

``active`` is on the disk before anybody hears of a task. So one that a dead node left is found again when the node
comes back, and said to have ended with ``unexpected status``.

Source: the task list's files as the facts of this project describe them; recorded task logs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..error import ClusterError, ParameterError
from .config import files
from .upid import Upid

UNEXPECTED = "unexpected status"
RECENT = 25
"""How many ended tasks a node shows to the others."""

Work = Callable[["Task"], None]


class TaskStopped(ClusterError):  # noqa: N818 - a state
    """Somebody stopped the task."""


class Task:
    """One running task: its log, and whether it is to stop.

    Attributes:
        upid: its name.
        user: on whose behalf it runs.
    """

    def __init__(self, upid: Upid, path: Path) -> None:
        self.upid = upid
        self.user = upid.user
        self.warnings = 0
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self.ended = threading.Event()

    def log(self, text: str) -> None:
        """Append to the log: one line, or several."""
        lines = "".join(f"{line}\n" for line in text.splitlines() or [""])
        with self._lock:
            if not self._file.closed:
                self._file.write(lines.encode(errors="replace"))

    def warn(self, text: str) -> None:
        """Append a warning; a task with warnings ends with ``WARNINGS: n`` instead of OK."""
        self.warnings += 1
        self.log(f"WARN: {text}")

    @property
    def stopped(self) -> bool:
        """Whether somebody asked the task to stop."""
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Stop here when somebody asked for it: loops call this.

        Raises:
            TaskStopped: somebody did.
        """
        if self._stop.is_set():
            raise TaskStopped("received interrupt")

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until somebody stops the task.

        Raises:
            TaskStopped: somebody did.
        """
        self._stop.wait(seconds)
        self.check_stop()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Have something called when somebody stops the task, from another thread; at once if it has happened."""
        with self._lock:
            self._callbacks.append(callback)
            now = self._stop.is_set()
        if now:
            callback()

    def stop(self) -> None:
        """Ask the task to stop."""
        with self._lock:
            self._stop.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            with contextlib.suppress(Exception):
                callback()

    def close(self, status: str) -> None:
        """Write how it ended, bring the log to the disk, and let go of it."""
        words = status if status == "OK" or status.startswith("WARNINGS: ") else f"ERROR: {status}"
        self.log(f"TASK {words}")
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()


@dataclass(frozen=True, slots=True)
class Entry:
    """A task in a list: running when it has no status."""

    upid: Upid
    endtime: int | None = None
    status: str | None = None

    def record(self) -> dict[str, Any]:
        """Return it as the lists of tasks show it."""
        fields: dict[str, Any] = {**self.upid.record()}
        if self.status is not None:
            fields |= {"endtime": self.endtime, "status": self.status}
        return fields


class Tasks:
    """The tasks of one node.

    Args:
        node: its name.
        folder: where logs and lists are.
        report: gets what ended, for the cluster's log; may be None.
    """

    def __init__(self, node: str, folder: Path, report: Callable[[Entry], None] | None = None) -> None:
        self.node = node
        self.folder = folder
        self._report = report
        self._lock = threading.RLock()
        self._running: dict[str, Task] = {}
        self._recent: list[Entry] = []
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, type: str, id: str, user: str, work: Work) -> str:
        """Begin a task and return its UPID, once it is on the disk that there is one.

        Args:
            type: such as ``qmstart``.
            id: what it is about; empty for nothing.
            user: ``user@realm`` or ``user@realm!token``.
            work: what is to be done; what it raises is how it ends.
        """
        begun = threading.Event()
        made: list[Task] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                made.append(self._begin(type, id, user))
            except BaseException as error:  # handed to the caller
                failed.append(error)
                return
            finally:
                begun.set()
            self._work(made[0], work)

        threading.Thread(target=run, name=f"{type}-{id}", daemon=True).start()
        begun.wait()
        if failed:
            raise failed[0]
        return str(made[0].upid)

    def run(self, type: str, id: str, user: str, work: Work) -> str:
        """Begin a task and wait for its end; return how it ended."""
        upid = self.start(type, id, user, work)
        self.wait(upid)
        return str(self.status(upid)["exitstatus"])

    def wait(self, upid: str, timeout_s: float | None = None) -> bool:
        """Wait for the end of a task of this node; say whether it came."""
        with self._lock:
            task = self._running.get(upid)
        return task is None or task.ended.wait(timeout_s)

    def _begin(self, type: str, id: str, user: str) -> Task:
        """Make a task of the thread that this runs in."""
        thread = threading.get_native_id()
        upid = Upid(self.node, thread, _ticks(thread), int(time.time()), type, id, user)
        path = self.path(upid)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            while path.exists():  # the same thread number at the same tick: not in this world, but a log is one task's
                upid = Upid(self.node, thread, upid.pstart + 1, upid.starttime, type, id, user)
                path = self.path(upid)
            task = Task(upid, path)
            self._running[str(upid)] = task
            self._save_active()
        return task

    def _work(self, task: Task, work: Work) -> None:
        """Do the work and write down how it ended."""
        status = UNEXPECTED
        try:
            work(task)
            status = f"WARNINGS: {task.warnings}" if task.warnings else "OK"
        except ClusterError as error:
            status = _one_line(str(error))
        except Exception as error:  # whatever happens, the task's log says it
            status = _one_line(f"{type(error).__name__}: {error}" if not str(error).strip() else str(error))
        finally:
            self._end(task, status)

    def _end(self, task: Task, status: str) -> None:
        entry = Entry(task.upid, int(time.time()), status)
        with contextlib.suppress(OSError):  # a full disk must not keep a task running for ever
            task.close(status)
        with self._lock:
            self._recent = [entry, *self._recent][:RECENT]
            with contextlib.suppress(OSError):
                self._append([entry])
            del self._running[str(task.upid)]  # who sees that it ended finds it among those that did
            with contextlib.suppress(OSError):
                self._save_active()
        if self._report is not None:
            with contextlib.suppress(Exception):
                self._report(entry)
        task.ended.set()

    def recover(self) -> list[Entry]:
        """Take up the lists that the node left when it ended; return the tasks that it did not finish."""
        with self._lock:
            known = {str(entry.upid) for entry in self.archive()}
            left = []
            for entry in read_active(self.folder / "active"):
                if str(entry.upid) in known:
                    continue
                status = self._last_words(entry.upid) if entry.status is None else entry.status
                left.append(Entry(entry.upid, entry.endtime or int(time.time()), status))
            self._append(reversed(left))
            self._recent = [*self.archive()][:RECENT]
            self._save_active()
        return [entry for entry in left if entry.status == UNEXPECTED]

    def path(self, upid: Upid) -> Path:
        """Return where a task's log is."""
        return self.folder / upid.subfolder / str(upid)

    def _save_active(self) -> None:
        lines = [f"{upid} 0\n" for upid in self._running]
        lines += [f"{entry.upid} 1 {entry.endtime or 0:08X} {entry.status}\n" for entry in self._recent]
        files.write(self.folder / "active", "".join(lines))

    def _append(self, entries: Iterator[Entry] | list[Entry]) -> None:
        """Append to the index of ended tasks."""
        text = "".join(f"{entry.upid} {entry.endtime or 0:08X} {entry.status}\n" for entry in entries)
        if text:
            with (self.folder / "index").open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())

    def active(self) -> list[Entry]:
        """Return the running tasks, the latest first."""
        with self._lock:
            return [Entry(task.upid) for task in reversed(self._running.values())]

    def recent(self) -> list[Entry]:
        """Return the running tasks and those that ended lately."""
        with self._lock:
            return [*self.active(), *self._recent]

    def archive(self) -> Iterator[Entry]:
        """Yield the ended tasks, the latest first."""
        for line in reversed(files.read(self.folder / "index").splitlines()):
            words = line.split(" ", 2)
            if len(words) == 3 and (upid := _upid(words[0])):
                yield Entry(upid, int(words[1], 16), words[2])

    def _last_words(self, upid: Upid) -> str:
        """Return how a task ended, from its log."""
        return last_words(self.path(upid))

    def known(self, text: str) -> tuple[Upid, Path]:
        """Return a task of this node by its UPID.

        Raises:
            ParameterError: there was none.
        """
        try:
            upid = Upid.parse(text)
        except ClusterError as error:
            raise ParameterError({"upid": error.message}) from None
        path = self.path(upid)
        if upid.node != self.node or not path.is_file():
            raise ParameterError({"upid": "no such task"})
        return upid, path

    def status(self, text: str) -> dict[str, Any]:
        """Return how a task does, as the API answers it.

        Raises:
            ParameterError: there was no such task.
        """
        upid, path = self.known(text)
        fields: dict[str, Any] = {**upid.record(), "status": "running"}
        if text not in self._running:
            fields |= {"status": "stopped", "exitstatus": last_words(path)}
        return fields

    def stop(self, text: str) -> None:
        """Ask a task to stop; one that has ended is left alone.

        Raises:
            ParameterError: there was no such task.
        """
        self.known(text)
        with self._lock:
            task = self._running.get(text)
        if task is not None:
            task.stop()

    def stop_all(self, timeout_s: float = 5) -> None:
        """Ask all tasks to stop and give them a moment."""
        with self._lock:
            tasks = list(self._running.values())
        for task in tasks:
            task.stop()
        end = time.monotonic() + timeout_s
        for task in tasks:
            task.ended.wait(max(0.0, end - time.monotonic()))


def read_active(path: Path) -> list[Entry]:
    """Read a node's list of tasks, whether or not the node lives."""
    entries = []
    for line in files.read(path).splitlines():
        words = line.split(" ", 3)
        upid = _upid(words[0])
        if upid is None:
            continue
        ended = len(words) == 4 and words[1] == "1"
        entries.append(Entry(upid, int(words[2], 16), words[3]) if ended else Entry(upid))
    return entries


def last_words(path: Path) -> str:
    """Return how the task of a log ended, in the words of its last line."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        tail = file.read().decode(errors="replace").splitlines()
    last = tail[-1] if tail else ""
    if last == "TASK OK":
        return "OK"
    for begin, keep in (("TASK ERROR: ", ""), ("TASK WARNINGS: ", "WARNINGS: ")):
        if last.startswith(begin):
            return keep + last.removeprefix(begin)
    return UNEXPECTED


def read_log(path: Path, start: int = 0, limit: int = 50) -> tuple[list[dict[str, Any]], int]:
    """Return lines of a log as the API answers them, and how many lines there are.

    Args:
        path: the log.
        start: how many lines to leave out.
        limit: how many lines at most; 0 for all.
    """
    lines = path.read_bytes().decode(errors="replace").splitlines()
    shown = lines[start : start + limit] if limit else lines[start:]
    if not lines:
        return [{"n": 1, "t": "no content"}], 1
    return [{"n": start + n, "t": line} for n, line in enumerate(shown, 1)], len(lines)


def _upid(text: str) -> Upid | None:
    try:
        return Upid.parse(text)
    except ClusterError:
        return None


def _one_line(words: str) -> str:
    """Return an error's words without ends of lines."""
    return " ".join(part for part in words.strip().splitlines() if part) or "unknown error"


def _ticks(thread: int) -> int:
    """Return when a thread of this process started, in clock ticks since boot; where nobody says, the time."""
    try:
        stat = Path(f"/proc/self/task/{thread}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19]) & 0xFFFFFFFF
    except OSError:
        return int(time.monotonic() * 100)
