"""A process that holds files open after their names are gone.

A file is deleted when its last *name* goes; the kernel frees it when its last *user* goes. Between the two, a process
that has it open works on as if nothing had happened, and ``/proc/PID/fd`` still leads to it.

Source: unlink(2), proc(5).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

# Opens every file, says so, and waits for the end of its stdin: it cannot outlive the parent.
_PROGRAM = """
import json, sys
files = [open(path, mode + "b") for path, mode in json.loads(sys.argv[1])]
print("ready", flush=True)
sys.stdin.read()
"""


@dataclasses.dataclass(frozen=True)
class Held:
    """A file that the holder opens.

    Attributes:
        name: file name within the holder's folder.
        content: its bytes.
        deleted: whether its name is removed once it is open.
        replaced_by: content of another file that then takes the name, or None.
        mode: ``"r"`` or ``"a"``: how the holder has it open.
    """

    name: str
    content: bytes
    deleted: bool = True
    replaced_by: bytes | None = None
    mode: str = "r"


class Holder:
    """A child process that has `files` open, some of them deleted; a context manager.

    Attributes:
        pid: the process.
        folder: where the files are, or were.
    """

    def __init__(self, files: Sequence[Held]) -> None:
        self.folder = tempfile.mkdtemp(prefix="held-")
        for file in files:
            self.path(file.name).write_bytes(file.content)
        wanted = json.dumps([[str(self.path(f.name)), f.mode] for f in files])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, wanted], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._process.stdout.readline()
        for file in files:
            if file.deleted:
                self.path(file.name).unlink()
        for file in files:
            if file.replaced_by is not None:
                self.path(file.name).write_bytes(file.replaced_by)

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def path(self, name: str) -> Path:
        """Return the full path of a file of the holder."""
        return Path(self.folder, name)

    def close(self) -> None:
        """End the process; the kernel now frees what had no name."""
        self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)
