r"""A laboratory: a fresh Linux guest where scripts run as root, and nothing outside can be harmed.

A script travels over the serial console as base64, runs with its output in a file and its input empty, and its output
comes back as base64: what it writes can neither disturb the console nor be disturbed by it.

::

    with Laboratory() as lab:
        lab.run("hostname")            # Ran(exitcode=0, output='lab\n')
"""

from __future__ import annotations

import base64
import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .. import guest
from ..error import MachineError, UsageError

OUTPUT_LIMIT = 1 << 18
"""Bytes of a script's output that are fetched."""

_FOLDER = "/lab"


@dataclasses.dataclass(frozen=True)
class Ran:
    """What became of a script.

    Attributes:
        exitcode: its exit status; 128 + n when signal n ended it.
        output: what it wrote on its standard output and error, in order.
        timed_out: whether it was killed because its time was over.
        seconds: wall time, the way to the guest and back included.
    """

    exitcode: int
    output: str
    timed_out: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        """The output without its last newline, for ``print(lab.run(…))``."""
        return self.output.rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """The output, line by line."""
        return self.output.splitlines()


class Laboratory:
    """A guest for experiments with containers; a context manager.

    It is a clone of a booted Linux (about 0.3 s), with busybox as its userland, cgroup v2 mounted at /sys/fs/cgroup,
    overlayfs loaded, and a second network interface, so that a container's own network can be told from its host's.

    Args:
        name: hostname of the guest.
        ram_mib: its memory in MiB.
        disks: images that it finds as /dev/vda, /dev/vdb …
    """

    def __init__(self, name: str = "lab", *, ram_mib: int = 128, disks: Sequence[str | Path | int] = ()) -> None:
        self.vm = guest.linux(name, ram_mib=ram_mib, disks=disks)

    def __repr__(self) -> str:
        return f"<Laboratory in {self.vm!r}>"

    def __enter__(self) -> Laboratory:
        self.vm.launch()
        try:
            self._shell(
                f"stty -echo; mkdir -p {_FOLDER}; mount -t tmpfs lab {_FOLDER}; mount-cgroups >/dev/null; "
                "modprobe overlay; modprobe veth; ip link set lo up; ip link add uplink type veth peer name wire"
            )
        except BaseException:
            self.vm.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.vm.kill()

    def run(self, script: str, *, timeout_s: float = 10.0) -> Ran:
        """Run a shell script as root and wait for its end.

        Args:
            script: for the POSIX shell; the commands are those of busybox.
            timeout_s: seconds after which it is killed.

        Raises:
            MachineGone: the script ended the guest itself.
            ConsoleTimeout: the guest no longer answers.
        """
        if not script.strip():
            raise UsageError("run() needs a script; expected one or more lines of shell, got nothing")
        self.put(f"{_FOLDER}/script", script.encode())
        limit = max(1, round(timeout_s))
        begin = time.monotonic()
        status, _ = self._shell(
            f"cd /; timeout -s KILL {limit} sh {_FOLDER}/script </dev/null >{_FOLDER}/output 2>&1", limit + 10
        )
        seconds = time.monotonic() - begin
        output = self.get(f"{_FOLDER}/output").decode(errors="replace")
        return Ran(status, output, status == 128 + 9 and seconds >= limit, seconds)

    def put(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file in the guest (40 kB/s: meant for small ones; larger ones travel as disks)."""
        lines = base64.encodebytes(content).decode()
        where = shlex.quote(path)
        status, said = self._shell(f"base64 -d >{where} <<'END'\n{lines}END\nchmod {mode:o} {where}", 60)
        if status:
            raise MachineError(f"cannot write {len(content)} bytes to {path} in the guest", output=said)

    def get(self, path: str) -> bytes:
        """Return a file of the guest, at most its first 256 KiB."""
        status, text = self._shell(f"head -c {OUTPUT_LIMIT} {shlex.quote(path)} | base64", 60)
        if status or "head:" in text:
            raise MachineError(f"cannot read {path} in the guest", output=text)
        return base64.b64decode(text)

    def _shell(self, command: str, timeout_s: float = 20) -> tuple[int, str]:
        return self.vm.console.run(command, timeout_s)
