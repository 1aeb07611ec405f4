"""Nodes with a network and nothing else, and guests that are a socket."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from course.cluster.net.fabric import Fabric
from course.cluster.node import Node
from course.cluster.state import State
from course.network.frames import Ethernet

MAC = "bc:24:11:00:00:{:02x}".format
ALL = "ff:ff:ff:ff:ff:ff"


class Plug:
    """Whoever has a guest's card: what QEMU does with ``-netdev dgram``, by hand."""

    def __init__(self, fabric: Fabric, vmid: int, index: int = 0, **card: object) -> None:
        self.mac = MAC(vmid % 256)
        fabric.netdev(vmid, index, **{"mac": self.mac, **card})
        self.there, here = fabric.paths(vmid, index)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(here))
        self.socket.settimeout(60)

    def send(self, frame: Ethernet | bytes) -> None:
        """Send a frame."""
        self.socket.sendto(frame.build() if isinstance(frame, Ethernet) else frame, str(self.there))

    def say(self, words: bytes, to: Plug | None = None, **fields: object) -> None:
        """Send a frame with a few words to one guest or to all."""
        self.send(Ethernet(to.mac if to else ALL, self.mac, 0x88B5, words, **fields))

    def hear(self) -> Ethernet:
        """Wait for a frame."""
        return Ethernet.parse(self.socket.recv(65536))

    def heard(self) -> bytes:
        """Wait for a frame and return its words."""
        return self.hear().payload


class Rack:
    """Nodes by name, in one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, Node] = {}
        self.plugs: list[Plug] = []

    def __getitem__(self, name: str) -> Fabric:
        if name not in self.nodes:
            node = Node(name, State(self.folder / "state", self.folder / "run", node=name))
            node.fabric = Fabric(node)
            node.fabric.start()
            self.nodes[name] = node
        fabric: Fabric = self.nodes[name].fabric
        return fabric

    def plug(self, name: str, vmid: int, **card: object) -> Plug:
        """Plug a guest into a node."""
        self.plugs.append(Plug(self[name], vmid, **card))
        return self.plugs[-1]

    def write(self, relative: str, text: str) -> None:
        """Write a file below ``pve``."""
        next(iter(self.nodes.values())).state.write(relative, text)

    def close(self) -> None:
        """End all."""
        for plug in self.plugs:
            plug.socket.close()
        for node in self.nodes.values():
            node.fabric.stop()


@pytest.fixture
def rack() -> Iterator[Rack]:
    """A folder with a short path, for nodes with a network."""
    with tempfile.TemporaryDirectory(prefix="net-") as folder, contextlib.closing(Rack(Path(folder))) as made:
        yield made


Making = Callable[..., Plug]
