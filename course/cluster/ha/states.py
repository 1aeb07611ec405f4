"""What the cluster knows about services and nodes: the content of ``ha/manager_status``.

A service goes through these states; every change of state has a number of its own (`uid`), so that the answer of a
local resource manager can be matched with the question::

    request_start ──► started ◄──► migrate, relocate
                        │  ▲
              freeze ◄──┤  └── recovery ◄── fence ◄── (its node is gone)
                        ▼
    request_stop ───► stopped          error: until somebody disables the service

Source: the expected logs of the scenarios of pve-ha-manager's own tests; its administration guide, chapter 15.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ServiceState(enum.StrEnum):
    """What is being done with a service."""

    REQUEST_START = "request_start"
    STARTED = "started"
    REQUEST_STOP = "request_stop"
    STOPPED = "stopped"
    MIGRATE = "migrate"
    RELOCATE = "relocate"
    FENCE = "fence"
    RECOVERY = "recovery"
    FREEZE = "freeze"
    ERROR = "error"


class NodeState(enum.StrEnum):
    """What the manager thinks of a node."""

    ONLINE = "online"
    UNKNOWN = "unknown"
    FENCE = "fence"
    MAINTENANCE = "maintenance"
    GONE = "gone"


class Wish(enum.StrEnum):
    """What people asked for a service: ``state`` in ``resources.cfg``."""

    STARTED = "started"
    STOPPED = "stopped"
    DISABLED = "disabled"
    IGNORED = "ignored"


class Mode(enum.StrEnum):
    """What a local resource manager says of itself."""

    ACTIVE = "active"
    MAINTENANCE = "maintenance"
    SHUTDOWN = "shutdown"
    RESTART = "restart"


class Exit(enum.IntEnum):
    """How a local resource manager's attempt ended."""

    SUCCESS = 0
    ERROR = 1
    RETRY = 2
    WRONG_NODE = 3


@dataclass(frozen=True, slots=True)
class Resource:
    """A managed service as it is configured.

    Attributes:
        node: where its configuration is.
        state: what people want.
        group: whose nodes it prefers; "" for none.
        max_restart: attempts to start it again on one node.
        max_relocate: other nodes to try after that.
    """

    node: str
    state: Wish = Wish.STARTED
    group: str = ""
    max_restart: int = 1
    max_relocate: int = 1


@dataclass(slots=True)
class Service:
    """A managed service as the manager sees it.

    Attributes:
        uid: of the present state.
        target: the node it is on its way to.
        timeout_s: how long a stop that somebody asked for may take.
        maintenance_node: the node that it left because of maintenance, and to which it goes back.
        failed_nodes: where it could not be started, in order.
        running: whether its node said that it runs.
        command: what somebody asked for and has not been looked at: ``("migrate", "node1")``.
    """

    state: ServiceState
    node: str
    uid: str = ""
    target: str | None = None
    timeout_s: int | None = None
    maintenance_node: str | None = None
    failed_nodes: list[str] = field(default_factory=list)
    running: bool = False
    command: tuple[str, str] | None = None

    def document(self) -> dict[str, Any]:
        """Return what is written to ``manager_status``: without what is empty."""
        whole = {
            "state": str(self.state),
            "node": self.node,
            "uid": self.uid,
            "target": self.target,
            "timeout": self.timeout_s,
            "maintenance_node": self.maintenance_node,
            "failed_nodes": list(self.failed_nodes) or None,
            "running": 1 if self.running else None,
            "cmd": list(self.command) if self.command else None,
        }
        return {key: value for key, value in whole.items() if value is not None}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Service:
        """Read what `document` wrote."""
        command = document.get("cmd")
        return cls(
            state=ServiceState(document["state"]),
            node=str(document["node"]),
            uid=str(document.get("uid", "")),
            target=document.get("target"),
            timeout_s=document.get("timeout"),
            maintenance_node=document.get("maintenance_node"),
            failed_nodes=list(document.get("failed_nodes", [])),
            running=bool(document.get("running")),
            command=(str(command[0]), str(command[1])) if command else None,
        )


@dataclass(slots=True)
class ManagerStatus:
    """The manager's memory: a new master goes on where the old one ended.

    Attributes:
        requests: nodes that somebody put into maintenance.
        timestamp: of the last round, in seconds.
    """

    master: str = ""
    timestamp: int = 0
    nodes: dict[str, NodeState] = field(default_factory=dict)
    requests: dict[str, dict[str, int]] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return what is written to ``manager_status``."""
        return {
            "master_node": self.master,
            "timestamp": self.timestamp,
            "node_status": {node: str(state) for node, state in self.nodes.items()},
            "node_request": self.requests,
            "service_status": {sid: service.document() for sid, service in self.services.items()},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ManagerStatus:
        """Read what `document` wrote; an empty one is that of a cluster that never had a manager."""
        services = document.get("service_status", {})
        return cls(
            master=str(document.get("master_node", "")),
            timestamp=int(document.get("timestamp", 0)),
            nodes={node: NodeState(state) for node, state in document.get("node_status", {}).items()},
            requests={node: dict(wanted) for node, wanted in document.get("node_request", {}).items()},
            services={sid: Service.from_document(entry) for sid, entry in services.items()},
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a local resource manager answers about one `uid`."""

    sid: str
    exit: Exit


@dataclass(slots=True)
class LocalStatus:
    """What a local resource manager tells the others: the content of ``nodes/<node>/lrm_status``."""

    mode: Mode = Mode.ACTIVE
    state: str = "wait_for_agent_lock"
    timestamp: int = 0
    results: dict[str, Result] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return what is written to ``lrm_status``."""
        results = {uid: {"sid": result.sid, "exit_code": int(result.exit)} for uid, result in self.results.items()}
        return {"mode": str(self.mode), "state": self.state, "timestamp": self.timestamp, "results": results}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LocalStatus:
        """Read what `document` wrote."""
        results = document.get("results", {})
        return cls(
            mode=Mode(document.get("mode", "active")),
            state=str(document.get("state", "wait_for_agent_lock")),
            timestamp=int(document.get("timestamp", 0)),
            results={uid: Result(entry["sid"], Exit(entry["exit_code"])) for uid, entry in results.items()},
        )


@dataclass(frozen=True, slots=True)
class Command:
    """What a local resource manager is to do with a service.

    Attributes:
        kind: the state that is asked for.
        resource: the service's configuration.
        target: of a move.
        timeout_s: of a stop; None for the usual one, 0 for at once.
    """

    kind: ServiceState
    resource: Resource
    target: str | None = None
    timeout_s: int | None = None
