"""Virtual machines of the lab cluster: each one a QEMU process of its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..node import Node


def attach(node: Node) -> None:
    """Give a node its registry of running machines."""
    import threading  # noqa: PLC0415 - the layer is loaded when a node wants it

    from . import bulk, incoming, status  # noqa: PLC0415 - likewise
    from .console import Consoles  # noqa: PLC0415 - likewise
    from .running import Guests  # noqa: PLC0415 - likewise

    node.guests = Guests(node)
    node.consoles = Consoles()
    node.statistics.sources.append(lambda: status.resources(node))
    if node.rack is not None:  # a real node, not one in a test of a layer
        threading.Thread(target=bulk.start_with_node, args=(node,), name="startall", daemon=True).start()
        node.every(2.0, lambda: incoming.sweep(node), "incoming machines")


def detach(node: Node) -> None:
    """End the machines of a node that goes down."""
    if node.guests is not None:
        node.guests.close()
