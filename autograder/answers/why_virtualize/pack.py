"""Answers to `pack`."""

from __future__ import annotations

import itertools
import random

from .. import alternative, mutant
from .fatal_losses import BOTH, _fits, _free, losses, room_in_total


def _search(vms, nodes, resources=BOTH, good=lambda vms, nodes, placement: True):
    """The first placement, in the order of `product`, that fits and is good."""
    for way in itertools.product(nodes, repeat=len(vms)):
        placement = dict(zip(vms, way))
        if _fits(vms, nodes, placement, resources) and good(vms, nodes, placement):
            return placement
    return None


def _survives(vms, nodes, placement):
    return not losses(vms, nodes, placement)


@mutant("pack", "ignores-ram")
def cores_only(vms, nodes):
    return _search(vms, nodes, ("cores",), lambda *p: not losses(*p, ("cores",)))


@mutant("pack", "ignores-cores")
def ram_only(vms, nodes):
    return _search(vms, nodes, ("ram_mib",), lambda *p: not losses(*p, ("ram_mib",)))


@mutant("pack", "no-n-plus-1")
def it_fits(vms, nodes):
    return _search(vms, nodes)


@mutant("pack", "only-total")
def total_room(vms, nodes):
    return _search(vms, nodes, good=lambda *p: not room_in_total(*p))


@mutant("pack", "none-too-easily")
def largest_on_emptiest(vms, nodes):
    placement = {}
    for vm in sorted(vms, key=lambda name: -vms[name]["ram_mib"]):
        left = _free(vms, nodes, placement)
        fitting = [n for n in nodes if all(left[n][r] >= vms[vm][r] for r in BOTH)]
        if not fitting:
            return None
        placement[vm] = max(fitting, key=lambda n: left[n]["ram_mib"])
    return placement if _survives(vms, nodes, placement) else None


@mutant("pack", "none-too-easily")
def never(vms, nodes):
    return None


@mutant("pack", "incomplete")
def leaves_one_out(vms, nodes):
    placement = _search(vms, nodes, good=_survives)
    if placement:
        placement.popitem()
    return placement


@mutant("pack", "unknown-name")
def nodes_of_the_lesson(vms, nodes):
    three = dict(zip(("franklin", "trevor", "michael"), [*nodes.values(), *nodes.values()]))
    return _search(vms, three, good=_survives)


@mutant("pack", "not-a-dict")
def list_of_nodes(vms, nodes):
    placement = _search(vms, nodes, good=_survives)
    return placement and list(placement.values())


@mutant("pack", "none-too-easily")
def nodes_are_alike(vms, nodes):
    smallest = {r: min(node[r] for node in nodes.values()) for r in BOTH}
    return _search(vms, dict.fromkeys(nodes, smallest), good=_survives)


@alternative("pack")
def all_ways(vms, nodes):
    return _search(vms, nodes, good=_survives)


@alternative("pack")
def backtracking(vms, nodes):
    order = sorted(vms, key=lambda vm: (-vms[vm]["ram_mib"], -vms[vm]["cores"]))

    def extend(placement):
        if len(placement) == len(order):
            return placement if _survives(vms, nodes, placement) else None
        vm = order[len(placement)]
        left = _free(vms, nodes, placement)
        for node in sorted(nodes, key=lambda n: -left[n]["ram_mib"]):
            if all(left[node][r] >= vms[vm][r] for r in BOTH):
                found = extend({**placement, vm: node})
                if found:
                    return found
        return None

    return extend({})


@alternative("pack")
def lucky_then_thorough(vms, nodes):
    rng = random.Random(7)
    for _ in range(10):
        placement = {vm: rng.choice(list(nodes)) for vm in vms}
        if _fits(vms, nodes, placement) and _survives(vms, nodes, placement):
            return placement
    return _search(vms, nodes, good=_survives)


@alternative("pack")
def one_node_stays_empty(vms, nodes):
    # Enough whenever one node is the largest in both cores and RAM: all VMs of any lost node fit on the empty one.
    for spare in sorted(nodes, key=lambda n: -nodes[n]["ram_mib"]):
        found = _search(vms, {n: nodes[n] for n in nodes if n != spare})
        if found and _survives(vms, nodes, found):
            return found
    return _search(vms, nodes, good=_survives)
