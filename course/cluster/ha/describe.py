"""How the services are, in the words of ``ha-manager status``."""

from __future__ import annotations

import time
from typing import Any

from ..state import State
from .states import LocalStatus, ManagerStatus, Mode, Service, ServiceState
from .store import MANAGER, RESOURCES, Store, local_status, vmid_of

OLD_S = 30
DRIFT_S = -2


def local(state: State, node: str) -> LocalStatus:
    """Return what a node's resource manager told last."""
    return LocalStatus.from_document(Store(state).status(local_status(node)))


def current(state: State, node: str, now: int) -> list[dict[str, Any]]:
    """Return the entries of ``/cluster/ha/status/current``.

    Args:
        state: the cluster's files.
        node: who is asked.
        now: seconds.
    """
    store = Store(state)
    manager = ManagerStatus.from_document(store.status(MANAGER))
    sections = store.sections(RESOURCES)
    entries = [_quorum(state, node)]
    if manager.master:
        entries.append(_master(manager, now))
    entries += [_agent(name, local(state, name), manager, now) for name in state.nodes]
    guests = state.guests()
    for sid in sorted({*sections, *manager.services}):
        place = guests.get(vmid_of(sid))
        values = sections[sid].values if sid in sections else {}
        entries.append(_service(sid, values, manager.services.get(sid), place.node if place else ""))
    return entries


def _quorum(state: State, node: str) -> dict[str, Any]:
    quorate = state.quorate()
    words = "OK" if quorate else f"No quorum on node '{node}'!"
    return {"id": "quorum", "type": "quorum", "node": node, "status": words, "quorate": int(quorate)}


def _age(now: int, timestamp: int) -> str:
    age = now - timestamp
    return "old timestamp - dead?" if age > OLD_S else "detected time drift!" if age < DRIFT_S else "active"


def _at(timestamp: int) -> str:
    return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(timestamp))


def _master(manager: ManagerStatus, now: int) -> dict[str, Any]:
    words = "idle" if not manager.services and now - manager.timestamp > OLD_S else _age(now, manager.timestamp)
    return {
        "id": "master",
        "type": "master",
        "node": manager.master,
        "status": f"{manager.master} ({words}, {_at(manager.timestamp)})",
        "timestamp": manager.timestamp,
    }


def _agent(node: str, status: LocalStatus, manager: ManagerStatus, now: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": f"lrm:{node}", "type": "lrm", "node": node}
    if not status.timestamp:
        return {**entry, "status": f"{node} (unable to read lrm status)"}
    words = _age(now, status.timestamp)
    if words == "active":
        words = _state(status)
    return {**entry, "status": f"{node} ({words}, {_at(status.timestamp)})", "timestamp": status.timestamp}


def _state(status: LocalStatus) -> str:
    if status.mode is Mode.MAINTENANCE:
        return "maintenance mode"
    if status.mode is not Mode.ACTIVE:
        return str(status.mode)
    return {"wait_for_agent_lock": "idle", "lost_agent_lock": "lost agent lock"}.get(status.state, status.state)


def _service(sid: str, values: dict[str, str], service: Service | None, node: str) -> dict[str, Any]:
    wish = values.get("state", "started")
    state = _verbose(wish, service, configured=bool(values))
    where = service.node if service else node
    entry: dict[str, Any] = {
        "id": f"service:{sid}",
        "type": "service",
        "sid": sid,
        "node": where,
        "state": state,
        "status": f"{sid} ({where}, {state})",
        "request_state": wish,
        "max_restart": int(values.get("max_restart", 1)),
        "max_relocate": int(values.get("max_relocate", 1)),
    }
    if service:
        entry["crm_state"] = str(service.state)
    if "group" in values:
        entry["group"] = values["group"]
    return entry


def _verbose(wish: str, service: Service | None, *, configured: bool) -> str:
    """Return a service's state with what a person wants to know besides."""
    if not configured:
        return "deleting"
    if wish == "ignored":
        return wish
    if service is None:
        return "queued"
    if service.state is ServiceState.STARTED and not service.running:
        return "starting"
    if service.state is ServiceState.STOPPED and wish == "disabled":
        return "disabled"
    return str(service.state)
