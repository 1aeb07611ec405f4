"""Which level this machine allows: tried, not guessed.

A child process (``python -m autograder.sandbox.probing``) forks once per way of making a box, goes through all its
steps but the kernel, and looks at what it has become. The first way that works is the level; what was refused before
it, and what it leaves open, are the reasons.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from .level import Isolation, Level, Limits

_TIMEOUT_S = 60
_TRIAL_S = 30
_NOBODY = 61_199


def probe() -> Level:
    """Return how well students' kernels can be shut in here. Never raises; asks once per process and user."""
    return _probe(os.geteuid())


@functools.lru_cache(maxsize=1)
def _probe(_user: int) -> Level:
    if not sys.platform.startswith("linux"):
        return Level(Isolation.NONE, (f"{sys.platform} is not Linux",))
    try:
        with _begun.pop(os.getpid(), None) or _ask() as asked:
            try:
                said, complaints = asked.communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                asked.kill()
                raise
        if asked.returncode:
            raise subprocess.CalledProcessError(asked.returncode, asked.args, said, complaints)
        found = json.loads(said)
        return Level(Isolation(found["level"]), tuple(found["reasons"]), found["userns"])
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        why = f"{type(error).__name__}: {error}"
    return Level(Isolation.NONE, (f"the probe failed: {why}",))


_begun: dict[int, subprocess.Popen[str]] = {}


def begin() -> None:
    """Start what `probe` will wait for; for those who have something else to do until then."""
    if sys.platform.startswith("linux") and not _probe.cache_info().currsize:
        with contextlib.suppress(OSError):
            _begun.setdefault(os.getpid(), _ask())


def _ask() -> subprocess.Popen[str]:
    checkout = str(Path(__file__).resolve().parents[2])
    places = os.pathsep.join(filter(None, (checkout, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        env={**os.environ, "PYTHONPATH": places, "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def measure() -> Level:
    """Try all ways in this process's forks, the best first."""
    refused: list[str] = []
    for level in candidates():
        why = attempt(level)
        if not why:
            return dataclasses.replace(level, reasons=(*refused, *level.reasons))
        refused.append(f"{_name(level)} refused: {why}")
    return Level(Isolation.NONE, tuple(refused))


def candidates() -> list[Level]:
    """Return the ways to try, in order of preference."""
    from . import landlock  # noqa: PLC0415 - Linux only

    root = os.getuid() == 0
    ways = [Level(Isolation.NAMESPACES)] if root else []
    ways.append(Level(Isolation.NAMESPACES, userns=True))
    ways.append(Level(Isolation.BUBBLEWRAP))
    ways.append(Level(Isolation.LANDLOCK, _left_open(landlock.abi(), root)))
    return ways


def _name(level: Level) -> str:
    return f"{level.level}{' (in a user namespace)' if level.userns else ''}"


def _left_open(abi: int, root: bool) -> tuple[str, ...]:
    """Say what Landlock does not shut."""
    gaps = ["processes and Unix sockets of the host can be seen", "the loopback network does not work inside"]
    gaps.append("guests of the cache, which checks boot too, can be swapped for others")
    if abi < 6 and not root:
        gaps.append(f"Landlock's ABI {abi} lets a student's process send signals to the grader")
    if root and (folder := closed(sys.base_prefix)):
        gaps.append(
            f"{folder} lets nobody through to Python: answers cannot start it, nor import what is not yet there"
        )
    return tuple(f"landlock: {gap}" for gap in gaps)


def closed(path: str | Path) -> Path | None:
    """Return the outermost folder above a path, or the path, that lets only its owner through; None for none."""
    below = Path(path).absolute()
    return next((one for one in (*reversed(below.parents), below) if not one.stat().st_mode & 0o001), None)


def attempt(level: Level) -> str:
    """Try one way; return why it does not work, or an empty string."""
    if level.level is Isolation.BUBBLEWRAP:
        return _attempt_bubblewrap()
    folder = tempfile.mkdtemp(prefix="box-")
    try:
        for name in ("root", "work", "run"):
            Path(folder, name).mkdir()
        return _attempt(level, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _attempt_bubblewrap() -> str:
    from . import bubblewrap  # noqa: PLC0415 - rarely needed

    if os.getuid() != 0:
        return bubblewrap.refusal()
    if folder := closed(sys.base_prefix) or closed(sys.prefix):
        return f"{folder} lets nobody but root through to Python, and no kernel may be root"

    def become_nobody() -> None:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)

    return bubblewrap.refusal(become_nobody, _NOBODY)


def _attempt(level: Level, folder: str) -> str:
    from . import keeper, linux  # noqa: PLC0415 - Linux only
    from .root import Plan  # noqa: PLC0415

    uid = _NOBODY if os.getuid() == 0 else 0
    if uid:
        os.chown(f"{folder}/run", uid, uid)
        Path(folder).chmod(0o755)
    places = (f"{folder}/root", f"{folder}/work", f"{folder}/run", f"{folder}/run/none")
    order = keeper.Order(level.level, level.userns, *places, uid=uid, forwards={}, limits=Limits())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                linux.die_with_parent()
                keeper.rehearse(order, theirs, Plan.here())
        ready = select.select([ours], [], [], _TRIAL_S)[0]
        said = ours.recv(1 << 16) if ready else f"nothing happened for {_TRIAL_S} s".encode()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return "" if said == keeper.REHEARSED else said.decode(errors="replace") or "it died without a word"


if __name__ == "__main__":
    found = measure()
    sys.stdout.write(json.dumps({"level": found.level, "reasons": found.reasons, "userns": found.userns}))
