"""The child process of a native bench: reads ``KIND ROUNDS`` lines, runs the loop, writes nanoseconds."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import platform
import sys
import time
from collections.abc import Callable

from .loops import code_of


@functools.cache
def loop(kind: str) -> Callable[[int], None]:
    """Map the machine code of one loop; its page is first writable, then executable, never both.

    Raises:
        OSError: when this system does not let a program make its own machine code.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page.write(code_of(kind, platform.machine()))
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_EXEC):
        error = ctypes.get_errno()
        raise OSError(error, f"making a page executable: {os.strerror(error)}")
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_void_p)(address)
    clock = ctypes.cast(libc.clock_gettime, ctypes.c_void_p).value

    def run(rounds: int) -> None:
        assert len(page)  # keeps the page mapped as long as this function lives
        function(rounds, clock)

    return run


def work() -> None:
    """Answer requests on stdin until it closes."""
    for line in sys.stdin:
        kind, rounds = line.split()
        run = loop(kind)
        start = time.perf_counter_ns()
        run(int(rounds))
        sys.stdout.write(f"{time.perf_counter_ns() - start}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    work()
