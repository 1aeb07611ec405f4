"""Answers to `counterexample`."""

from __future__ import annotations

from .. import alternative, mutant


def _nodes(*gib, cores=8):
    return {
        name: {"cores": cores, "ram_mib": 1024 * size} for name, size in zip(("franklin", "trevor", "michael"), gib)
    }


def _vms(*gib, cores=1):
    return {f"vm{i}": {"cores": cores, "ram_mib": 1024 * size} for i, size in enumerate(gib)}


@mutant("counterexample", "survived")
def small_vms():
    return {"vms": _vms(2, 2, 2), "nodes": _nodes(8, 8, 8)}


@mutant("counterexample", "refused")
def too_much():
    return {"vms": _vms(7, 7, 7), "nodes": _nodes(8, 8, 8)}


@mutant("counterexample", "refused")
def larger_than_a_node():
    return {"vms": _vms(12), "nodes": _nodes(8, 8, 8)}


@mutant("counterexample", "not-an-instance")
def negative():
    return {"vms": {"a": {"cores": 1, "ram_mib": -5}}, "nodes": _nodes(8, 8, 8)}


@mutant("counterexample", "not-an-instance")
def no_nodes():
    return {"vms": _vms(1), "nodes": {}}


@mutant("counterexample", "not-an-instance")
def a_placement():
    return {"vm0": "franklin"}


@mutant("counterexample", "not-an-instance")
def as_text():
    return {"vms": {"a": {"cores": "1", "ram_mib": "5"}}, "nodes": _nodes(8, 8, 8)}


@alternative("counterexample")
def three_large_ones():
    return {"vms": _vms(5, 5, 5), "nodes": _nodes(8, 8, 8)}


@alternative("counterexample")
def one_large_one():
    return {"vms": _vms(10, 5, 5), "nodes": _nodes(16, 12, 12)}


@alternative("counterexample")
def by_cores():
    return {"vms": _vms(2, 2, 2, cores=5), "nodes": _nodes(64, 64, 64)}


@alternative("counterexample")
def four_nodes():
    nodes = {**_nodes(8, 8, 8), "lamar": {"cores": 8, "ram_mib": 8192}}
    return {"vms": _vms(6, 4, 4, 4), "nodes": nodes}
