"""The check's side of the lab cluster: guests made for one step, answers asked with a transcript, tasks followed.

A guest that counts (`guest.bootcounter`) tells one life from another: its RAM holds the count and a number that each
boot draws anew.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..answer import Call
from ..compare import shorten
from ..exercise import Trial
from ..outside import Outside, kept
from .laboratory import ISO, NODES, laboratory

MEMORY_MIB = 32
_QUIET_S = 30.0
"""A task that an answer has left behind may take so long; then it is stopped."""
_vmids = itertools.count(1000)
_authority: dict[tuple[int, str], Path] = {}


class CheckError(Exception):
    """The lab did not do what the check itself asked for: no fault of the answer."""


@dataclasses.dataclass
class Lab:
    """The lab cluster, as the check sees it."""

    outside: Outside

    @property
    def access(self) -> dict[str, Any]:
        """What an answer gets: ``ProxmoxAPI(**access)``."""
        host, port = self.outside.addresses[0]
        return {
            "host": host,
            "port": port,
            "user": "root@pam",
            "token_name": "lesson",
            "token_value": self.outside.told["token"],
            "verify_ssl": str(_authority_file(self.outside.told["authority"])),
            "timeout": 60,
        }

    def call(self, method: str, path: str, **values: Any) -> dict[str, Any]:
        """One request as root: ``{"data": …}`` or ``{"status": …, "words": …}``."""
        told: dict[str, Any] = self.outside.ask("call", method, path, values)
        return told

    def get(self, path: str, **values: Any) -> Any:
        """Read something as root.

        Raises:
            CheckError: the cluster refuses.
        """
        return self._data(self.call("GET", path, **values), path)

    def do(self, method: str, path: str, **values: Any) -> Any:
        """Change something as root; a task is waited for and has to end well.

        Raises:
            CheckError: the cluster refuses, or the task fails.
        """
        told = self.outside.ask("run", method, path, values)
        if told.get("exitstatus", "OK") != "OK" and not told["exitstatus"].startswith("WARNINGS"):
            raise CheckError(f"{method} {path}: {told['exitstatus']}; its log: {told['log']}")
        return self._data(told, path)

    @staticmethod
    def _data(told: dict[str, Any], path: str) -> Any:
        if "data" not in told:
            raise CheckError(f"{path}: {told['status']} {told['words']}")
        return told["data"]

    # ─── guests ──────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def guest(self, node: str, *, running: bool = True, counting: bool = True, **config: Any) -> Iterator[int]:
        """Make a guest for the time of a ``with`` block; yields its VMID."""
        vmid = self.free_vmid()
        try:
            self.create(node, vmid, counting=counting, **config)
            if running:
                self.start(node, vmid, counting=counting)
            yield vmid
        finally:
            self.remove(vmid)

    def free_vmid(self) -> int:
        """Return a VMID that no guest has."""
        taken = {found["vmid"] for found in self.guests()}
        return next(vmid for vmid in _vmids if vmid not in taken)

    def create(self, node: str, vmid: int, *, counting: bool = True, **config: Any) -> None:
        """Make a guest: small, with the CD that counts."""
        drive = {"ide2": f"{ISO},media=cdrom"} if counting else {}
        self.do("POST", f"nodes/{node}/qemu", vmid=vmid, memory=MEMORY_MIB, serial0="socket", **{**drive, **config})

    def start(self, node: str, vmid: int, *, counting: bool = True) -> None:
        """Start a guest and wait until it counts."""
        self.do("POST", f"nodes/{node}/qemu/{vmid}/status/start")
        if counting:
            self.counts_on(node, vmid)

    def remove(self, vmid: int) -> None:
        """Stop and destroy a guest, wherever it is; one that is gone already is none of our business."""
        for found in self.guests():
            if found["vmid"] == vmid:
                path = f"nodes/{found['node']}/qemu/{vmid}"
                with contextlib.suppress(CheckError):
                    self.do("POST", f"{path}/status/stop")
                with contextlib.suppress(CheckError):
                    self.do("DELETE", path, purge=1)

    def guests(self) -> list[dict[str, Any]]:
        """All virtual machines of the cluster."""
        return [{**found, "vmid": int(found["vmid"])} for found in self.get("cluster/resources", type="vm")]

    def place(self, vmid: int) -> str:
        """Return the node that has a guest's configuration; empty when there is no such guest."""
        return next((str(found["node"]) for found in self.guests() if found["vmid"] == vmid), "")

    def config(self, node: str, vmid: int) -> dict[str, Any]:
        """A guest's configuration; empty when there is no such guest there."""
        told = self.call("GET", f"nodes/{node}/qemu/{vmid}/config")
        return dict(told.get("data") or {})

    def status(self, node: str, vmid: int) -> dict[str, Any]:
        """What the node says of a guest; empty when there is no such guest there."""
        told = self.call("GET", f"nodes/{node}/qemu/{vmid}/status/current")
        return dict(told.get("data") or {})

    def processes(self, vmid: int) -> list[dict[str, Any]]:
        """QEMU processes of a guest, wherever they run."""
        found: list[dict[str, Any]] = self.outside.ask("processes", vmid)
        return found

    def memory(self, node: str, vmid: int) -> tuple[int, int]:
        """What a guest has counted to, and the number of its life."""
        count, life = self.outside.ask("memory", node, vmid)
        return count, life

    def counts_on(self, node: str, vmid: int, steps: int = 2, timeout_s: float = 60) -> tuple[int, int]:
        """Wait until a guest has counted on by so many steps; returns the count and the life.

        Raises:
            CheckError: when it does not.
        """
        first, end = None, time.monotonic() + timeout_s
        while time.monotonic() < end:
            count, life = self.memory(node, vmid)
            if count and life:
                first = count if first is None or count < first else first
                if count >= first + steps:
                    return count, life
            time.sleep(0.02)
        raise CheckError(f"guest {vmid} on {node} does not count")

    # ─── answers ─────────────────────────────────────────────────────────────

    def ask(self, trial: Trial, *args: Any, deadline_s: float | None = None) -> tuple[Call, Transcript]:
        """Call the answer with `access` and these arguments; returns its outcome and what it asked the cluster."""
        self.outside.ask("listen")
        done = trial.attempt(self.access, *args, deadline_s=deadline_s)
        return done, Transcript(self.outside.ask("heard"))

    def finish(self, transcript: Transcript) -> None:
        """Wait until the tasks that an answer has begun have ended, so that the next step finds a quiet cluster."""
        for upid in transcript.tasks:
            path, end = f"nodes/{upid.split(':')[1]}/tasks/{upid}", time.monotonic() + _QUIET_S
            while (self.call("GET", f"{path}/status").get("data") or {}).get("status") == "running":
                if time.monotonic() > end:
                    self.call("DELETE", path)
                    end += _QUIET_S
                time.sleep(0.02)


class Transcript:
    """What an answer asked and was told, in order."""

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        self.entries = list(entries)

    @property
    def changes(self) -> list[dict[str, Any]]:
        """All requests but readings and logins."""
        return [e for e in self.entries if e["method"] != "GET" and not e["path"].startswith("access/")]

    @property
    def tasks(self) -> list[str]:
        """UPIDs of the tasks that were begun."""
        return [str(e["data"]) for e in self.changes if str(e["data"]).startswith("UPID:")]

    @property
    def told(self) -> str:
        """The changes asked for, for a message."""
        return ", ".join(f"{e['method']} {e['path']}" for e in self.changes) or "nothing but questions"

    @property
    def refused(self) -> list[str]:
        """The cluster's words for what it refused."""
        return [f"{e['status']} {e['words']}" for e in self.entries if e["status"] >= 400]

    def find(self, method: str, end: str) -> list[dict[str, Any]]:
        """The requests of a method whose path ends so."""
        return [e for e in self.entries if e["method"] == method and e["path"].rstrip("/").endswith(end)]

    def unfinished(self, upto: int | None = None) -> str:
        """Return the first task that was begun and whose end the answer has not been told of; empty when there is none.

        Args:
            upto: look at so many entries only.
        """
        entries = self.entries[:upto]
        for at, entry in enumerate(entries):
            upid = str(entry["data"])
            if entry["method"] == "GET" or not upid.startswith("UPID:"):
                continue
            if not any(_tells_end(later, upid) for later in entries[at + 1 :]):
                return upid
        return ""

    def last_word(self, upid: str) -> str:
        """The last that the answer was told of a task's state."""
        words = [
            str(e["data"].get("status"))
            for e in self.entries
            if isinstance(e["data"], dict) and e["path"].endswith("/status") and upid in _plain(e["path"])
        ]
        return f"the last that the cluster told it was {words[-1]!r}" if words else "it never asked how the task ended"


def _plain(path: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415

    return unquote(path)


def _tells_end(entry: dict[str, Any], upid: str) -> bool:
    data, path = entry["data"], _plain(entry["path"])
    if isinstance(data, dict):
        return upid in path and data.get("status") == "stopped"
    if isinstance(data, list):
        if upid in path:
            return any(str(line.get("t", "")).startswith("TASK ") for line in data if isinstance(line, dict))
        ended = (e for e in data if isinstance(e, dict) and e.get("upid") == upid)
        return any(e.get("endtime") or e.get("status") not in (None, "", "running") for e in ended)
    return False


def lab() -> Lab:
    """Return the lab of this process, started if need be."""
    return Lab(kept(laboratory))


def asked(name: str, *args: Any) -> str:
    """The call as a student shall read it: without the token."""
    return f"{name}({', '.join(['access', *(shorten(a) for a in args)])})"


def require_waited(trial: Trial, transcript: Transcript, name: str) -> None:
    """Every task that the answer began had ended, and it knew."""
    if upid := transcript.unfinished():
        kind = upid.split(":")[5]
        trial.wrong(
            "accepted-is-done",
            f"{name} returned while nothing had said that its task {kind} was over: "
            f"{transcript.last_word(upid)}. You asked for: {transcript.told}.",
            "A UPID says that the cluster has accepted a task. Where does the cluster say how it ended?",
        )


def shuffled_nodes(trial: Trial) -> list[str]:
    """The three nodes in an order of this trial's own."""
    return trial.rng.sample(NODES, 3)


def _authority_file(text: str) -> Path:
    """Each lab's authority as a file of this process, for ``verify_ssl``."""
    known = (os.getpid(), text)
    if known not in _authority:
        folder = Path(tempfile.mkdtemp(prefix="check-"))
        folder.chmod(0o755)
        _authority[known] = folder / "pve-root-ca.pem"
        _authority[known].write_text(text)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _authority[known]
