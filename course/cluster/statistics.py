"""What a node says about itself and its guests now and then, and what the others read of it.

As Proxmox VE's status daemon does, each node looks every few seconds, and at once when a task ended. The result goes to
``<run>/<node>/status.json``, from which every node answers for all: quick, and without asking a node that may hang.

A layer adds what it knows to `Statistics.sources`: a function that returns entries as ``/cluster/resources`` shows
them, such as ``{"type": "qemu", "id": "qemu/169", "vmid": 169, "status": "running", "cpu": 0.02, "mem": …}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host
from .config import files
from .rrd import COUNTERS, Rrd

if TYPE_CHECKING:
    from .node import Node

Source = Callable[[], "list[dict[str, Any]]"]
STATUS = "status.json"
LOG_KEPT = 500
SAVE_RRD_S = 60


class Statistics:
    """The status daemon of one node.

    Attributes:
        sources: functions of the layers that say what they have on this node.
        rrd: what was measured before.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.sources: list[Source] = []
        self.rrd = Rrd()
        self._changed = threading.Event()
        self._refreshing = threading.Lock()
        self._meter = host.Meter()
        self._seen: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        self._published: dict[str, str] = {}
        self._log_number = 0
        self._log_lock = threading.Lock()
        self._saved = 0.0
        self._remembered: dict[str, float] = {}

    def start(self) -> None:
        """Look at once, then now and then."""
        with contextlib.suppress(OSError, ValueError):
            self.rrd = Rrd.load(self._rrd_file.read_text())
        self.refresh()
        threading.Thread(target=self._work, name="pvestatd", daemon=True).start()

    def _work(self) -> None:
        while not self._node.stopping.is_set():
            self._changed.wait(self._node.settings.status_every_s)
            self._changed.clear()
            if self._node.stopping.is_set():
                return
            try:
                self.refresh()
            except Exception:  # one failure must not end what is periodic
                self._node.log(f"status update error: {traceback.format_exc()}", "err", "pvestatd")

    def changed(self) -> None:
        """Look again at once, without waiting for it."""
        self._changed.set()

    def refresh(self) -> None:
        """Look, and publish what was seen."""
        with self._refreshing:
            found = {"time": time.time(), "node": self._own(), "entries": self._entries()}
            path = self._node.run / STATUS
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = path.with_name(f".{STATUS}")
            new.write_text(json.dumps(found))
            new.replace(path)
        self._remember(found)

    def _own(self) -> dict[str, Any]:
        """Return what the node says about itself."""
        return {"uptime": int(time.time() - self._node.started), **self._meter.measure(self._node.disk)}

    def _entries(self) -> list[dict[str, Any]]:
        """Return what the layers say."""
        entries = []
        for source in self.sources:
            try:
                entries += source()
            except Exception:  # the other layers' words count all the same
                self._node.log(f"status update error: {traceback.format_exc()}", "err", "pvestatd")
        return entries

    def of(self, node: str) -> dict[str, Any]:
        """Return what a node said last: ``time``, ``node``, ``entries``; empty when it never said anything."""
        path = self._published.get(node)
        if path is None:
            path = self._published[node] = str(self._node.state.run / node / STATUS)
        try:
            found = os.stat(path)  # noqa: PTH116 - on the way of each answer
        except OSError:
            return {}
        stamp = (found.st_mtime_ns, found.st_ino)
        kept = self._seen.get(node)
        if kept is None or kept[0] != stamp:
            try:
                kept = (stamp, json.loads(Path(path).read_bytes()))
            except (OSError, ValueError):
                return kept[1] if kept else {}
            self._seen[node] = kept
        return kept[1]

    def entry(self, node: str, id: str) -> dict[str, Any]:
        """Return what a node said about one thing, such as ``qemu/169``; empty for nothing."""
        return next((entry for entry in self.of(node).get("entries", ()) if entry.get("id") == id), {})

    # What was before

    @property
    def _rrd_file(self) -> Path:
        return self._node.disk / "rrd.json"

    def _remember(self, found: dict[str, Any]) -> None:
        """Add what was seen to the series, here and on the other nodes, so that each can tell of all."""
        now = found["time"]
        for node in self._node.state.nodes:
            said = found if node == self._node.name else self.of(node)
            if said.get("time", 0) <= self._remembered.get(node, 0):
                continue
            self._remembered[node] = said["time"]
            self.rrd.add(f"node/{node}", _node_series(said["node"]), said["time"])
            for entry in said["entries"]:
                if "id" in entry:
                    self.rrd.add(entry["id"], _entry_series(entry), said["time"])
        if now - self._saved > SAVE_RRD_S:
            self._saved = now
            with contextlib.suppress(OSError):
                files.write(self._rrd_file, self.rrd.dump())

    # The cluster's log

    def cluster_log(self, text: str, priority: int, user: str, tag: str) -> None:
        """Add a line to the cluster's log."""
        with self._log_lock:
            self._log_number += 1
            entry = {
                "uid": self._log_number,
                "time": int(time.time()),
                "pri": priority,
                "tag": tag,
                "pid": os.getpid(),
                "node": self._node.name,
                "user": user,
                "msg": text,
            }
            path = self._log_file(self._node.name)
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")

    def _log_file(self, node: str) -> Path:
        return self._node.state.of(node) / "log" / "cluster"

    def read_cluster_log(self, limit: int = LOG_KEPT) -> list[dict[str, Any]]:
        """Return the latest lines of all nodes, the newest first."""
        entries = []
        for node in self._node.state.nodes:
            for line in files.read(self._log_file(node)).splitlines()[-LOG_KEPT:]:
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    entries.append({**entry, "id": f"{entry['uid']}:{node}"})
        entries.sort(key=lambda entry: (entry["time"], entry["uid"]), reverse=True)
        return entries[:limit]


def _node_series(said: dict[str, Any]) -> dict[str, Any]:
    """Return what a node said under the names of its series."""
    names = {
        "cpu": "cpu",
        "maxcpu": "maxcpu",
        "wait": "iowait",
        "loadavg": "loadavg",
        "mem": "memused",
        "maxmem": "memtotal",
        "disk": "rootused",
        "maxdisk": "roottotal",
        "swapused": "swapused",
        "swaptotal": "swaptotal",
    }
    return {name: said[key] for key, name in names.items() if key in said}


def _entry_series(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what was said of a guest or a storage under the names of its series."""
    if entry.get("type") == "storage":
        return {"used": entry.get("disk"), "total": entry.get("maxdisk")}
    wanted = ("cpu", "maxcpu", "mem", "maxmem", "disk", "maxdisk", *COUNTERS)
    return {name: entry.get(name) for name in wanted}
