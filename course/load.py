"""Load on purpose: processes that use CPU time or share memory, for experiments and as witnesses of checks.

Every process here ends with its parent: a burner looks at its parent's id again and again, a holder of memory waits
for the end of a pipe. So nothing survives Ctrl-C or a killed kernel, and no signal has to arrive for that.

::

    with burners("user", "user") as pids:          # two processes that want a CPU each
        os.sched_setaffinity(pids[0], {0})
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .error import CourseError, UsageError

#: What a burner does in one round, by kind. A round lasts some milliseconds, then it looks for its parent.
_ROUNDS = {
    "user": "for _ in range(50_000): pass",
    "system": "for _ in range(50): zero.readinto(buffer)",
    "sleep": "time.sleep(0.02)",
}
_BURNER = """
import ctypes, os, sys, time
parent, name, niceness = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
os.nice(niceness)
if name:
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME; /proc/self/comm is closed in some boxes
zero, buffer = open("/dev/zero", "rb", buffering=0), bytearray(1 << 16)
print("ready", flush=True)
while os.getppid() == parent:
    {round}
"""
_SHARER = """
import os, sys
mib, children = int(sys.argv[1]), int(sys.argv[2])
held = bytearray(mib << 20)
for page in range(0, len(held), 4096):
    held[page] = 1
pids = []
for _ in range(children):
    pid = os.fork()
    if pid == 0:
        os.read(0, 1)
        os._exit(0)
    pids.append(pid)
print(*pids, flush=True)
os.read(0, 1)
for pid in pids:
    os.waitpid(pid, 0)
"""


@contextlib.contextmanager
def burners(*kinds: str, nice: Sequence[int] = (), names: Sequence[str] = ()) -> Iterator[list[int]]:
    """Start one process per kind and end them all when the block ends.

    Args:
        *kinds: ``"user"`` (computes), ``"system"`` (keeps the kernel busy), ``"sleep"`` (wants nearly nothing).
        nice: niceness of each process, 0..19; zero where not given.
        names: what ``/proc/PID/comm`` shows, at most 15 characters; unchanged where not given.

    Yields:
        The process ids, in the order of `kinds`, once every process runs.

    Raises:
        UsageError: for an unknown kind.
        CourseError: when a process does not start.
    """
    for kind in kinds:
        if kind not in _ROUNDS:
            raise UsageError(f"unknown kind of load {kind!r}; expected one of {', '.join(_ROUNDS)}")
    with contextlib.ExitStack() as stack:
        processes = []
        for number, kind in enumerate(kinds):
            name = names[number] if number < len(names) else ""
            niceness = nice[number] if number < len(nice) else 0
            program = _BURNER.format(round=_ROUNDS[kind])
            processes.append(stack.enter_context(_process(program, str(os.getpid()), name, str(niceness))))
        for process in processes:
            _first_line(process)
        yield [process.pid for process in processes]


@contextlib.contextmanager
def sharers(count: int, shared_mib: int) -> Iterator[list[int]]:
    """Start `count` processes that hold the same `shared_mib` MiB of memory: forked, never written again.

    Yields:
        Their process ids. One more process, their parent, holds the same pages.
    """
    with _process(_SHARER, str(shared_mib), str(count)) as process:
        yield [int(pid) for pid in _first_line(process).split()]


def let_run(seconds: float) -> None:
    """Let `seconds` pass while others work: the length of a measurement. To wait for something, wait for its event."""
    time.sleep(seconds)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used since its start, user and system, in seconds (resolution 10 ms).

    Raises:
        UsageError: when there is no such process.

    Source: proc(5), ``/proc/pid/stat``: fields 14 and 15, in clock ticks. Field 2 may hold spaces and parentheses.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise UsageError(f"there is no process {pid}; expected the id of a running process") from None
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process without site packages; the end of the block closes its input, kills and reaps it."""
    command = [sys.executable, "-I", "-S", "-c", program, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if "os.fork()" in program:
                process.wait(timeout=5)  # it reaps its own children when its input ends
        process.kill()
        process.wait()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise CourseError(f"a load process ended at once, exit code {process.wait()}; expected it to keep running")
    return line
