"""Where submissions are executed: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path

from .course import Course, GradingError, Submission
from .crew import Crew, Done
from .execution import Executed, execute, pack

_ROOT = Path(__file__).parents[2]


def local(course: Course, submissions: Sequence[Submission], workers: int, *, anew: bool = False) -> Crew:
    """Execute submissions on this machine, each as soon as a worker is free; the workers start now."""
    return Crew(course, submissions, workers, anew=anew)


def dask(course: Course, submissions: Sequence[Submission], address: str) -> Generator[Done]:
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
