"""Run the experiments, each in a child of its own, and remember the result.

The children start together and share one deadline. A child is a fresh interpreter, not a fork: a notebook's kernel
has threads, and a namespace can be entered only by a process that has none. It leads a session, so that one signal
ends it with everything it started (QEMU, guests). A child that hangs, dies or talks nonsense gives an observation
like any other: `probe` never raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report import Observation, Report, State

TIME_LIMIT_S = 8.0
EXPERIMENTS = {  # name -> tier
    "python": "T0",
    "qemu": "T1",
    "svm": "T1",
    "unicorn": "T1",
    "ptrace": "T2",
    "namespaces": "T2",
    "kvm": "T3",
    "root": "T4",
    "proxmox": "T5",
}
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def probe(*, force: bool = False, time_limit_s: float = TIME_LIMIT_S) -> Report:
    """Find out what this machine can do; about a second the first time, then a file is read. Never raises.

    Args:
        force: look again, even when nothing seems to have changed.
        time_limit_s: for all experiments together, in seconds; what has not answered by then counts as no.
    """
    key = _circumstances()
    if not force and (report := _recall(key)) is not None:
        return report
    report = Report.from_observations(_run_all(time_limit_s))
    _remember(key, report)
    return report


def _run_all(time_limit_s: float) -> list[Observation]:
    deadline = time.monotonic() + time_limit_s
    children: dict[str, subprocess.Popen[str] | OSError] = {name: _start(name) for name in EXPERIMENTS}
    return [_observe(name, child, deadline, time_limit_s) for name, child in children.items()]


def _start(name: str) -> subprocess.Popen[str] | OSError:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "PYTHONWARNINGS": "ignore"}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.experiments", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return error


def _observe(name: str, child: subprocess.Popen[str] | OSError, deadline: float, time_limit_s: float) -> Observation:
    """Collect what a child found; whatever became of it."""
    if isinstance(child, OSError):
        return _failed(name, f"the experiment could not be started ({child})")
    try:
        output, complaint = child.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end(child)
        return _failed(name, f"no answer within {time_limit_s:g} s")
    finally:
        _end(child)
    try:
        return Observation.from_dict({**json.loads(output), "name": name, "tier": EXPERIMENTS[name]})
    except (ValueError, TypeError, KeyError):
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        return _failed(name, f"the experiment ended with status {child.returncode}: {last}")


def _end(child: subprocess.Popen[str]) -> None:
    """End a child and what it started; closing the pipes is what `communicate` did or does here."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _failed(name: str, observed: str) -> Observation:
    facts = {"level": "broken"} if name == "kvm" else {}
    remedy = "Run `course probe --force` to look again when the machine is less busy."
    return Observation(name, EXPERIMENTS[name], State.NO, observed, remedy, facts)


# What is remembered, and for how long


def _circumstances() -> str:
    """Name everything that the result depends on: other circumstances, other answers."""
    facts: dict[str, Any] = {
        "code": [(path.name, path.stat().st_mtime_ns) for path in sorted(Path(__file__).parent.glob("*.py"))],
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "user": [os.getuid(), os.getgid(), os.getgroups()],
        "privileges": [line for line in _read("/proc/self/status").splitlines() if line.startswith(PRIVILEGES)],
        "namespaces": [_link(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "user")],
        "devices": [_identity(path) for path in ("/dev/kvm", "/dev/net/tun")],
        "qemu": _identity(shutil.which("qemu-system-x86_64") or ""),
        "python": [sys.executable, sys.version],
        "proxmox": _digest(os.environ.get("LAB_PVE_HOST", "")),
    }
    return _digest(json.dumps(facts, sort_keys=True))


PRIVILEGES = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp:")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _identity(path: str) -> list[int]:
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns]


# No home, no permission, no space, damaged: the probe does without its memory.
NOT_KEPT = (OSError, RuntimeError, ImportError, ValueError, TypeError, KeyError)


def cache_path() -> Path:
    """Return the file that holds the last result."""
    from ..guest.cache import cache_dir  # noqa: PLC0415 - the children that experiment need no guests

    return cache_dir() / "capability.json"


def _recall(key: str) -> Report | None:
    try:
        kept: Mapping[str, Any] = json.loads(cache_path().read_text())
        return Report.from_dict(kept["report"]) if kept["circumstances"] == key else None
    except NOT_KEPT:
        return None


def _remember(key: str, report: Report) -> None:
    """Keep the result for the next call; a cache that cannot be written is no reason to fail."""
    with contextlib.suppress(*NOT_KEPT):
        path = cache_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".capability-", delete=False) as file:
            json.dump({"circumstances": key, "report": report.as_dict()}, file)
        Path(file.name).replace(path)
