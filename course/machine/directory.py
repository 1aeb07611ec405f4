"""Private directories for sockets, that do not pile up when a process is killed.

Each has one owner, who holds a lock on it (flock) for as long as it lives; the kernel lets go of the lock when the
owner dies, however it dies. Whoever makes the next directory removes those whose lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from ..error import UsageError

SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path. Source: unix(7), sun_path is 108 bytes with its NUL."""

_PREFIX = "course-vm-"
_PREFIXES = r"course-[a-z]+-"


class PrivateDirectory:
    """A new directory, mode 0700, for this process alone.

    Args:
        prefix: of its name, such as ``course-vm-``; those of dead owners with the same prefix are removed.

    Raises:
        UsageError: the prefix could be that of somebody else's directories.
    """

    def __init__(self, prefix: str = _PREFIX) -> None:
        if not re.fullmatch(_PREFIXES, prefix):
            raise UsageError(
                f"the prefix {prefix!r} could be that of directories that are not ours, and unlocked ones with "
                "the same prefix are removed. Use course-, lower-case letters and a dash, such as 'course-vm-'."
            )
        base = Path(tempfile.gettempdir())
        _sweep(base, prefix)
        # Made under another name and renamed once locked, so that nobody sweeps it in between.
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=base))
        self._fd = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = base / (prefix + fresh.name.removeprefix(".new-"))
        fresh.rename(self.path)
        self._owner = os.getpid()

    @property
    def owned(self) -> bool:
        """True in the process that made it, while it is there."""
        return os.getpid() == self._owner and self._fd >= 0

    def socket(self, name: str) -> str:
        """Return the path of a socket `name` in here.

        Raises:
            UsageError: when it is longer than a socket's path may be.
        """
        return checked_socket_path(str(self.path / name))

    def remove(self) -> None:
        """Remove the directory and all in it; does nothing in a forked copy of the owner."""
        if self.owned:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._fd)
            self._fd = -1


def checked_socket_path(path: str) -> str:
    """Return `path` if it can be a Unix socket's.

    Raises:
        UsageError: when it is too long.
    """
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT:
        raise UsageError(
            f"the socket path {path} is {length} bytes long; Unix allows {SOCKET_PATH_LIMIT}. "
            "Use a shorter one, or set TMPDIR to a short directory such as /tmp."
        )
    return path


def _sweep(base: Path, prefix: str) -> None:
    for path in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_uid == os.getuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)
