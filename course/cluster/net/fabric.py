"""A node's network: its bridges, a port for each card of its guests, and the cables to the other nodes.

::

    QEMU ── tap169i0 ─┐            ┌─ tap170i0 ── QEMU
                      vmbr0 (a switch)
    the node ── host ─┘            └─ eno1 ── cable ── eno1 of the other nodes

All of it is one thread that sleeps until a frame comes, and Unix sockets in the node's private folder. It needs no
privilege: a frame never leaves the lab.

A port is made when a guest starts (also as the target of a migration: source and target have sockets of their own) and
goes when the guest ends. After a migration QEMU announces the guest, and every switch on the way learns where it is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
import traceback
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ...error import ClusterError
from ...network.bucket import Bucket
from ...network.conntrack import Tracker
from ...network.switch import Port, Switch
from ..config import files
from ..foundation import address_of
from ..settings import NODES
from . import interfaces
from .datagrams import Incoming, Outgoing
from .firewalllog import FirewallLog
from .interfaces import Interface
from .lan import CARDS, Lan, folder
from .levels import Levels
from .loop import Loop
from .stack import HostGuard, Stack
from .witness import Window, view

Kind = Literal["qemu", "lxc"]
HOST = "host"
_BURST = 1 << 20
_TAPS: dict[Kind, str] = {"qemu": "tap", "lxc": "veth"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a guest's configuration says about one of its cards.

    Attributes:
        bridge: that it is plugged into.
        mac: its address.
        firewall: whether the guest's firewall is for this card.
        tag: virtual LAN that it belongs to; None for none.
        trunks: virtual LANs that a card without a tag may use, such as ``2;10-20``; empty for all.
        rate: limit in MB/s each way; None for none.
        link_down: whether its cable is out.
        kind: of guest.
        own: addresses of a container, for `ipfilter`.
    """

    bridge: str = "vmbr0"
    mac: str
    firewall: bool = False
    tag: int | None = None
    trunks: str = ""
    rate: float | None = None
    link_down: bool = False
    kind: Kind = "qemu"
    own: tuple[str, ...] = ()


@dataclass(slots=True)
class Plugged:
    """A guest's card in its port."""

    card: Card
    port: Port
    incoming: Incoming
    outgoing: Outgoing
    tracker: Tracker = field(default_factory=Tracker)


class Fabric:
    """The network of a node.

    Args:
        node: its name, files, members and log are used.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._folder: Path = folder(node.state.run, node.name)
        self._plugged: dict[tuple[int, int], Plugged] = {}
        self._trackers: dict[str, Tracker] = {}
        self._answers: deque[tuple[str, bytes]] = deque()
        self._interfaces: dict[str, Interface] = {}
        self.switches: dict[str, Switch] = {}
        self.loop = Loop(f"net-{node.name}", self._refresh, self._report)
        self.log = FirewallLog(node.disk / "log" / "pve-firewall.log")
        addresses = {name: address_of(name) for name in node.state.nodes if name in NODES}
        self.levels = Levels(node.state.pve, node.name, self.log.of, self._warn, addresses)
        self.lan: Lan | None = None
        self._window: Window | None = None
        self._warned: set[str] = set()
        self._stale = threading.Event()

    # Life

    def start(self) -> None:
        """Make the bridges and begin to move frames."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            files.create(self.interfaces_file, interfaces.default(address_of(self._node.name)), mode=0o644)
        state, name = self._node.state, self._node.name
        self.lan = Lan(
            self.loop, state.run, name, state.nodes, lambda: self._node.members.plugged(name), self._from_lan
        )
        self.reload()
        self.loop.start()
        self._window = Window(self._folder / "witness", self.witness)

    def stop(self) -> None:
        """End all of it; nothing is left in the node's folder."""
        if self._window is not None:
            self._window.close()
        for vmid, index in list(self._plugged):
            self.unplug(vmid, index)
        if self.lan is not None:
            self.lan.close()
        self.loop.stop()

    @property
    def interfaces_file(self) -> Path:
        """Where the node's ``/etc/network/interfaces`` is."""
        return Path(self._node.disk) / "etc" / "network" / "interfaces"

    def reload(self) -> None:
        """Make the bridges what the interfaces file says; ports of guests in a bridge that stays are left alone."""
        found = interfaces.parse(files.read(self.interfaces_file))
        with self.loop.lock:
            self._interfaces = found
            wanted = {name: one for name, one in found.items() if one.is_bridge}
            for name in self.switches.keys() - wanted.keys():
                del self.switches[name]
            for name, one in wanted.items():
                self._bridge(name, one)
            self._stale.set()

    def _bridge(self, name: str, interface: Interface) -> None:
        """Make a bridge, or change what hangs on it."""
        switch = self.switches.setdefault(name, Switch(name))
        for card in CARDS:
            if card in interface.ports and card not in switch.ports:
                switch.plug(Port(card, functools.partial(self._to_lan, card)))
            elif card not in interface.ports:
                switch.unplug(card)
        switch.unplug(HOST)
        network = interface.network
        if network is not None:
            stack = Stack(self._node.name, name, network, lambda frame: self._answers.append((name, frame)))
            switch.plug(Port(HOST, stack.take))

    # Guests

    def bridges(self) -> list[str]:
        """Return the names of the bridges."""
        return sorted(self.switches)

    def paths(self, vmid: int, index: int) -> tuple[Path, Path]:
        """Return a port's sockets: the switch's, and the one that whoever has the card binds."""
        path = self._folder / f"{vmid}.net{index}"
        return path, path.with_name(f"{path.name}.vm")

    def netdev(self, vmid: int, index: int, **card: Any) -> dict[str, Any]:
        """Make a port for a card that a guest is about to get, and return QMP's arguments of ``netdev_add``.

        Args:
            vmid: the guest.
            index: 0 for ``net0``.
            **card: see `Card`.

        Raises:
            ClusterError: there is no such bridge.
        """
        self._plug(vmid, index, Card(**card))
        here, there = self.paths(vmid, index)
        return {
            "type": "dgram",
            "id": f"net{index}",
            "local": {"type": "unix", "path": str(there)},
            "remote": {"type": "unix", "path": str(here)},
        }

    def port(self, vmid: int, index: int, **card: Any) -> list[str]:
        """Make a port as `netdev` does, and return QEMU's command line arguments."""
        return ["-netdev", json.dumps(self.netdev(vmid, index, **card))]

    def change(self, vmid: int, index: int, **changes: Any) -> None:
        """Change what a card is plugged into while its guest runs; the guest's connections live on.

        Raises:
            ClusterError: there is no such port, or no such bridge.
        """
        with self.loop.lock:
            plugged = self._plugged.get((vmid, index))
            if plugged is None:
                raise ClusterError(f"net{index} of guest {vmid} is not plugged into node '{self._node.name}'")
            card = replace(plugged.card, **changes)
            switch = self._switch(card.bridge)
            if card.bridge != plugged.card.bridge:
                self._pull(plugged)
                switch.plug(plugged.port)
            elif card.tag != plugged.card.tag:
                switch.forget(plugged.port)
            plugged.card = card
            _set_up(plugged.port, card)
            self._guard(vmid, index, plugged)

    def unplug(self, vmid: int, index: int | None = None) -> None:
        """Take a card, or all cards of a guest, out of their ports; none is no error."""
        with self.loop.lock:
            for key in [key for key in self._plugged if key[0] == vmid and index in (None, key[1])]:
                plugged = self._plugged.pop(key)
                self._pull(plugged)
                plugged.incoming.close()
                plugged.outgoing.close()
                with contextlib.suppress(OSError):
                    self.paths(*key)[1].unlink()

    def counters(self, vmid: int) -> dict[str, dict[str, int]]:
        """Return the bytes that a guest's cards got and sent: ``{"net0": {"netin": 84, "netout": 42}}``."""
        with self.loop.lock:
            return {
                f"net{index}": {"netin": plugged.port.bytes_out, "netout": plugged.port.bytes_in}
                for (number, index), plugged in sorted(self._plugged.items())
                if number == vmid
            }

    def _plug(self, vmid: int, index: int, card: Card) -> None:
        with self.loop.lock:
            switch = self._switch(card.bridge)
            self.unplug(vmid, index)
            key = (vmid, index)
            here, there = self.paths(*key)
            outgoing = Outgoing(self.loop, there)
            port = Port(f"{_TAPS[card.kind]}{vmid}i{index}", outgoing.send)
            _set_up(port, card)
            incoming = Incoming(self.loop, here, lambda frame, now: self._from_guest(key, frame, now))
            plugged = self._plugged[key] = Plugged(card, port, incoming, outgoing)
            switch.plug(port)
            self._guard(vmid, index, plugged)

    def _switch(self, bridge: str) -> Switch:
        switch = self.switches.get(bridge)
        if switch is None:
            raise ClusterError(f"bridge '{bridge}' does not exist")
        return switch

    def _pull(self, plugged: Plugged) -> None:
        """Take a port out of its switch, if that is still there."""
        switch = self.switches.get(plugged.card.bridge)
        if switch is not None and switch.ports.get(plugged.port.name) is plugged.port:
            switch.unplug(plugged.port.name)

    # Frames

    def _from_guest(self, key: tuple[int, int], frame: bytes, now: float) -> None:
        plugged = self._plugged.get(key)
        switch = self.switches.get(plugged.card.bridge) if plugged else None
        if plugged is not None and switch is not None and plugged.port.name in switch.ports:
            switch.receive(plugged.port, frame, now)
            self._answer(now)

    def _from_lan(self, card: str, frame: bytes, now: float) -> None:
        for switch in self.switches.values():
            port = switch.ports.get(card)
            if port is not None:
                switch.receive(port, frame, now)
        self._answer(now)

    def _to_lan(self, card: str, frame: bytes) -> bool:
        return self.lan is not None and self.lan.send(card, frame)

    def _answer(self, now: float) -> None:
        """Send what the node itself says to the frame that was just handled."""
        while self._answers:
            bridge, frame = self._answers.popleft()
            switch = self.switches.get(bridge)
            if switch is not None and HOST in switch.ports:
                switch.receive(switch.ports[HOST], frame, now)

    # Firewall

    def _refresh(self) -> None:
        """Make guards of the firewall's files anew when one changed; called whenever frames are there."""
        guarded = {vmid for (vmid, _), plugged in self._plugged.items() if plugged.card.firewall}
        if not self._stale.is_set() and not self.levels.changed(guarded):
            return
        self._stale.clear()
        self._warned.clear()
        self.log.limit(self.levels.log_rate())
        for (vmid, index), plugged in self._plugged.items():
            self._guard(vmid, index, plugged)
        for name, switch in self.switches.items():
            port = switch.ports.get(HOST)
            if port is not None:
                port.guard = self._host_guard(name)

    def refresh(self) -> None:
        """Take up changes of the firewall's files now, not with the next frame."""
        with self.loop.lock:
            self._stale.set()
            self._refresh()

    def _guard(self, vmid: int, index: int, plugged: Plugged) -> None:
        card = plugged.card
        plugged.tracker.established_s = self.levels.established_s
        guard = None
        if card.firewall:
            guard = self.levels.guest(vmid, index, card.mac, plugged.port.name, plugged.tracker, card.own)
        plugged.port.guard = guard

    def _host_guard(self, bridge: str) -> HostGuard | None:
        if not self.levels.host_enabled:
            return None
        tracker = self._trackers.setdefault(bridge, Tracker())
        chain_in, chain_out = (self.levels.host_chain(direction, bridge) for direction in ("in", "out"))
        return HostGuard(chain_in, chain_out, self.levels.host_filter(), tracker, self.log.of(0))

    # Looking at it

    def witness(self, bridge: str = "vmbr0") -> dict[str, Any]:
        """Return what a bridge knows and did: ports with counters, addresses, and its last frames. See `witness`.

        Raises:
            ClusterError: there is no such bridge.
        """
        with self.loop.lock:
            return view(self._node.name, self._switch(bridge))

    def describe(self, bridge: str = "vmbr0") -> str:
        """Return a bridge's table of addresses as text."""
        with self.loop.lock:
            return self._switch(bridge).describe(time.monotonic())

    def _warn(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            self._node.log(words, "err", "pve-firewall")

    def _report(self, error: BaseException) -> None:
        self._node.log("".join(traceback.format_exception(error)), "err", "net")


def _set_up(port: Port, card: Card) -> None:
    """Give a port what its card's configuration says."""
    port.tag = card.tag or 0
    port.trunks = _numbers(card.trunks)
    port.up = not card.link_down
    limit = card.rate * (1 << 20) if card.rate else None
    port.limit_in = None if limit is None else Bucket(limit, max(limit, _BURST))
    port.limit_out = None if limit is None else Bucket(limit, max(limit, _BURST))


def _numbers(text: str) -> Collection[int] | None:
    """Return the numbers of ``2;10-20``; None for an empty text."""
    found: set[int] = set()
    for part in text.split(";"):
        first, dash, last = part.partition("-")
        if first.strip().isdecimal():
            found.update(range(int(first), int(last if dash else first) + 1))
    return found if text.strip() else None
