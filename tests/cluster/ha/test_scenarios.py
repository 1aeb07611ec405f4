"""The engine of high availability: upstream's scenarios line by line, and what must hold in any course of events."""

from __future__ import annotations

import random

import pytest

from course.cluster.ha.placement import Group, choose
from course.cluster.ha.simulation import SimulatedWorld, Simulation
from course.cluster.ha.states import Resource, ServiceState, Wish
from course.error import UsageError
from tests.cluster.ha.scenarios import play

NODES = ("node1", "node2", "node3")


def test_upstream_scenarios(pve, compare):
    """Every log line of every scenario is as in upstream's own test; the static scheduler's seven are not played."""
    folders = [folder for folder in sorted((pve / "vectors/ha-4.0.3").glob("test-*")) if _is_playable(folder.name)]
    cases = [(folder.name, (folder / "log.expect").read_text().splitlines(), play(folder)) for folder in folders]
    compare("HA scenarios (7 more need the static resource scheduler)", cases)


def _is_playable(name: str) -> bool:
    return "crs-static" not in name


def three_nodes(**services: Resource) -> Simulation:
    """Return a cluster that is switched off, with services vm:<number>."""
    resources = {name.replace("_", ":"): resource for name, resource in services.items()}
    return Simulation(dict.fromkeys(NODES, False), resources)


ALL_ON = [f"power {node} on" for node in NODES]


def test_a_dead_nodes_machine_runs_elsewhere_and_only_after_the_fencing():
    """Recovery begins after the manager got the dead node's lock."""
    log = three_nodes(vm_101=Resource("node2")).run([ALL_ON, ["power node2 off"]])
    text = "\n".join(log)
    fenced, started = text.index("SUCCEED: fencing"), text.rindex("starting service vm:101")
    assert fenced < started
    assert "node1/lrm: starting service vm:101" in text


@pytest.mark.parametrize("seed", range(12))
def test_no_service_ever_runs_twice(seed):
    """Whatever happens to nodes, cables and services, and when: no service runs on two nodes."""
    chance = random.Random(seed)
    events = [
        *(f"power {node} {switch}" for node in NODES for switch in ("on", "off")),
        *(f"network {node} {switch}" for node in NODES for switch in ("on", "off")),
        *(f"service vm:{number} {move} {node}" for number in (1, 2) for move in ("migrate",) for node in NODES),
        *(f"service vm:{number} {wish}" for number in (1, 2) for wish in ("started", "disabled", "stopped")),
        *(f"crm {node} {request}-node-maintenance" for node in NODES for request in ("enable", "disable")),
        *(f"delay {seconds}" for seconds in (0, 100, 200)),
    ]
    simulation = three_nodes(vm_1=Resource("node1"), vm_2=Resource("node3"))
    script = [chance.choices(events, k=chance.randint(1, 3)) for _ in range(40)]
    log = simulation.run([ALL_ON, *script, ALL_ON])
    assert simulation.split_brains == []
    assert any("starting service" in line for line in log)


def test_a_service_stays_where_it_is_when_its_group_does_not_fail_back():
    """With nofailback a better node that comes back changes nothing."""
    better = {"node1": 2, "node2": 1}
    usage = dict.fromkeys(NODES, 0)
    assert choose(Group(better), usage, "node2") == "node1"
    assert choose(Group(better, nofailback=True), usage, "node2") == "node2"


def test_a_restricted_group_leaves_no_other_node():
    """Outside of a restricted group there is nothing to choose."""
    assert choose(Group({"node1": 0}, restricted=True), {"node2": 0, "node3": 0}, "node1") is None
    assert choose(Group({"node1": 0}), {"node2": 1, "node3": 0}, "node1") == "node3"


def test_a_group_is_read_with_its_priorities():
    """``node1:2,node2`` prefers node1."""
    assert Group.parse("node1:2,node2").priorities == {"node1": 2, "node2": 0}


def test_an_unknown_event_is_named():
    """An event that nobody can mean is refused with its words."""
    with pytest.raises(UsageError, match="explode node1"):
        three_nodes(vm_1=Resource("node1", Wish.STARTED)).run([["explode node1"]])


def test_a_service_whose_files_are_on_their_way_is_left_alone(monkeypatch):
    """While a migration works, its configuration may be on the target already: that is no mistake of anybody."""
    working = set()
    begin = SimulatedWorld.begin

    def begin_only(world, sid, uid, command):
        if command.kind is ServiceState.MIGRATE:
            world.move_config(sid, world.node, command.target)
            working.add(sid)
        else:
            begin(world, sid, uid, command)

    monkeypatch.setattr(SimulatedWorld, "begin", begin_only)
    monkeypatch.setattr(SimulatedWorld, "busy", lambda world, sid: sid in working)
    log = three_nodes(vm_101=Resource("node2")).run([ALL_ON, ["service vm:101 migrate node3"]])
    assert working == {"vm:101"}
    assert [line for line in log if line.startswith("err")] == []
