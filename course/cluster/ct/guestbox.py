"""A running container where namespaces are refused: the same, in a small Linux guest of its own.

The guest is a clone of the course's booted Linux (a few tenths of a second). The container's disk goes in as an
archive on the guest's first disk, and comes back as one on the second when the container ends or is copied: what a
container wrote since then is lost with its node, as it is on a machine whose disk cache was.

In the guest the container is a tree of processes in namespaces again, so that what runs in it sees the same.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...container.laboratory import Laboratory, Ran
from ...error import ClusterError, MachineError
from . import tree
from .boxed import power_off_signal

LOOK_S = 1.0
ROOM = 48 << 20
"""Bytes that a container may add to its disk, over twice what it has."""

_SIGNALLED = 128
_START = r"""
set -e
mkdir -p /ct
mount -t tmpfs -o size=80% ct /ct
tar xf /dev/vda -C /ct
mkdir -p /ct/proc /ct/dev /ct/tmp
cat >/lab/begin <<'END'
hostname {name}
ip link set lo up
mount -t proc proc /ct/proc
mount -t devtmpfs dev /ct/dev
exec chroot /ct /sbin/init
END
mkfifo /lab/input
exec 3<>/lab/input
(set +e; setsid unshare -m -u -i -n -p -f sh /lab/begin <&3 >/lab/console 2>&1; echo $? >/lab/ended) >/dev/null 2>&1 &
n=0
until [ -s /lab/init ] || [ -e /lab/ended ] || [ $n -gt 200 ]; do
  for p in /proc/[0-9]*; do
    [ "$(readlink $p/root)" = /ct ] && [ "$(cat $p/comm)" = init ] && echo ${{p#/proc/}} >/lab/init && break
  done
  n=$((n + 1)); usleep 20000
done
cat /lab/init
"""


class GuestBox:
    """A running container in a guest of its own.

    Args:
        vmid: its number; the guest's name holds it, so that it stands on QEMU's command line.
        root: the directory that is its disk.
        hostname: its name.
        on_end: is called with PID 1's status once the guest is gone, before `ended` is set.

    Raises:
        ClusterError: the container did not start.
    """

    kind = "guest"

    def __init__(
        self, vmid: int, root: Path, *, hostname: str, on_end: Callable[[int], object] = lambda status: None
    ) -> None:
        self.vmid, self.root = vmid, root
        self.started = time.time()
        self.taps: dict[str, int] = {}
        self.ended = threading.Event()
        self.status: int | None = None
        self._on_end = on_end
        self._turn = threading.RLock()
        self._folder = Path(tempfile.mkdtemp(prefix=f"ct-{vmid}-"))
        try:
            self._lab = Laboratory(f"ct{vmid}", disks=[self._archive(), self._empty()])
            self._lab.__enter__()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        try:
            begun = self._lab.run(_START.format(name=shlex.quote(hostname)), timeout_s=60)
            self._init = int(begun.output.split()[-1])
        except (MachineError, ValueError, IndexError) as error:
            self._close()
            raise ClusterError(f"unable to start container {vmid}: {error}") from error
        threading.Thread(target=self._watch, name=f"ct-{vmid}", daemon=True).start()

    def _archive(self) -> Path:
        path = self._folder / "disk.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(self.root, arcname=".", filter=_as_root)
        os.truncate(path, -(-path.stat().st_size // 4096) * 4096)
        return path

    def _empty(self) -> Path:
        path = self._folder / "back.tar"
        with path.open("wb") as file:
            file.truncate((2 * (self._folder / "disk.tar").stat().st_size + ROOM) // 4096 * 4096)
        return path

    @property
    def pid(self) -> int:
        """The QEMU process."""
        return int(self._lab.vm.pid or 0)

    def _run(self, script: str, timeout_s: float = 30) -> Ran:
        with self._turn:
            if self.status is not None:
                raise ClusterError(f"CT {self.vmid} not running")
            try:
                return self._lab.run(script, timeout_s=timeout_s)
            except MachineError as error:
                raise ClusterError(f"CT {self.vmid} does not answer") from error

    def exec(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> tuple[int, bytes]:
        """Run a program in the container; return its exit status and output.

        Raises:
            ClusterError: it does not run, or takes too long.
        """
        with self._turn:
            if self.status is not None:
                raise ClusterError(f"CT {self.vmid} not running")
            self._lab.put("/lab/stdin", stdin)
            inside = f"nsenter -t {self._init} -m -u -i -n -p chroot /ct {shlex.join(argv)}"
            ran = self._run(f"export HOME=/root; {inside} </lab/stdin", timeout_s)
        if ran.timed_out:
            raise ClusterError(f"command '{' '.join(argv)}' in CT {self.vmid} - got timeout")
        return ran.exitcode, ran.output.encode()

    def ask_to_end(self) -> None:
        """Ask PID 1 to shut the container down."""
        self._run(f"kill -{int(power_off_signal(self.root))} {self._init}")

    def kill(self) -> None:
        """End everything in it at once; its disk is kept."""
        with self._turn:
            if not self.ended.is_set():
                self._finish(-signal.SIGKILL)

    def processes(self) -> list[int]:
        """Return the QEMU process."""
        return [self.pid] if not self.ended.is_set() and self.pid else []

    def freeze(self, frozen: bool) -> None:
        """Stop the container's processes, or let them go on; a frozen one's disk is brought up to date."""
        with self._turn:
            if frozen:
                self._bring_back()
            os.kill(self.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def _watch(self) -> None:
        while not self.ended.wait(LOOK_S):
            with self._turn:
                if self.ended.is_set():
                    return
                try:
                    said = self._lab.run("cat /lab/ended 2>/dev/null").output.strip()
                except MachineError:
                    self._finish(-signal.SIGKILL, bring_back=False)
                    return
                if said:
                    code = int(said)
                    self._finish(_SIGNALLED - code if code > _SIGNALLED else code)

    def _finish(self, status: int, *, bring_back: bool = True) -> None:
        if bring_back:
            with contextlib.suppress(MachineError, ClusterError, OSError):
                self._bring_back()
        self.status = status
        self._close()
        self._on_end(status)
        self.ended.set()

    def _bring_back(self) -> None:
        """Replace the container's directory by what the guest has."""
        script = "cd /ct && tar cf /dev/vdb $(ls -A | grep -vx -e proc -e dev) && sync"
        done = self._lab.run(script, timeout_s=60)
        if done.exitcode:
            raise ClusterError(f"CT {self.vmid}: cannot write its disk: {done.output.strip()}")
        with tempfile.TemporaryDirectory(dir=self._folder) as fresh:
            tree.unpack(self._folder / "back.tar", Path(fresh))
            for path in self.root.iterdir():
                tree.remove(path)
            for path in Path(fresh).iterdir():
                shutil.move(path, self.root / path.name)

    def _close(self) -> None:
        self._lab.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
