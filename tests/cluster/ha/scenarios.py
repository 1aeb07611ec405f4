"""Upstream's scenarios read as events and configurations of our simulation."""

from __future__ import annotations

import json
from pathlib import Path

from course.cluster.ha.placement import Group
from course.cluster.ha.simulation import Simulation
from course.cluster.ha.states import Resource, Wish


def play(folder: Path) -> list[str]:
    """Play a scenario and return its log."""
    datacenter = _load(folder / "datacenter.cfg")
    simulation = Simulation(
        {node: state["power"] == "on" for node, state in _load(folder / "hardware_status").items()},
        {sid: _resource(entry) for sid, entry in _load(folder / "service_config").items()},
        groups=_groups(folder / "groups"),
        manager_status=_load(folder / "manager_status"),
        shutdown_policy=datacenter.get("ha", {}).get("shutdown_policy", "conditional"),
    )
    return simulation.run(_load(folder / "cmdlist"))


def _load(path: Path):
    return json.loads(path.read_text() or "{}") if path.exists() else {}


def _resource(entry) -> Resource:
    state = entry.get("state", "disabled")
    return Resource(
        node=entry["node"],
        state=Wish.STARTED if state == "enabled" else Wish(state),
        group=entry.get("group", ""),
        max_restart=int(entry.get("max_restart", 1)),
        max_relocate=int(entry.get("max_relocate", 1)),
    )


def _groups(path: Path) -> dict[str, Group]:
    groups = {}
    for section in (path.read_text() if path.exists() else "").split("group:")[1:]:
        name, *lines = section.split("\n")
        properties = dict(line.split() for line in lines if line.strip())
        groups[name.strip()] = Group.parse(
            properties["nodes"],
            restricted=properties.get("restricted") == "1",
            nofailback=properties.get("nofailback") == "1",
        )
    return groups
