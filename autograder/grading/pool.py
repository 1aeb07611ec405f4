"""Where submissions are executed: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from .course import Course, GradingError, Submission
from .execution import Executed, execute, pack

_TRIES = 2
_ROOT = Path(__file__).parents[2]

Done = tuple[Submission, Executed | Exception]


def local(course: Course, submissions: Sequence[Submission], workers: int) -> Iterator[Done]:
    """Execute submissions on this machine, each as soon as a worker is free.

    A worker that is killed costs the submission it had, which is tried once more in a new one; the others go on.

    Yields:
        Each submission with what came of it, in the order in which they end.
    """
    waiting = list(submissions)
    tries = dict.fromkeys(waiting, 0)
    while waiting:
        left: list[Submission] = []
        context = multiprocessing.get_context("spawn")
        with _ending(
            concurrent.futures.ProcessPoolExecutor(
                min(workers, len(waiting)), context, initializer=_begin, initargs=(os.getpid(),)
            )
        ) as pool:
            # No more in hand than there are workers: what is in hand when one is killed is known.
            queue, running = iter(waiting), {}
            for one in itertools.islice(queue, workers):
                running[pool.submit(_local, str(course.root), one)] = one
            broken = False
            while running:
                ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    one = running.pop(future)
                    try:
                        yield one, future.result()
                    except BrokenProcessPool:
                        broken = True
                        tries[one] += 1
                        if tries[one] < _TRIES:
                            left.append(one)
                        else:
                            yield one, GradingError("the process that executed it was killed, twice")
                    except Exception as error:
                        yield one, error
                    if not broken:
                        for another in itertools.islice(queue, 1):
                            running[pool.submit(_local, str(course.root), another)] = another
            waiting = [*left, *queue]


def dask(course: Course, submissions: Sequence[Submission], address: str) -> Iterator[Done]:
    """Execute submissions on a Dask cluster, whose workers run from checkouts of the same course.

    Args:
        course: the checkout here; files of submissions are sent, outcomes come back.
        submissions: what to execute.
        address: of the scheduler, such as ``"tcp://127.0.0.1:8786"``.

    Raises:
        GradingError: Dask is not installed, or nobody answers there.
    """
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError:
        raise GradingError("Dask is not installed; `pip install distributed` does it, or leave --dask out") from None
    try:
        client = distributed.Client(address, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise GradingError(f"no Dask scheduler answers at {address!r}: {error}") from None
    with client:
        futures = {}
        for one in submissions:
            try:
                files = pack(course.path("submitted", one.student, one.lesson))
            except OSError as error:
                yield one, error
                continue
            name = f"grade-{one.lesson}-{one.student}"
            futures[client.submit(remote, one, files, pure=False, retries=1, key=f"{name}-{os.urandom(4).hex()}")] = one
        for future in distributed.as_completed(futures, loop=client.loop):  # type: ignore[no-untyped-call]
            failure = future.exception()
            yield futures[future], future.result() if failure is None else failure


def remote(one: Submission, files: dict[str, bytes]) -> Executed:
    """Run by a Dask worker: execute with the checkout that it was started from."""
    return execute(os.environ.get("COURSE_ROOT", str(_ROOT)), one, files)


def _local(root: str, one: Submission) -> Executed:
    return execute(root, one, pack(Course(Path(root)).path("submitted", one.student, one.lesson)))


def _begin(parent: int) -> None:
    """A worker dies with its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    if sys.platform == "linux":
        from ..sandbox import linux  # noqa: PLC0415 - Linux only

        linux.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)


@contextlib.contextmanager
def _ending(pool: Any) -> Iterator[Any]:
    """A pool whose workers end with the block: at once when it is left by an exception."""
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True, cancel_futures=True)
