"""Boxes made by bubblewrap: where it may make namespaces and we may not (a profile of AppArmor names it, say).

The same box as the zygote's, by another's hands: each kernel is a new Python, half a second instead of a twentieth.
The home lies in the run directory and not in memory, so the keeper watches its size.

Source: bwrap(1), version 0.8.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import inside, seccomp
from .root import SECRET, SYSFS, SYSTEM, Plan

_INSIDE = "/run/inside.py"
_ETC = ("alternatives", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "services")
_START_S = 60

REPORT = "import json, os; print(json.dumps({'uid': os.getuid(), 'status': open('/proc/self/status').read()}))"


def kernel_command(**request: Any) -> list[str]:
    """Return what runs in the box to become a kernel; the request is that of `inside.main`."""
    return [sys.executable, _INSIDE, json.dumps(request)]


def command(
    plan: Plan, run_dir: str, environment: Mapping[str, str], argv: Sequence[str], fds: Mapping[str, int]
) -> list[str]:
    """Return the command line that runs `argv` in a box.

    Args:
        plan: what a box sees of the host.
        run_dir: shared with the judge; the home is in it.
        environment: of the program.
        argv: the program.
        fds: inherited descriptors, by option: "--seccomp", "--info-fd".
    """
    line = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--hostname", "box", "--cap-drop", "ALL"]
    line += ["--uid", "1000", "--gid", "1000", "--clearenv", "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for path in SYSTEM:
        if Path(path).is_symlink():
            line += ["--symlink", str(Path(path).readlink()), path]
        else:
            line += ["--ro-bind-try", path, path]
    for name in _ETC:
        line += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    line += ["--dir", "/run", "--tmpfs", "/tmp", "--dir", "/run/empty"]
    for path in SYSFS:
        line += ["--ro-bind-try", path, path]
    for path in plan.readable:
        line += ["--ro-bind", path, path]
    for name in SECRET:
        if Path(plan.course, name).is_dir():
            line += ["--tmpfs", f"{plan.course}/{name}", "--remount-ro", f"{plan.course}/{name}"]
    line += _guests(plan)
    line += ["--ro-bind", inside.__file__, _INSIDE, "--bind", run_dir, run_dir, "--remount-ro", "/"]
    for name, value in environment.items():
        line += ["--setenv", name, value]
    for option, fd in fds.items():
        line += [option, str(fd)]
    return [*line, "--", *argv]


def _guests(plan: Plan) -> list[str]:
    """Return the options for the cache: writable, with the entries of the host's, which cannot be moved away."""
    line = ["--tmpfs", plan.cache]
    kinds = set()
    for place, _ in plan.links() if Path(plan.cache).is_dir() else ():
        if (kind := str(Path(place).parent)) not in kinds:
            kinds.add(kind)
            line += ["--tmpfs", kind]
        line += ["--ro-bind", place, place]
    return line


def filter_fd() -> int:
    """Return an inheritable descriptor from which bubblewrap reads the filter of system calls."""
    fd = os.memfd_create("filter", 0)
    os.write(fd, seccomp.program())
    os.lseek(fd, 0, os.SEEK_SET)
    os.set_inheritable(fd, True)
    return fd


def child_pid(info: int) -> int:
    """Return the host pid of the first process in the box, as bubblewrap tells it; 0 when it ended before."""
    text = b""
    while select.select([info], [], [], _START_S)[0] and (part := os.read(info, 1 << 12)):
        text += part
        with contextlib.suppress(ValueError, KeyError):
            return int(json.loads(text)["child-pid"])
    return 0


def refusal(become_nobody: Callable[[], None] | None = None, uid: int = 0) -> str:
    """Return why bubblewrap cannot make a box here; empty when it can.

    Args:
        become_nobody: what a root grader's child does before it starts bubblewrap.
        uid: who it becomes then.
    """
    if shutil.which("bwrap") is None:
        return "bwrap is not on PATH"
    plan = Plan.here()
    folder = tempfile.mkdtemp(prefix="box-")
    fd = filter_fd()
    try:
        if uid:
            os.chown(folder, uid, uid)
        done = subprocess.run(
            command(plan, folder, plan.environment(), [sys.executable, "-c", REPORT], {"--seccomp": fd}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S,
            pass_fds=(fd,),
            preexec_fn=become_nobody,
            check=False,
        )
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return _wrong(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        os.close(fd)
        shutil.rmtree(folder, ignore_errors=True)


def _wrong(report: Mapping[str, str]) -> str:
    status = dict(line.split(":\t", 1) for line in report["status"].splitlines() if ":\t" in line)
    if not report["uid"]:
        return "the process inside would be root"
    return "" if not int(status["CapPrm"], 16) else f"the process inside would have capabilities: {status['CapPrm']}"
