"""Which node a service may and should run on.

Source: the expected logs of pve-ha-manager's scenarios; the manual page of ``ha-manager``, "Groups".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LEAST_PRIORITY = -1


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that services prefer.

    Attributes:
        priorities: the group's nodes; a higher number is preferred.
        restricted: whether other nodes are out of the question.
        nofailback: whether a service stays where it is when a better node comes back.
    """

    priorities: Mapping[str, int]
    restricted: bool = False
    nofailback: bool = False

    @classmethod
    def parse(cls, nodes: str, *, restricted: bool = False, nofailback: bool = False) -> Group:
        """Read ``node1:2,node2``: a node without a number has priority 0."""
        pairs = (entry.strip().partition(":") for entry in nodes.replace(";", ",").split(",") if entry.strip())
        return cls({node: int(priority or 0) for node, _, priority in pairs}, restricted, nofailback)


ANYWHERE = Group({})


def classes(group: Group | None, online: Collection[str]) -> list[list[str]]:
    """Return the nodes that are there and allowed, the preferred ones first, equals together."""
    group = group or ANYWHERE
    by_priority: dict[int, list[str]] = {}
    for node in sorted(online):
        if node in group.priorities:
            by_priority.setdefault(group.priorities[node], []).append(node)
        elif not group.restricted:
            by_priority.setdefault(LEAST_PRIORITY, []).append(node)
    return [by_priority[priority] for priority in sorted(by_priority, reverse=True)]


def choose(
    group: Group | None,
    usage: Mapping[str, int],
    current: str,
    *,
    tried: Collection[str] = (),
    maintenance_node: str | None = None,
    leave: bool = False,
) -> str | None:
    """Return the node that a service should run on.

    Args:
        group: the service's; None for every node alike.
        usage: how many services the nodes that are there have.
        current: where it is.
        tried: nodes where it could not be started.
        maintenance_node: the node it left for maintenance: it goes back there if that one is there again.
        leave: whether it cannot stay where it is.

    Returns:
        The node; None when none is left.
    """
    ranked = classes(group, usage)
    if not ranked:
        return None
    if maintenance_node in ranked[0]:
        return maintenance_node
    if not leave:
        stays = ranked if group and group.nofailback else ranked[:1]
        if any(current in nodes for nodes in stays):
            return current
    for nodes in ranked:
        fresh = [node for node in nodes if node not in tried]
        if fresh:
            return min(fresh, key=lambda node: (usage[node], node))
    return None
