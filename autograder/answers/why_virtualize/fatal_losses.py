"""Answers to `fatal_losses`."""

from __future__ import annotations

import functools
import itertools

from .. import alternative, mutant

BOTH = ("cores", "ram_mib")


def _free(vms, nodes, placement, resources=BOTH):
    left = {n: {r: nodes[n][r] for r in resources} for n in nodes}
    for vm, node in placement.items():
        for r in resources:
            left[node][r] -= vms[vm][r]
    return left


def _fits(vms, left, homes, resources=BOTH):
    """True when every VM of `homes` (VM → node) has its room in `left`."""
    return all(left[n][r] >= sum(vms[vm][r] for vm in homes if homes[vm] == n) for n in left for r in resources)


def losses(vms, nodes, placement, resources=BOTH):
    """Try every way: shared by many answers."""
    fatal = []
    left = _free(vms, nodes, placement, resources)
    for lost in nodes:
        homeless = [vm for vm in placement if placement[vm] == lost]
        others = [n for n in nodes if n != lost]
        room = {n: left[n] for n in others}
        ways = itertools.product(others, repeat=len(homeless))
        if not any(_fits(vms, room, dict(zip(homeless, way)), resources) for way in ways):
            fatal.append(lost)
    return fatal


@mutant("fatal_losses", "ignores-ram")
def cores_only(vms, nodes, placement):
    return losses(vms, nodes, placement, ("cores",))


@mutant("fatal_losses", "ignores-cores")
def ram_only(vms, nodes, placement):
    return losses(vms, nodes, placement, ("ram_mib",))


@mutant("fatal_losses", "ignores-survivors")
def survivors_are_empty(vms, nodes, placement):
    fatal = []
    for lost in nodes:
        homeless = [vm for vm in placement if placement[vm] == lost]
        others = {n: nodes[n] for n in nodes if n != lost}
        ways = itertools.product(others, repeat=len(homeless))
        if not any(_fits(vms, others, dict(zip(homeless, way))) for way in ways):
            fatal.append(lost)
    return fatal


@mutant("fatal_losses", "alarm")
def every_used_node_is_fatal(vms, nodes, placement):
    return sorted(set(placement.values()))


@mutant("fatal_losses", "alarm")
def one_node_must_take_all(vms, nodes, placement):
    left = _free(vms, nodes, placement)
    fatal = []
    for lost in nodes:
        need = {r: sum(vms[vm][r] for vm in placement if placement[vm] == lost) for r in BOTH}
        if not any(all(left[n][r] >= need[r] for r in BOTH) for n in nodes if n != lost):
            fatal.append(lost)
    return fatal


@mutant("fatal_losses", "each-alone")
def each_alone(vms, nodes, placement):
    left = _free(vms, nodes, placement)
    return [
        lost
        for lost in nodes
        for homeless in [[vm for vm in placement if placement[vm] == lost]]
        if not all(any(all(left[n][r] >= vms[vm][r] for r in BOTH) for n in nodes if n != lost) for vm in homeless)
    ]


@mutant("fatal_losses", "only-total")
def room_in_total(vms, nodes, placement):
    left = _free(vms, nodes, placement)
    fatal = []
    for lost in nodes:
        homeless = [vm for vm in placement if placement[vm] == lost]
        if any(sum(left[n][r] for n in nodes if n != lost) < sum(vms[vm][r] for vm in homeless) for r in BOTH):
            fatal.append(lost)
    return fatal


def _greedy(vms, nodes, placement, order, choose):
    fatal = []
    for lost in nodes:
        left = _free(vms, nodes, placement)
        del left[lost]
        for vm in order([vm for vm in placement if placement[vm] == lost], vms):
            fitting = [n for n in left if all(left[n][r] >= vms[vm][r] for r in BOTH)]
            if not fitting:
                fatal.append(lost)
                break
            node = choose(fitting, left)
            for r in BOTH:
                left[node][r] -= vms[vm][r]
    return fatal


def _as_given(names, vms):
    return names


def _largest_first(names, vms):
    return sorted(names, key=lambda vm: -vms[vm]["ram_mib"])


@mutant("fatal_losses", "first-fit")
def first_fit(vms, nodes, placement):
    return _greedy(vms, nodes, placement, _as_given, lambda fitting, left: fitting[0])


@mutant("fatal_losses", "first-fit")
def largest_first(vms, nodes, placement):
    return _greedy(vms, nodes, placement, _largest_first, lambda fitting, left: fitting[0])


@mutant("fatal_losses", "first-fit")
def fullest_node(vms, nodes, placement):
    return _greedy(vms, nodes, placement, _largest_first, lambda f, left: min(f, key=lambda n: left[n]["ram_mib"]))


@mutant("fatal_losses", "moves-others")
def all_anew(vms, nodes, placement):
    fatal = []
    for lost in nodes:
        others = {n: nodes[n] for n in nodes if n != lost}
        ways = itertools.product(others, repeat=len(placement))
        if lost in placement.values() and not any(_fits(vms, others, dict(zip(placement, way))) for way in ways):
            fatal.append(lost)
    return fatal


@mutant("fatal_losses", "not-node-names")
def true_or_false(vms, nodes, placement):
    return not losses(vms, nodes, placement)


@alternative("fatal_losses")
def all_ways(vms, nodes, placement):
    return losses(vms, nodes, placement)


@alternative("fatal_losses")
def recursive(vms, nodes, placement):
    def restart(homeless, left):
        if not homeless:
            return True
        vm, rest = vms[homeless[0]], homeless[1:]
        return any(
            restart(rest, {**left, n: (c - vm["cores"], m - vm["ram_mib"])})
            for n, (c, m) in left.items()
            if c >= vm["cores"] and m >= vm["ram_mib"]
        )

    left = {n: (f["cores"], f["ram_mib"]) for n, f in _free(vms, nodes, placement).items()}
    return {
        lost
        for lost in nodes
        if not restart([v for v in vms if placement[v] == lost], {n: f for n, f in left.items() if n != lost})
    }


@alternative("fatal_losses")
def with_memory(vms, nodes, placement):
    fatal = []
    for lost in reversed(nodes):
        sizes = tuple((vms[v]["cores"], vms[v]["ram_mib"]) for v in placement if placement[v] == lost)

        @functools.cache
        def can(index, room, sizes=sizes):
            if index == len(sizes):
                return True
            cores, ram = sizes[index]
            return any(
                c >= cores
                and m >= ram
                and can(index + 1, tuple(sorted([*room[:i], (c - cores, m - ram), *room[i + 1 :]])))
                for i, (c, m) in enumerate(room)
            )

        free = _free(vms, nodes, placement)
        if not can(0, tuple(sorted((free[n]["cores"], free[n]["ram_mib"]) for n in nodes if n != lost))):
            fatal.append(lost)
    return fatal
