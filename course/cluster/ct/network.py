"""A container's network: frames between an interface in its namespace and the node's switch.

The interface is a tap that the container's keeper made inside the namespace, or a veth pair with a packet socket where
there is no ``/dev/net/tun``. The node gets either as a file, out of which come the frames that the container sends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ...error import ClusterError
from . import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..node import Node
    from .registry import Running
    from .settings import Interface

FRAME = 65536
LOOK_S = 1.0


def connect(node: Node, vmid: int, values: Mapping[str, str], running: Running, log: Callable[[str], None]) -> None:
    """Connect a container's interfaces to its bridges, and give them their addresses."""
    for interface in settings.interfaces(values):
        bridge = interface.values.get("bridge")
        tap = running.taps.pop(interface.name, None)
        if tap is None:
            why = "neither tap nor veth here" if running.kind == "namespaces" else "the container is in a guest"
            log(f"net{interface.index}: {interface.name} is missing: {why}")
            continue
        _address(running, interface)
        if node.fabric is None or bridge is None:
            os.close(tap)
            continue
        try:
            node.fabric.port(
                vmid,
                interface.index,
                bridge=bridge,
                mac=interface.values.get("hwaddr", settings.random_address()),
                firewall=interface.values.get("firewall") == "1",
                tag=int(interface.values["tag"]) if "tag" in interface.values else None,
                rate=float(interface.values["rate"]) if "rate" in interface.values else None,
                link_down=interface.values.get("link_down") == "1",
                kind="lxc",
            )
        except ClusterError:
            os.close(tap)
            raise
        switch, guest = node.fabric.paths(vmid, interface.index)
        Pump(tap, Path(switch), Path(guest), running.ended)


def disconnect(node: Node, vmid: int) -> None:
    """Take a container that has ended off its bridges."""
    if node.fabric is not None:
        with contextlib.suppress(ClusterError, OSError):
            node.fabric.unplug(vmid)


def _address(running: Running, interface: Interface) -> None:
    """Configure an interface inside the container, as Proxmox VE has the distribution's own files do it."""
    name, values = interface.name, interface.values
    commands = []
    if "hwaddr" in values:
        commands.append(f"ip link set dev {name} address {values['hwaddr']}")
    if "mtu" in values:
        commands.append(f"ip link set dev {name} mtu {values['mtu']}")
    if values.get("link_down") != "1":
        commands.append(f"ip link set dev {name} up")
    for key, gateway, family in (("ip", "gw", "-4"), ("ip6", "gw6", "-6")):
        if "/" in values.get(key, ""):
            commands.append(f"ip {family} addr add {values[key]} dev {name}")
        if gateway in values:
            commands.append(f"ip {family} route add default via {values[gateway]} dev {name}")
    with contextlib.suppress(ClusterError):
        running.exec(["/bin/sh", "-c", "; ".join(commands)], timeout_s=30)


class Pump:
    """Carries frames between a tap and a switch's socket until the container has ended.

    Args:
        tap: the file of frames; it is closed in the end.
        switch: the switch's socket.
        guest: the container's, to which the switch sends.
        ended: is set when the container has ended.
    """

    def __init__(self, tap: int, switch: Path, guest: Path, ended: threading.Event) -> None:
        self._tap, self._switch, self._guest, self._ended = tap, str(switch), guest, ended
        guest.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(guest))
        self._inode = guest.stat().st_ino
        self._socket.setblocking(False)
        os.set_blocking(tap, False)
        threading.Thread(target=self._run, name=f"pump-{guest.name}", daemon=True).start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._tap, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        try:
            while not self._ended.is_set():
                for handle, event in poll.poll(LOOK_S * 1000):
                    if handle == self._tap and not event & select.POLLIN:
                        return
                    self._carry(handle)
        finally:
            os.close(self._tap)
            self._socket.close()
            with contextlib.suppress(FileNotFoundError):
                if self._guest.stat().st_ino == self._inode:  # a container that was started again has its own by now
                    self._guest.unlink()

    def _carry(self, handle: int) -> None:
        """Carry one frame; one that nobody takes is lost, as on any wire."""
        with contextlib.suppress(OSError):
            if handle == self._tap:
                self._socket.sendto(os.read(self._tap, FRAME), self._switch)
            else:
                os.write(self._tap, self._socket.recv(FRAME))
