"""High availability: who decides, who acts, and what happens to the guests of a node that died.

- `states`: services, nodes and the status that all nodes share.
- `world`: what the two daemons see of their node and of the cluster; a simulation and a live node provide it.
- `placement`: which node a service may and should run on.
- `manager`: one round of decisions of the node that holds the manager's lock.
- `crm`: the cluster resource manager: election, master or slave.
- `lrm`: the local resource manager: does what was decided for its own node, and gives up when the cluster lost it.
- `resources`: what starting, stopping and moving a service means, step by step.
- `simulation`: hardware that does not exist, with a virtual clock.
- `live`, `store`, `agent`: a real node's daemons, their files and their way to the guests.
- `hooks`: what calls about a managed guest do in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..node import Node


def attach(node: Node) -> None:
    """Let a node take part."""
    from .live import HighAvailability  # noqa: PLC0415 - the layer is loaded when a node wants it

    node.ha = HighAvailability(node)
    node.ha.start()


def detach(node: Node) -> None:
    """Let a node take part no more."""
    if node.ha is not None:
        node.ha.close()
        node.ha = None
