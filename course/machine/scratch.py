"""A file that QEMU and we share without a name.

Some QMP commands answer into a file (screendump, pmemsave). The machine inherits one that lives in memory and has no
name; QEMU reaches it as ``/proc/self/fd/N``. So nothing is written to a disk and nothing is left behind. Where there
is no memfd or no /proc, an ordinary temporary file does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path


class Scratch:
    """One anonymous file; `fd` is to be inherited by QEMU (None where that does not work)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.fd: int | None = None
        if sys.platform == "linux" and Path("/proc/self/fd").exists():
            with contextlib.suppress(OSError):
                self.fd = os.memfd_create("qemu-scratch")

    def collect(self, write: Callable[[str], object]) -> bytes:
        """Call `write` with a file name for QEMU to write to, and return what is then in that file."""
        with self._lock:
            if self.fd is None:
                return _by_name(write)
            os.ftruncate(self.fd, 0)
            write(f"/proc/self/fd/{self.fd}")
            data = _contents(self.fd)
            os.ftruncate(self.fd, 0)
            return data

    def close(self) -> None:
        """Let go of the file."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


def _contents(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts = bytearray()
    while len(parts) < size and (part := os.pread(fd, size - len(parts), len(parts))):
        parts += part
    return bytes(parts)


def _by_name(write: Callable[[str], object]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="course-scratch-") as directory:
        path = Path(directory) / "data"
        write(str(path))
        return path.read_bytes()
