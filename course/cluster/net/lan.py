r"""The cables between the nodes: what leaves a node's network card arrives at the same card of the others.

Each node has cards ``eno1`` and ``eno2``; all first cards hang on one cable, all second cards on another. A bridge that
has a card among its ports is on that cable; one without is the node's own.

A datagram is ``eno1\0michael\0`` and the frame. Each node remembers which node an address was last seen at, so that a
frame for one goes to one. A node whose cable is out (the file `unplugged` of `course.cluster.membership`) sends nothing
and hears nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .datagrams import Incoming, Outgoing
from .loop import Loop

CARDS = ("eno1", "eno2")
SOCKET = "lan"
_KNOWN = 4096
_WAITING = 1024

Take = Callable[[str, bytes, float], None]


def folder(run: Path, node: str) -> Path:
    """Return where a node's network has its sockets."""
    return run / node / "net"


class Lan:
    """A node's end of the cables.

    Args:
        loop: of the node.
        run: the folder of all nodes' sockets.
        node: its name.
        nodes: all names.
        plugged: says whether the node's cable is in.
        take: gets the card, the frame and the time.

    Attributes:
        lost: how many frames came while the node's cable was out.
    """

    def __init__(  # noqa: PLR0917
        self, loop: Loop, run: Path, node: str, nodes: tuple[str, ...], plugged: Callable[[], bool], take: Take
    ) -> None:
        self._node = node
        self._plugged = plugged
        self._take = take
        self._known: dict[tuple[str, bytes], str] = {}
        self.lost = 0
        others = [name for name in nodes if name != node]
        self._others = {name: Outgoing(loop, folder(run, name) / SOCKET, _WAITING) for name in others}
        self._incoming = Incoming(loop, folder(run, node) / SOCKET, self._arrived)

    def send(self, card: str, frame: bytes) -> bool:
        """Send a frame out of a card. The cable takes whatever it gets; only a cable that is out does not."""
        if not self._plugged():
            return False
        message = b"%s\0%s\0%s" % (card.encode(), self._node.encode(), frame)
        known = self._known.get((card, frame[:6]))
        if known is not None and self._others[known].send(message):
            return True
        if known is not None:
            del self._known[card, frame[:6]]  # it is not there any more: ask everybody
        for other in self._others.values():
            other.send(message)
        return True

    def _arrived(self, message: bytes, now: float) -> None:
        if not self._plugged():
            self.lost += 1
            return
        parts = message.split(b"\0", 2)
        if len(parts) != 3:
            return
        card, node, frame = parts[0].decode(errors="replace"), parts[1].decode(errors="replace"), parts[2]
        if node not in self._others or len(frame) < 14:
            return
        if not frame[6] & 1:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[card, frame[6:12]] = node
        self._take(card, frame, now)

    def forget(self, mac: bytes) -> None:
        """Forget where an address was."""
        for card in CARDS:
            self._known.pop((card, mac), None)

    def close(self) -> None:
        """Pull the cables."""
        self._incoming.close()
        for other in self._others.values():
            other.close()
