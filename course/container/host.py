"""A container on this machine, by system calls alone. It needs user namespaces, which some systems refuse.

::

    unshare(user, mount, pid, uts, ipc, net)     new namespaces; this process becomes nobody in them …
    /proc/self/{setgroups, uid_map, gid_map}     … until it says that root inside is the user outside
    fork                                         the child is the first process of the new PID namespace
      mount private, mount proc                  its own view of processes
      sethostname, lo up                         its own name and network
      execvp                                     the program

It runs in a fresh Python process (``python -m course.container.host NAME PROGRAM …``): unshare refuses a process that
has several threads, as a notebook has.

Source: user_namespaces(7), pid_namespaces(7), mount_namespaces(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

from ..error import CapabilityError

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
ALL = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_PR_SET_PDEATHSIG = 1
_REFUSED = 125


def run(argv: Sequence[str], *, hostname: str = "box", timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a program in a container on this machine and wait for its end.

    Args:
        argv: the program and its arguments.
        hostname: the container's name.
        timeout_s: seconds until it is killed.

    Returns:
        Its exit status and what it wrote.

    Raises:
        CapabilityError: this system refuses user namespaces.
    """
    command = [sys.executable, "-m", __name__, hostname, *argv]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except OSError as error:
        remedy = "Use the guest: there you are root."
        raise CapabilityError("a container on this machine", f"{command[0]}: {error}", remedy) from error
    if done.returncode == _REFUSED and done.stderr.startswith("refused: "):
        remedy = "Use the guest: there you are root."
        raise CapabilityError("a container on this machine", done.stderr.removeprefix("refused: ").strip(), remedy)
    return done


def available() -> bool:
    """Tell whether this system lets an ordinary process make a container."""
    try:
        return run(["true"]).returncode == 0
    except (CapabilityError, subprocess.TimeoutExpired):
        return False


def libc() -> ctypes.CDLL:
    """Return the C library, with its errno."""
    return ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    """Raise the error that a system call left.

    Raises:
        OSError: its result is not 0.
    """
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """Mount a file system, or change a mount.

    Raises:
        OSError: the kernel refuses.
    """
    encoded = kind.encode() if kind else None
    checked(libc().mount(source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), None))


def enter_namespaces() -> None:
    """Move this process into new namespaces of all kinds, as their root."""
    uid, gid = os.getuid(), os.getgid()
    checked(libc().unshare(ALL))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - one write, as the kernel wants it
            file.write(text)


def _become(hostname: str, argv: Sequence[str]) -> None:
    checked(libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    socket.sethostname(hostname)
    loopback_up()
    os.execvp(argv[0], list(argv))  # noqa: S606 - the program that was asked for


def loopback_up() -> None:
    """Switch this namespace's 127.0.0.1 on."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING))


def main(hostname: str, argv: Sequence[str]) -> int:
    """Make the container and return the exit status of its first process."""
    try:
        enter_namespaces()
        pid = os.fork()
        if pid == 0:
            _become(hostname, argv)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except OSError as error:
        sys.stderr.write(f"refused: {error}\n")
        os._exit(_REFUSED)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
