"""Is a placement of VMs on nodes good? Loads, and what happens when a node is lost. Answers are judged, not compared.

VMs and nodes are plain data: name → ``{"cores": …, "ram_mib": …}``. A placement is VM name → node name. Cores and RAM
are not overcommitted here: the sum of what a node's VMs were promised stays within what the node has.

N+1: any *one* node may be lost, and its VMs must find room on the others, which keep what they already run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Sizes = Mapping[str, Mapping[str, int]]
Placement = Mapping[str, str]

RESOURCES = ("cores", "ram_mib")


def free(vms: Sizes, nodes: Sizes, placement: Placement) -> dict[str, dict[str, int]]:
    """What each node has left, per resource; negative where it is overloaded."""
    left = {name: {resource: node[resource] for resource in RESOURCES} for name, node in nodes.items()}
    for vm, node in placement.items():
        for resource in RESOURCES:
            left[node][resource] -= vms[vm][resource]
    return left


def refuge(vms: Sizes, nodes: Sizes, placement: Placement, lost: str) -> dict[str, str] | None:
    """Find where the VMs of node `lost` can start again, or None when there is no way (exact search).

    The search places the largest VM first and tries nodes with the same room only once.
    """
    left = free(vms, nodes, placement)
    del left[lost]
    homeless = sorted((vm for vm, node in placement.items() if node == lost), key=lambda v: -vms[v]["ram_mib"])
    found: dict[str, str] = {}

    def place(index: int) -> bool:
        if index == len(homeless):
            return True
        need, tried = vms[homeless[index]], set()
        for node, room in left.items():
            state = tuple(room.values())
            if state in tried or any(room[r] < need[r] for r in RESOURCES):
                continue
            tried.add(state)
            for r in RESOURCES:
                room[r] -= need[r]
            if place(index + 1):
                found[homeless[index]] = node
                return True
            for r in RESOURCES:
                room[r] += need[r]
        return False

    return found if place(0) else None


def unsurvived(vms: Sizes, nodes: Sizes, placement: Placement) -> list[str]:
    """The nodes whose loss the cluster does not survive, in the order of `nodes`."""
    return [node for node in nodes if refuge(vms, nodes, placement, node) is None]


def sizes_problem(sizes: Any, what: str, at_most: int = 12) -> str:
    """Say what is wrong with VMs or nodes that a student wrote; empty when they are well formed."""
    if not isinstance(sizes, dict) or not 0 < len(sizes) <= at_most:
        return f"{what} is {sizes!r}; expected a dict with 1 to {at_most} entries"
    for name, size in sizes.items():
        if not isinstance(name, str) or not isinstance(size, dict) or set(size) != set(RESOURCES):
            return f'{what}[{name!r}] is {size!r}; expected {{"cores": …, "ram_mib": …}} under a name'
        for resource, value in size.items():
            if type(value) is not int or value < 1:
                return f"{what}[{name!r}][{resource!r}] is {value!r}; expected a whole number, at least 1"
    return ""
