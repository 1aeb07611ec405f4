"""The keeper of one container: a program of its own, ``python -m course.cluster.ct.box SPECIFICATION``.

::

    node process ──(socket pair: requests and file descriptors)── keeper ── PID 1 of the container ── its processes
                                                                    └──── what is executed in it later

The keeper makes the namespaces, builds the container's root from the directory that is its disk, starts PID 1, and
goes into that root itself; from then on its children are the container's processes. It has one thread, as unshare
demands. The kernel ends it with its node, and everything in a PID namespace with its PID 1: nothing of a container
outlives its node.

Requests are lines of JSON; a request that starts something carries the three file descriptors that it gets::

    {"id": 1, "do": "exec", "argv": ["/bin/sh"], "tty": true}          + stdin, stdout, stderr
    {"id": 1, "do": "kill"}                                            that program
    {"id": 2, "do": "signal", "number": 12}                            to PID 1
    ◄─ {"ready": true} · {"refused": "…"} · {"id": 1, "pid": 77} · {"id": 1, "exit": 0} · {"ended": 0}

Source: user_namespaces(7), pid_namespaces(7), pivot_root(2), pts(4).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...container import host
from . import veth

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LARGEST = 1 << 16
REFUSED = 125
INIT_FAILED = "cannot execute the first program"
_PR_SET_PDEATHSIG = 1
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x2, 0x1000
_MS_REMOUNT, _MNT_DETACH = 0x20, 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def tap(name: str) -> int:
    """Make a network interface whose frames this file gives and takes.

    Raises:
        OSError: the kernel refuses, or has no such device.
    """
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(handle)
        raise
    return handle


LINKS = {"tap": tap, "veth": veth.make}


def interface(name: str, links: Sequence[str]) -> int | None:
    """Make a network interface in whatever way works here; None where none does, and 127.0.0.1 is all there is."""
    for link in links:
        with contextlib.suppress(OSError):
            return LINKS[link](name)
    return None


def build_root(root: Path) -> None:
    """Make a directory the root of a file system with devices and terminals of its own; processes come later.

    Raises:
        OSError: the kernel refuses.
    """
    host.mount("none", "/", None, host.MS_REC | host.MS_PRIVATE)
    host.mount(str(root), str(root), None, host.MS_BIND | host.MS_REC)
    for name in ("dev", "proc", "tmp"):
        folder = root / name
        if folder.is_symlink() or not folder.exists():
            folder.unlink(missing_ok=True)
            folder.mkdir(mode=0o755)
    devices = root / "dev"
    host.mount("tmpfs", str(devices), "tmpfs", host.MS_NOSUID)
    for name in DEVICES:
        (devices / name).touch()
        host.mount(f"/dev/{name}", str(devices / name), None, host.MS_BIND)
    (devices / "pts").mkdir()
    (devices / "shm").mkdir(mode=0o1777)
    with contextlib.suppress(OSError):  # without it there are consoles, but no new terminals inside
        _mount_with(
            "devpts", str(devices / "pts"), "devpts", host.MS_NOSUID | host.MS_NOEXEC, "newinstance,ptmxmode=0666"
        )
        (devices / "ptmx").symlink_to("pts/ptmx")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (devices / name).symlink_to(f"/proc/self/fd/{number}")
    (devices / "fd").symlink_to("/proc/self/fd")


def _mount_with(source: str, target: str, kind: str, flags: int, options: str) -> None:
    result = host.libc().mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), ctypes.c_char_p(options.encode())
    )
    host.checked(result)


def enter_root(root: Path) -> None:
    """Leave the old root behind; for every process of this mount namespace.

    Raises:
        OSError: the kernel refuses.
    """
    os.chdir(root)
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        os.chroot(".")
    else:
        host.checked(host.libc().syscall(ctypes.c_long(number), b".", b"."))
        host.checked(host.libc().umount2(b".", ctypes.c_int(_MNT_DETACH)))
    os.chdir("/")


def terminal_size(handle: int, rows: int, columns: int) -> None:
    """Tell a terminal its size."""
    fcntl.ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Keeper:
    """The keeper's loop.

    Args:
        channel: to the node.
        specification: ``root``, ``hostname``, ``init`` (argv), ``nets`` (names of interfaces), ``links`` (ways
            to make them), ``environment``.
        console: the terminal of PID 1.
    """

    def __init__(self, channel: socket.socket, specification: dict[str, Any], console: int) -> None:
        self.channel = channel
        self.specification = specification
        self.console = console
        self.init = 0
        self._requests: dict[int, int] = {}
        self._waking, self._woken = socket.socketpair()

    def tell(self, **words: Any) -> None:
        """Say something to the node."""
        with contextlib.suppress(OSError):
            self.channel.send(json.dumps(words).encode())

    def make(self) -> None:
        """Make the container and start its PID 1.

        Raises:
            OSError: the kernel refuses.
        """
        host.enter_namespaces()
        socket.sethostname(self.specification["hostname"])
        host.loopback_up()
        taps = {}
        for name in self.specification["nets"]:
            handle = interface(name, self.specification.get("links", tuple(LINKS)))
            if handle is not None:
                taps[name] = handle
        root = Path(self.specification["root"])
        build_root(root)
        for end in (self._waking, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        reading, writing = os.pipe()
        self.init = os.fork()
        if self.init == 0:
            os.close(reading)
            self._become_init(root, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            words = pipe.read().decode(errors="replace")
        if words:
            raise ChildProcessError(words) if words.startswith(INIT_FAILED) else OSError(words)
        os.close(self.console)
        for name, handle in taps.items():
            self._hand_over({"tap": name}, handle)
            os.close(handle)
        self.tell(ready=True, pid=self.init)

    def _hand_over(self, words: dict[str, Any], handle: int) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
        self.channel.sendmsg([json.dumps(words).encode()], ancillary)

    def _become_init(self, root: Path, pipe: int) -> None:
        """Be the container's first process; what goes wrong is said on the pipe, which a success closes."""
        try:
            host.checked(host.libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
            host.mount("proc", str(root / "proc"), "proc", host.MS_NOSUID | host.MS_NODEV | host.MS_NOEXEC)
            enter_root(root)
            self._take_terminal((self.console,) * 3, tty=True)
            try:
                self._execute(self.specification["init"])
            except OSError as error:
                os.write(pipe, f"{INIT_FAILED}: {error.strerror}: {self.specification['init'][0]}".encode())
        except OSError as error:
            os.write(pipe, str(error).encode())
        finally:
            os._exit(127)

    def _take_terminal(self, handles: tuple[int, ...], *, tty: bool) -> None:
        os.setsid()
        if tty:
            fcntl.ioctl(handles[0], termios.TIOCSCTTY, 0)
        for number, handle in enumerate(handles):
            os.dup2(handle, number)

    def _execute(self, argv: list[str]) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        environment = {"PATH": PATH, "HOME": "/root", "TERM": "linux", "container": "lxc"}
        os.execvpe(argv[0], argv, {**environment, **self.specification.get("environment", {})})  # noqa: S606

    # Requests

    def loop(self) -> int:
        """Serve until PID 1 has ended or the node hangs up; return how PID 1 ended."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(self._waking, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._waking.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self._waking.recv(4096)
                elif not self._serve():
                    return 0
            status = self._reap()
            if status is not None:
                self.tell(ended=status)
                return status

    def _reap(self) -> int | None:
        """Bury what has ended; return PID 1's status when it was among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            if pid == self.init:
                return code
            if pid in self._requests:
                self.tell(id=self._requests.pop(pid), exit=code)

    def _serve(self) -> bool:
        """Do what is asked; return whether the node is still there."""
        message, ancillary, _, _ = self.channel.recvmsg(LARGEST, socket.CMSG_SPACE(3 * 4))
        handles = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                handles.frombytes(content[: len(content) - len(content) % handles.itemsize])
        if not message:
            return False
        asked = json.loads(message)
        if asked["do"] == "signal":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, asked["number"])
        elif asked["do"] == "kill":
            for pid in [pid for pid, number in self._requests.items() if number == asked["id"]]:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        elif asked["do"] == "exec" and len(handles) == 3:
            self._start(asked, tuple(handles))
        for handle in handles:
            os.close(handle)
        return True

    def _start(self, asked: dict[str, Any], handles: tuple[int, ...]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(id=asked["id"], exit=126, why=str(error))
            return
        if pid == 0:
            try:
                self._take_terminal(handles, tty=bool(asked.get("tty")))
                os.chdir("/root" if os.path.isdir("/root") else "/")  # noqa: PTH112 - pathlib may load more
                self._execute(asked["argv"])
            except OSError as error:
                os.write(2, f"{asked['argv'][0]}: {error.strerror}\n".encode())
            finally:
                os._exit(127)
        self._requests[pid] = asked["id"]
        self.tell(id=asked["id"], pid=pid)


def main(specification: str) -> int:
    """Be a keeper.

    Args:
        specification: JSON, see `Keeper`; with ``channel`` and ``console``, the numbers of inherited files.
    """
    asked = json.loads(specification)
    keeper = Keeper(socket.socket(fileno=asked["channel"]), asked, asked["console"])
    os.set_inheritable(asked["channel"], False)
    os.set_inheritable(asked["console"], False)
    try:
        keeper.make()
    except OSError as error:
        keeper.tell(refused=str(error))
        return 1 if isinstance(error, ChildProcessError) else REFUSED
    keeper.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
