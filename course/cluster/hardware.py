"""The rack as others speak to it: one JSON object per line over a Unix socket, and one back.

Nodes use it to switch each other's power and for their watchdog; whoever owns the lab uses it for all of that and for
the network cables.
"""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

from ..error import ClusterError

SOCKET = "rack.sock"


class Hardware:
    """A client of the rack.

    Args:
        run: the cluster's runtime directory.
        node: who speaks, for its watchdog; empty for the owner.
    """

    def __init__(self, run: Path, node: str = "") -> None:
        self._path = run / SOCKET
        self._node = node

    def ask(self, do: str, *, patience_s: float = 60, **values: Any) -> Any:
        """Ask the rack for something.

        Raises:
            ClusterError: there is no rack, or it refuses.
        """
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(patience_s)
            try:
                connection.connect(str(self._path))
                connection.sendall(json.dumps({"do": do, **values}).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline()
            except OSError as error:
                raise ClusterError(f"the lab's rack does not answer at {self._path}: {error}") from error
        answer = json.loads(line) if line else {"error": "the rack hung up"}
        if "error" in answer:
            raise ClusterError(answer["error"])
        return answer.get("result")

    def status(self) -> dict[str, Any]:
        """Return for each node ``power`` (bool), ``pid``, ``ready``, ``plugged``, ``port`` and ``error``."""
        found: dict[str, Any] = self.ask("status")
        return found

    def power(self, node: str, on: bool) -> None:
        """Switch a node on, or cut its power: its machines die with it. Either is no error when it is so already."""
        self.ask("on" if on else "off", node=node)

    def reset(self, node: str) -> None:
        """Cut a node's power and switch it on again."""
        self.ask("reset", node=node)

    def shutdown(self, node: str, *, again: bool = False) -> None:
        """Ask a node to shut down in order; `again`: and switch it on afterwards. Does not wait for it."""
        self.ask("shutdown", node=node, again=again)

    def plug(self, node: str, plugged: bool) -> None:
        """Put a node's network cable in or out."""
        self.ask("plug", node=node, plugged=plugged)

    def watchdog(self, timeout_s: float) -> None:
        """Arm this node's watchdog or keep it quiet: after so many seconds without a call it resets the node.

        Args:
            timeout_s: until then; 0 disarms.
        """
        self.ask("watchdog", node=self._node, timeout_s=timeout_s)

    def down(self) -> None:
        """Shut all nodes down and end the rack."""
        self.ask("down")
