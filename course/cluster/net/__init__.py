"""The network of the lab: bridges of each node, cables between the nodes, and the firewall's four levels.

==============  =====================================================================================
`fabric`        a node's bridges and the ports of its guests; what the other layers call
`loop`          the one thread of a node that moves frames
`datagrams`     Unix sockets to QEMU and to other nodes
`lan`           the cables between the nodes
`interfaces`    ``/etc/network/interfaces``
`levels`        firewall files of datacenter, node and guest, as guards of `course.network`
`firewalllog`   what the firewall writes down
`stack`         the node itself on its bridges: it answers ARP and pings, and refuses the rest
`witness`       what happened on the wire, for checks
==============  =====================================================================================
"""

from __future__ import annotations

from typing import Any

from .fabric import Fabric


def attach(node: Any) -> None:
    """Give a node its network."""
    node.fabric = Fabric(node)
    node.fabric.start()


def detach(node: Any) -> None:
    """Take it down."""
    if node.fabric is not None:
        node.fabric.stop()
        node.fabric = None
