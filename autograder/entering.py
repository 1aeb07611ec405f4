"""How a judge gets to the place where a student's kernel is: same processes, same sockets, same files.

Checks hand answers the pids of processes and the paths of sockets and files that the judge has made; both sides have to
mean the same by them, and the student has to be allowed to use them. So the judge, a fork that has imported all that it
needs, steps into the box before it does anything:

    grader is root     all namespaces of the box, its root directory included, and the user that the student is there;
                       nothing of the host can be reached any more, by a test or by what a test runs for a student
    somebody else      the same, as the user that the box's user namespace makes of us
    no namespaces      nothing to enter: the judge is forked inside (see `sandbox.door`)

It takes over the box's filter of system calls, since checks run programs that answers are. What the student can do to
it is to kill it, which costs the student's own marks; it cannot be traced or read (it is not "dumpable").
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sandbox import Box

_KINDS = ("user", "mnt", "net", "ipc", "uts", "pid")
"""In this order: the right to enter the others may come from the first; the last holds for children only."""


def place(box: Box) -> tuple[dict[str, Any], list[int]]:
    """Say where a box is: plain data, and descriptors that go with it, which the caller closes."""
    found = {name: os.dup(fd) for name, fd in box.namespaces.items()}
    door = found.pop("door", None)
    if found and os.getuid() == 0 and "user" not in found:
        for kind in set(_KINDS) - {"user", *found}:
            with contextlib.suppress(OSError):
                found[kind] = os.open(f"/proc/{box.pid}/ns/{kind}", os.O_RDONLY)
    names = [kind for kind in _KINDS if kind in found]
    where = {
        "namespaces": names,
        "uid": box.uid if box.uid != os.getuid() else None,
        "level": str(box.level.level),
        "door": door is not None,
        "first": box.pid if "user" in found and "mnt" not in found else 0,
    }
    return where, [found[name] for name in names] if door is None else [door]


def enter(where: Mapping[str, Any], fds: list[int]) -> None:
    """Step to where `place` says. Returns in a process that may be a child of the caller's; the caller's waits then."""
    from .sandbox import linux, seccomp  # noqa: PLC0415 - only on Linux, only for boxes
    from .sandbox.root import Plan  # noqa: PLC0415

    environment = Plan.here().environment()
    if where["first"]:  # a user namespace that the student has made; only he and his like have all rights in it
        _become(where["uid"])
    for name, fd in zip(where["namespaces"], fds, strict=True):
        linux.setns(fd, 0)
        os.close(fd)
        if name == "user":
            linux.die_with_parent()
            if where["first"]:
                _enter_those_of(where["first"])
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if "pid" in where["namespaces"]:
        _go_on_as_child()
        os.environ.clear()
        os.environ.update(environment, PYTHONNOUSERSITE="1")  # the home, and what lies in it, is the student's
    if where["first"]:
        _follow_further()
    else:
        _become(where["uid"])
    linux.drop_capabilities()
    linux.no_new_privileges()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.die_with_parent()
    with contextlib.suppress(OSError):
        seccomp.install()


def _become(uid: int | None) -> None:
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _enter_those_of(pid: int) -> None:
    """Enter the other namespaces of a process that is in the user namespace just entered: only now may we open them."""
    from .sandbox import linux  # noqa: PLC0415

    kinds = [kind for kind in (*_KINDS, "cgroup", "time") if kind not in ("user", "pid")]
    theirs = {Path(f"/proc/{pid}/ns/{kind}"): Path(f"/proc/self/ns/{kind}") for kind in kinds}
    others = [path for path, own in theirs.items() if path.exists() and path.readlink() != own.readlink()]
    for fd in [os.open(path, os.O_RDONLY) for path in others]:
        linux.setns(fd, 0)
        os.close(fd)


def _follow_further() -> None:
    """Enter the user namespace that the student's processes are in: bubblewrap makes one inside its own.

    Who is in another may not look into our children, even as the same user; some exercises are about that.
    """
    from .sandbox import linux  # noqa: PLC0415

    ours = Path("/proc/self/ns/user").readlink()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/ns/user"
            if Path(path).readlink() != ours:
                fd = os.open(path, os.O_RDONLY)
                linux.setns(fd, 0)
                os.close(fd)
                return


def _go_on_as_child() -> None:
    """Become a child: only children are in a PID namespace that was entered. The parent ends when it does."""
    from .sandbox import linux  # noqa: PLC0415

    pid = os.fork()
    if pid == 0:
        linux.die_with_parent()
        return
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    os.killpg(0, signal.SIGKILL)
