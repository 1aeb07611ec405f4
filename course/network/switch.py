"""A learning switch: which card is behind which port, and who gets a frame.

::

    frame in ─▶ tag off ─▶ storm? ─▶ guard (leaving) ─▶ learn the sender ─▶ who has the target?
                                                                              one port, or all but this one
                                                          each: VLAN? ─▶ guard (arriving) ─▶ tag on ─▶ frame out

Inside, a frame has no tag: the number of its virtual LAN goes beside it, 0 for none. A port with a tag takes and gives
frames without one and belongs to that virtual LAN alone; a port without takes and gives all (or those of `trunks`),
each frame with its tag.

A storm, where frames for everybody breed (two cables between two switches, a guest that joins two of its cards), is
bounded: a port may have only so many frames a second sent to more than one port.

Nothing here reads a socket or a clock: who owns the ports calls `Switch.receive` with the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .address import mac_text
from .bucket import Bucket
from .packet import Packet

AGE_S = 300.0
ADDRESSES = 4096
FLOODS_PER_S, FLOOD_BURST = 1000.0, 2000.0
SNAP = 2048
HISTORY = 512

STORM, RUNT, LINK, VLAN_REASON, RATE, QUEUE = "storm", "runt", "link down", "vlan", "rate", "not taken"


class Verdict(NamedTuple):
    """What a guard says about a frame.

    Attributes:
        accept: it passes.
        rule: why, in words, such as ``IN DROP (policy)``.
        reply: a frame for the sender, of a guard that rejects aloud.
    """

    accept: bool
    rule: str = ""
    reply: bytes | None = None


PASS = Verdict(True)


class Guard(Protocol):
    """A filter at a port."""

    def leaving(self, packet: Packet, now: float) -> Verdict:
        """Judge a frame that comes from behind the port."""

    def arriving(self, packet: Packet, now: float) -> Verdict:
        """Judge a frame that is about to go out of the port."""


class Sighting(NamedTuple):
    """What became of a frame.

    Attributes:
        time: when, by the clock of `Switch.receive`.
        port: where it came in.
        vlan: its virtual LAN, 0 for none.
        frame: its beginning, without a tag.
        length: of the whole, in bytes.
        sent: the ports that it went out of.
        drops: where it was dropped and why.
    """

    time: float
    port: str
    vlan: int
    frame: bytes
    length: int
    sent: tuple[str, ...]
    drops: tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class Port:
    """Where a cable is plugged in.

    Attributes:
        name: such as ``tap169i0``.
        send: takes a frame out; says whether it was taken.
        tag: the virtual LAN that it belongs to; 0 for none.
        trunks: of a port without a tag, the virtual LANs that it carries; None for all.
        up: whether the cable is in.
        guard: its filter, or None.
        limit_in, limit_out: bytes per second from and to whoever is behind it, or None.
        floods: frames for everybody that it may send.
    """

    name: str
    send: Callable[[bytes], bool]
    tag: int = 0
    trunks: Collection[int] | None = None
    up: bool = True
    guard: Guard | None = None
    limit_in: Bucket | None = None
    limit_out: Bucket | None = None
    floods: Bucket = field(default_factory=lambda: Bucket(FLOODS_PER_S, FLOOD_BURST))
    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    drops: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count a frame that was dropped here."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def carries(self, vlan: int) -> bool:
        """Say whether frames of a virtual LAN go out here."""
        if self.tag:
            return self.tag == vlan
        return self.trunks is None or not vlan or vlan in self.trunks

    def counters(self) -> dict[str, int]:
        """Return what was counted, in frames and bytes, as seen from the switch."""
        return {
            "frames_in": self.frames_in,
            "bytes_in": self.bytes_in,
            "frames_out": self.frames_out,
            "bytes_out": self.bytes_out,
            "dropped": sum(self.drops.values()),
        }


class Switch:
    """A switch.

    Args:
        name: such as ``vmbr0``.
        age_s: how long an address is remembered after its last frame, in seconds.
        addresses: how many addresses it remembers; the oldest make room.
        history: how many frames it can still tell about.
    """

    def __init__(self, name: str, *, age_s: float = AGE_S, addresses: int = ADDRESSES, history: int = HISTORY) -> None:
        self.name = name
        self.age_s = age_s
        self.addresses = addresses
        self.ports: dict[str, Port] = {}
        self.table: dict[tuple[int, bytes], tuple[Port, float]] = {}
        self.history: deque[Sighting] = deque(maxlen=history)
        self.taps: list[Callable[[Sighting, bytes], None]] = []

    def plug(self, port: Port) -> None:
        """Plug a cable in; one of the same name comes out."""
        self.unplug(port.name)
        self.ports[port.name] = port

    def unplug(self, name: str) -> None:
        """Pull a cable and forget who was behind it."""
        port = self.ports.pop(name, None)
        if port is not None:
            self.forget(port)

    def forget(self, port: Port) -> None:
        """Forget who was behind a port."""
        self.table = {key: entry for key, entry in self.table.items() if entry[0] is not port}

    def where(self, mac: bytes, vlan: int = 0, now: float = 0.0) -> Port | None:
        """Return the port that an address is behind, if that is known and not too old."""
        entry = self.table.get((vlan, mac))
        return entry[0] if entry and now - entry[1] <= self.age_s else None

    def receive(self, port: Port, frame: bytes, now: float) -> None:
        """Take a frame from a port and send it where it belongs.

        Args:
            port: one of this switch's.
            frame: as it came, with or without a tag.
            now: a clock that never goes back, in seconds.
        """
        port.frames_in += 1
        port.bytes_in += len(frame)
        reason, vlan, frame = self._enter(port, frame, now)
        if reason is not None:
            self._tell(port, vlan, frame, now, [], [(port.name, reason)])
            return
        packet = None
        if port.guard is not None:
            packet = Packet(frame)
            verdict = port.guard.leaving(packet, now)
            if not verdict.accept:
                self._refuse(port, port, verdict, vlan, now)
                self._tell(port, vlan, frame, now, [], [(port.name, verdict.rule)])
                return
        self._learn(port, vlan, frame[6:12], now)
        self._forward(port, vlan, frame, packet, now)

    def _enter(self, port: Port, frame: bytes, now: float) -> tuple[str | None, int, bytes]:
        """Return why a frame does not come in (or None), its virtual LAN, and itself without a tag."""
        reason, vlan = None, port.tag
        if len(frame) < 14:
            reason = RUNT
        elif not port.up:
            reason = LINK
        elif port.limit_in is not None and not port.limit_in.take(now, len(frame)):
            reason = RATE
        elif frame[12:14] == b"\x81\x00":
            if len(frame) < 18:
                reason = RUNT
            else:
                vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
                frame = frame[:12] + frame[16:]
                if port.tag or not port.carries(vlan):
                    reason = VLAN_REASON
        if reason is not None:
            port.drop(reason)
        return reason, vlan, frame

    def _learn(self, port: Port, vlan: int, mac: bytes, now: float) -> None:
        if mac[0] & 1:
            return  # nobody is everybody
        key = (vlan, mac)
        if key not in self.table and len(self.table) >= self.addresses:
            self._make_room(now)
        self.table[key] = (port, now)

    def _make_room(self, now: float) -> None:
        """Forget what is too old, or else the older half."""
        fresh = {key: entry for key, entry in self.table.items() if now - entry[1] <= self.age_s}
        if len(fresh) >= self.addresses:
            newest = sorted(fresh.items(), key=lambda item: item[1][1])[self.addresses // 2 :]
            fresh = dict(newest)
        self.table = fresh

    def _forward(self, port: Port, vlan: int, frame: bytes, packet: Packet | None, now: float) -> None:
        """Send a frame to the port of its target, or to all."""
        target = None if frame[0] & 1 else self.where(frame[:6], vlan, now)
        sent: list[str] = []
        drops: list[tuple[str, str]] = []
        if target is not None:
            outgoing = [target] if target is not port else []
        elif port.floods.take(now):
            outgoing = [other for other in self.ports.values() if other is not port and other.carries(vlan)]
        else:
            port.drop(STORM)
            drops.append((port.name, STORM))
            outgoing = []
        for other in outgoing:
            if other.guard is not None:
                packet = packet or Packet(frame)
                verdict = other.guard.arriving(packet, now)
                if not verdict.accept:
                    self._refuse(port, other, verdict, vlan, now)
                    drops.append((other.name, verdict.rule))
                    continue
            reason = self._out(other, vlan, frame, now)
            if reason is None:
                sent.append(other.name)
            else:
                drops.append((other.name, reason))
        self._tell(port, vlan, frame, now, sent, drops)

    def _out(self, port: Port, vlan: int, frame: bytes, now: float) -> str | None:
        """Send a frame out of a port; return why it did not go, or None."""
        reason = None
        if not port.up:
            reason = LINK
        elif not port.carries(vlan):
            reason = VLAN_REASON
        elif port.limit_out is not None and not port.limit_out.take(now, len(frame)):
            reason = RATE
        else:
            out = frame if port.tag or not vlan else frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]
            if port.send(out):
                port.frames_out += 1
                port.bytes_out += len(out)
                return None
            reason = QUEUE
        port.drop(reason)
        return reason

    def _refuse(self, origin: Port, where: Port, verdict: Verdict, vlan: int, now: float) -> None:
        """Count a frame that a guard dropped, and tell the sender if the guard does so."""
        where.drop(verdict.rule)
        if verdict.reply is not None:
            self._out(origin, vlan, verdict.reply, now)

    def _tell(  # noqa: PLR0917
        self, port: Port, vlan: int, frame: bytes, now: float, sent: list[str], drops: list[tuple[str, str]]
    ) -> None:
        sighting = Sighting(now, port.name, vlan, frame[:SNAP], len(frame), tuple(sent), tuple(drops))
        self.history.append(sighting)
        for tap in self.taps:
            tap(sighting, frame)

    def known(self, now: float) -> Iterator[tuple[int, str, str, float]]:
        """Yield the table: virtual LAN, address, port, seconds since its last frame."""
        for (vlan, mac), (port, seen) in sorted(self.table.items(), key=lambda item: item[0]):
            if now - seen <= self.age_s:
                yield vlan, mac_text(mac), port.name, now - seen

    def describe(self, now: float) -> str:
        """Return the table as text for people, as ``bridge fdb show`` and a switch's console do."""
        rows = [
            (str(vlan or "-"), mac, port, f"{age:.0f} s ago" if age >= 1 else "just now")
            for vlan, mac, port, age in self.known(now)
        ]
        if not rows:
            return f"{self.name} has learned no address yet: it sends every frame to all of its {len(self.ports)} ports"
        titles = ("VLAN", "address", "port", "last seen")
        widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                 for row in [titles, *rows]]  # fmt: skip
        return "\n".join([f"{self.name}: {len(self.ports)} ports, {len(rows)} addresses", *lines])
