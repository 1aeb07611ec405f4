"""What happened on the wire, for checks and for people: the same whether asked in the node or from outside.

A node has a Unix socket ``<run>/<node>/net/witness``. Who connects sends a bridge's name and the end of a line, and
gets one JSON document::

    {"node": "michael", "bridge": "vmbr0", "time": 1795462573.2,
     "ports": [{"name": "tap169i0", "tag": 0, "up": true, "guarded": true, "frames_in": 12, "bytes_in": 1008,
                "frames_out": 3, "bytes_out": 252, "dropped": 1, "drops": {"IN DROP -p icmp": 1}}],
     "table": [{"vlan": 0, "address": "bc:24:11:00:00:01", "port": "tap169i0", "age": 0.2}],
     "frames": [{"time": 1795462573.1, "port": "tap169i0", "vlan": 0, "data": "ffff...", "length": 42,
                 "sent": ["eno1"], "drops": [["tap170i0", "IN DROP -p icmp"]]}]}

Frames are the last few hundred of the bridge, the oldest first. `pcap` makes of them a recording that Wireshark opens.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...error import ClusterError
from ...network import pcap as recording
from ...network.switch import Switch
from .lan import folder

SOCKET = "witness"
_PATIENCE_S = 10


def view(node: str, switch: Switch) -> dict[str, Any]:
    """Return what a switch knows and did; call it while nothing changes the switch."""
    now, epoch = time.monotonic(), time.time()
    return {
        "node": node,
        "bridge": switch.name,
        "time": epoch,
        "ports": [
            {
                "name": port.name,
                "tag": port.tag,
                "up": port.up,
                "guarded": port.guard is not None,
                **port.counters(),
                "drops": dict(port.drops),
            }
            for port in switch.ports.values()
        ],
        "table": [
            {"vlan": vlan, "address": mac, "port": port, "age": round(age, 3)}
            for vlan, mac, port, age in switch.known(now)
        ],
        "frames": [
            {
                "time": epoch - (now - seen.time),
                "port": seen.port,
                "vlan": seen.vlan,
                "data": seen.frame.hex(),
                "length": seen.length,
                "sent": list(seen.sent),
                "drops": [list(drop) for drop in seen.drops],
            }
            for seen in switch.history
        ],
    }


def pcap(seen: dict[str, Any]) -> bytes:
    """Return the frames of a view as a recording, tags put back."""
    return recording.dump(
        recording.Captured(one["time"], data, one["length"] + len(data) - len(one["data"]) // 2)
        for one in seen["frames"]
        for data in [_tagged(bytes.fromhex(one["data"]), one["vlan"])]
    )


def _tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:] if vlan else frame


def look(run: Path, node: str, bridge: str = "vmbr0", timeout_s: float = _PATIENCE_S) -> dict[str, Any]:
    """Ask a node from outside.

    Args:
        run: the folder of all nodes' sockets.
        node: its name.
        bridge: the bridge.
        timeout_s: how long to wait.

    Raises:
        ClusterError: the node is off, or has no such bridge.
    """
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(timeout_s)
            asked.connect(str(folder(run, node) / SOCKET))
            asked.sendall(f"{bridge}\n".encode())
            with asked.makefile("rb") as file:
                answer = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise ClusterError(f"the network of node '{node}' does not answer: {error}") from error
    if "error" in answer:
        raise ClusterError(answer["error"])
    found: dict[str, Any] = answer
    return found


class Window:
    """A node's end of `look`: a thread that waits for somebody to ask.

    Args:
        path: of the socket.
        answer: gets a bridge's name.
    """

    def __init__(self, path: Path, answer: Callable[[str], dict[str, Any]]) -> None:
        self._path = path
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, name="net-witness", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                asking, _ = self._socket.accept()
            except OSError:
                return
            with asking, contextlib.suppress(OSError):
                asking.settimeout(_PATIENCE_S)
                asking.sendall(json.dumps(self._reply(asking)).encode())

    def _reply(self, asking: socket.socket) -> dict[str, Any]:
        with asking.makefile("rb") as file:
            bridge = file.readline(256).decode(errors="replace").strip()
        try:
            return self._answer(bridge)
        except ClusterError as error:
            return {"error": error.message}

    def close(self) -> None:
        """End the thread and remove the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        self._path.unlink(missing_ok=True)
