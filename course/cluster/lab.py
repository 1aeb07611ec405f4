"""The lab cluster as one object: three nodes that live as long as a ``with`` block.

::

    with Cluster() as lab:
        api = lab.api()                          # an unmodified proxmoxer.ProxmoxAPI, TLS verified with the lab's CA
        print(api.nodes.get())
        lab.power_off("michael")                 # and its machines with it

``course cluster up`` makes one that outlives the command (`course.cluster.standing`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..error import CapabilityError, ClusterError
from .foundation import CA, establish
from .hardware import Hardware
from .membership import Members
from .settings import NODES, Settings

START_S = 90.0


class Cluster:
    """A lab cluster of one's own.

    Args:
        state: the state directory; None for one that is deleted afterwards.
        ports: of the three nodes; None for free ones.
        on: the nodes that are switched on at the beginning.
        settings: see `Settings`, such as ``auth_delay_s=0``.

    Attributes:
        nodes: their names.
        password: of root@pam.
        state, run: the state directory and the runtime directory, once it is started.
    """

    nodes = NODES

    def __init__(
        self,
        state: str | Path | None = None,
        *,
        ports: Sequence[int] | None = None,
        on: Sequence[str] = NODES,
        **settings: Any,
    ) -> None:
        self.settings = Settings.of(**settings)
        self.password = self.settings.password
        self._wanted = None if state is None else Path(state).absolute()
        self._ports = list(ports or [0] * len(NODES))
        self._on = list(on)
        self._rack: Any = None
        self._cleanup = contextlib.ExitStack()
        self._addresses: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Cluster {self.host if self._addresses else 'not started'}>"

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def start(self) -> Cluster:
        """Switch the nodes on; returns when all of them answer.

        Raises:
            ClusterError: a node does not start, the state directory or a port is taken.
        """
        from ..machine.process import spawn  # noqa: PLC0415

        assert_linux()
        try:
            self.state = self._wanted or self._temporary("course-state-")
            self.run = self._temporary("course-lab-")
            establish(self.state, self.settings)
            self._rack = spawn(rack_command(self.state, self.run, self.settings, self._ports, self._on))
            self._cleanup.callback(self._rack.close)
            self.hardware = Hardware(self.run)
            self._addresses = await_nodes(self.hardware, self._on, self._died)
        except BaseException:
            self._cleanup.close()
            raise
        self.members = Members(self.run, NODES, seen_within_s=self.settings.seen_within_s)
        self._cleanup.callback(self.members.leave)
        return self

    def _temporary(self, prefix: str) -> Path:
        """Return a directory that ends with this object; one whose owner was killed goes when the next is made."""
        from ..machine.directory import PrivateDirectory  # noqa: PLC0415

        folder = PrivateDirectory(prefix)
        self._cleanup.callback(folder.remove)
        return folder.path

    def _died(self) -> str | None:
        """Return the rack's last words when it has ended."""
        return None if self._rack.exitcode is None else str(self._rack.output).strip() or "the rack ended"

    def close(self) -> None:
        """Shut the nodes down, in order, and remove what was temporary."""
        rack, self._rack = self._rack, None
        if rack is not None and rack.owned:
            with contextlib.suppress(ClusterError):
                self.hardware.down()
            rack.wait(10)
        self._cleanup.close()
        self._addresses = {}

    # Addresses

    def address(self, node: str = NODES[0]) -> tuple[str, int]:
        """Return where a node's API listens."""
        return self.settings.address, self._addresses[node]

    def host_of(self, node: str) -> str:
        """Return a node's address as proxmoxer takes it, ``127.0.0.1:8006``."""
        return "{}:{}".format(*self.address(node))

    @property
    def host(self) -> str:
        """The first node's address as proxmoxer takes it."""
        return self.host_of(NODES[0])

    @property
    def ca_path(self) -> Path:
        """The certificate of the lab's authority."""
        return self.state / "pve" / CA

    @property
    def ca(self) -> str:
        """The path of the authority's certificate, as ``verify_ssl`` takes it."""
        return str(self.ca_path)

    def api(self, user: str = "root@pam", password: str | None = None, *, node: str = NODES[0], **options: Any) -> Any:
        """Return a ProxmoxAPI of a node, which verifies the node's certificate.

        Args:
            user: who logs in.
            password: root's when it is left out.
            node: that is asked.
            options: further ones of ProxmoxAPI, such as ``token_name`` and ``token_value``.
        """
        from proxmoxer import ProxmoxAPI  # noqa: PLC0415

        if "token_value" not in options:
            options["password"] = self.password if password is None else password
        return ProxmoxAPI(self.host_of(node), user=user, **{"verify_ssl": self.ca, "timeout": 60, **options})

    def exec(self, vmid: int, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> tuple[int, bytes]:
        """Run a program in a container, wherever it runs: what ``pct exec`` is on a node.

        Returns:
            Its exit status, and what it wrote on standard output and error.

        Raises:
            ClusterError: the container does not run, or takes too long.
        """
        from .ct import console  # noqa: PLC0415 - loaded by those who use it
        from .state import State  # noqa: PLC0415 - likewise

        place = State(self.state, self.run).guest(vmid, kind="lxc")
        return console.execute(self.run, place.node, vmid, argv, stdin=stdin, timeout_s=timeout_s)

    # Hardware

    def power_off(self, node: str) -> None:
        """Cut a node's power: its machines die with it."""
        self.hardware.power(node, on=False)

    kill = power_off

    def power_on(self, node: str, *, wait: bool = True) -> None:
        """Switch a node on; returns when it answers, unless told otherwise."""
        self.hardware.power(node, on=True)
        if wait:
            await_nodes(self.hardware, [node], self._died)

    def isolate(self, node: str) -> None:
        """Pull a node's network cable: the other nodes do not see it, nor it them; its API still answers here."""
        self.hardware.plug(node, plugged=False)

    def rejoin(self, node: str) -> None:
        """Put a node's network cable in again."""
        self.hardware.plug(node, plugged=True)

    reconnect = rejoin

    def pid(self, node: str) -> int:
        """Return a node's process; 0 while it is off."""
        return int(self.hardware.status()[node]["pid"])

    @property
    def output(self) -> str:
        """What the rack and the nodes wrote on their standard outputs: tracebacks, if anything."""
        return str(self._rack.output) if self._rack is not None else ""


def assert_linux() -> None:
    """Refuse where the nodes could not end with their owner.

    Raises:
        CapabilityError: this is another system.
    """
    if not sys.platform.startswith("linux"):
        remedy = "Use Binder, a Linux machine, or a real cluster (LAB_PVE_HOST)."
        raise CapabilityError("the lab cluster", f"it needs Linux, and this is {sys.platform}", remedy)


def rack_command(state: Path, run: Path, settings: Settings, ports: Sequence[int], on: Sequence[str]) -> list[str]:
    """Return the command line of a rack; it holds no password."""
    wanted = {
        "state": str(state),
        "run": str(run),
        "settings": {**dataclasses.asdict(settings), "password": ""},
        "ports": list(ports),
        "on": list(on),
    }
    return [sys.executable, "-m", "course.cluster.rack", json.dumps(wanted)]


def await_nodes(hardware: Hardware, wanted: Sequence[str], died: Any, timeout_s: float = START_S) -> dict[str, int]:
    """Wait until nodes answer; return the ports of all.

    Args:
        hardware: the rack.
        wanted: the nodes to wait for.
        died: returns the rack's last words when it has ended, else None.
        timeout_s: how long to wait.

    Raises:
        ClusterError: a node, or the rack, did not start.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            status = hardware.status()
        except ClusterError:
            status = {}
        for name in wanted if status else ():
            if status[name]["error"] or not status[name]["power"]:
                raise ClusterError(f"node '{name}' did not start: {status[name]['error'] or 'it ended'}")
        if status and all(status[name]["ready"] for name in wanted):
            return {name: int(found["port"]) for name, found in status.items()}
        words = died()
        if words is not None:
            raise ClusterError(f"the lab cluster did not start: {words}")
        if time.monotonic() > end:
            raise ClusterError(f"the lab cluster did not answer within {timeout_s:.0f} s")
        time.sleep(0.01)
