"""A lab cluster that outlives the command that started it: ``course cluster up``.

Its rack runs in a session of its own. What is needed to find it again is in ``lab.json`` in the state directory: its
process, its runtime directory and its ports. Whether it really runs is asked of the rack itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..error import ClusterError, UsageError
from ..machine.process import alive
from . import realms
from .config import files
from .foundation import CA, establish
from .hardware import Hardware
from .lab import assert_linux, await_nodes, rack_command
from .settings import FIRST_PORT, NODES, PASSWORD, Settings
from .state import State

RECORD = "lab.json"
LOG = "rack.log"
DOWN_S = 40.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A cluster that runs.

    Attributes:
        state, run: its directories.
        address: where its nodes listen.
        ports: by node.
        pid: of its rack.
    """

    state: Path
    run: Path
    address: str
    ports: dict[str, int]
    pid: int

    @property
    def hardware(self) -> Hardware:
        """The rack."""
        return Hardware(self.run)

    @property
    def ca_path(self) -> Path:
        """The certificate of the cluster's authority."""
        return self.state / "pve" / CA

    def host_of(self, node: str) -> str:
        """Return a node's address as proxmoxer takes it."""
        bare = f"[{self.address}]" if ":" in self.address else self.address
        return f"{bare}:{self.ports[node]}"


def default_state() -> Path:
    """Return the state directory that is used unless another one is named."""
    named = os.environ.get("COURSE_CLUSTER_STATE")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(named) if named else Path(base) / "course" / "cluster"


def find(state: Path) -> Standing | None:
    """Return the cluster that runs on a state directory, or None; what a dead one left is removed."""
    try:
        record: dict[str, Any] = json.loads((state / RECORD).read_text())
    except (OSError, ValueError):
        return None
    found = Standing(state, Path(record["run"]), record["address"], record["ports"], record["pid"])
    try:
        found.hardware.status()
    except ClusterError:
        if Path(f"/proc/{found.pid}").exists() and "course.cluster.rack" in _command(found.pid):
            raise ClusterError(
                f"the lab cluster of {state} runs (process {found.pid}) but does not answer; "
                f"end it with: kill {found.pid}"
            ) from None
        _forget(found)
        return None
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _forget(found: Standing) -> None:
    """Remove what a cluster that is gone left."""
    (found.state / RECORD).unlink(missing_ok=True)
    shutil.rmtree(found.run, ignore_errors=True)


def up(state: Path, *, first_port: int = FIRST_PORT, settings: Settings | None = None) -> Standing:
    """Start a cluster that goes on running; returns when all nodes answer.

    Args:
        state: the state directory, made when it is missing.
        first_port: of the first node; the others have the next ones.
        settings: of the cluster.

    Raises:
        ClusterError: it runs already, a port is taken, or a node does not start.
        UsageError: it would listen for others with the example password.
    """
    assert_linux()
    chosen = settings or Settings()
    if found := find(state):
        raise ClusterError(
            f"a lab cluster runs already on {state}, at {found.host_of(NODES[0])}; "
            "see `course cluster status`, end it with `course cluster down`"
        )
    _assert_directory(state)
    files_of = establish(state, chosen)
    _assert_private(files_of, chosen)
    run = Path(tempfile.mkdtemp(prefix="lab-"))
    ports = [first_port + number for number in range(len(NODES))]
    try:
        return _start(state, run, chosen, ports)
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        (state / RECORD).unlink(missing_ok=True)
        raise


def _start(state: Path, run: Path, settings: Settings, ports: list[int]) -> Standing:
    log = state / LOG
    with log.open("wb") as output:
        rack = subprocess.Popen(
            rack_command(state, run, settings, ports, NODES),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": _python_path()},
        )
    hardware = Hardware(run)

    def died() -> str | None:
        return None if rack.poll() is None else log.read_text(errors="replace").strip() or "the rack ended"

    try:
        found = await_nodes(hardware, NODES, died)
    except BaseException:
        with contextlib.suppress(ClusterError):
            hardware.down()
        rack.kill()
        rack.wait()
        raise
    standing = Standing(state, run, settings.address, found, rack.pid)
    record = {"pid": rack.pid, "run": str(run), "address": settings.address, "ports": found, "since": int(time.time())}
    files.write(state / RECORD, json.dumps(record), mode=0o600)
    rack.returncode = 0  # it is nobody's child to wait for: it goes on when this process ends
    return standing


def _python_path() -> str:
    """Return where the rack finds this package: it runs in another directory."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


def _assert_directory(state: Path) -> None:
    """Refuse a directory that holds something else."""
    if state.exists() and not state.is_dir():
        raise UsageError(f"{state} is not a directory: name another one for the lab cluster's files")
    if state.is_dir() and any(state.iterdir()) and not (state / "pve").is_dir():
        raise UsageError(f"{state} holds something else than a lab cluster: name an empty directory or a new one")


def _assert_private(state: State, settings: Settings) -> None:
    """Refuse to listen for others with a password that everybody knows."""
    try:
        loopback = ipaddress.ip_address(settings.address).is_loopback
    except ValueError:
        loopback = settings.address == "localhost"
    if not loopback and realms.verify(state, "root@pam", PASSWORD):
        raise UsageError(
            f"the lab cluster would listen on {settings.address}, where others reach it, with the example password "
            "that everybody knows. Choose one first: COURSE_CLUSTER_PASSWORD=… course cluster up --address … "
            "(for a cluster that exists already, set it with PUT /access/password)"
        )


def down(state: Path, *, on_wait: Callable[[], object] = lambda: None) -> bool:
    """Shut a cluster down, its guests in order; say whether there was one.

    Raises:
        ClusterError: it does not end.
    """
    found = find(state)
    if found is None:
        return False
    found_command = _command(found.pid)
    with contextlib.suppress(ClusterError):
        found.hardware.down()
    end = time.monotonic() + DOWN_S
    while alive(found.pid) and _command(found.pid) in ("", found_command):
        on_wait()
        if time.monotonic() > end:
            raise ClusterError(f"the lab cluster's rack (process {found.pid}) did not end within {DOWN_S:.0f} s")
        time.sleep(0.02)
    _forget(found)
    return True


def reset(state: Path) -> None:
    """Shut a cluster down and delete all that it has: guests, disks, backups, users.

    Raises:
        UsageError: the directory is no lab cluster's.
    """
    down(state)
    if not state.exists():
        return
    if not (state / "pve" / "corosync.conf").is_file():
        raise UsageError(f"{state} is no lab cluster's state directory: nothing was deleted")
    shutil.rmtree(state)
