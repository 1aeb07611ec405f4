"""The local resource manager: it does what was decided for the services of its own node.

It may do so only while it holds its node's lock, which it cannot keep without a majority. While it holds the lock it
renews a watchdog; when the lock is lost it stops renewing, and the watchdog turns the node's power off before the
master may get the lock: that is why a service never runs twice.

Source: the expected logs of pve-ha-manager's scenarios; its administration guide, "Local Resource Manager".
"""

from __future__ import annotations

import enum

from .states import Command, Exit, LocalStatus, ManagerStatus, Mode, NodeState, Resource, Result, Service, ServiceState
from .world import Unreachable, World, agent_lock

IDLE_ROUNDS = 60
ACTED_ON = (
    ServiceState.STARTED,
    ServiceState.REQUEST_STOP,
    ServiceState.STOPPED,
    ServiceState.MIGRATE,
    ServiceState.RELOCATE,
)
AT_REST = (ServiceState.FREEZE, ServiceState.ERROR, ServiceState.STOPPED)


class AgentState(enum.StrEnum):
    """What a local resource manager is doing."""

    STARTUP = "startup"
    WAIT = "wait_for_agent_lock"
    ACTIVE = "active"
    MAINTENANCE = "maintenance"
    LOST = "lost_agent_lock"


class LocalManager:
    """One node's local resource manager; `iterate` is called again and again.

    Args:
        world: its node.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.state = AgentState.STARTUP
        self.mode = Mode.ACTIVE
        self.stopping = False
        self._stops_services = False
        self._status = ManagerStatus()
        self._resources: dict[str, Resource] = {}
        self._results: dict[str, Result] = {}
        self._retries: dict[str, int] = {}
        self._idle_rounds = 0
        self._become(AgentState.WAIT)

    def _become(self, state: AgentState) -> None:
        self.world.log("info", f"status change {self.state} => {state}")
        self.state = state

    def stop(self, request: str = "") -> None:
        """Ask it to end.

        Args:
            request: ``shutdown`` or ``reboot`` when the whole node ends, nothing when only this program is restarted.
        """
        if request:
            self._plan_end(request)
        else:
            self.world.log("info", "restart LRM, freeze all services")
            self.mode = Mode.RESTART
        self.stopping = True
        self._tell()

    def _plan_end(self, request: str) -> None:
        policy = self.world.shutdown_policy()
        self.world.log("info", f"got shutdown request with shutdown policy '{policy}'")
        if self.mode is Mode.MAINTENANCE:
            conditional = "ignore conditional policy as manual maintenance mode is enabled"
            already = "ignore maintenance policy, already in maintenance mode"
            self.world.log("info", f"shutdown LRM, {conditional if policy == 'conditional' else already}")
            return
        if policy == "migrate":
            text = f"{request} LRM, doing maintenance, removing this node from active list"
            self.world.log("info", text)
            self.mode = Mode.MAINTENANCE
            return
        self._stops_services = True
        if policy == "freeze" or (policy == "conditional" and request == "reboot"):
            self.world.log("info", f"{request} LRM, stop and freeze all services")
            self.mode = Mode.RESTART
        else:
            self.world.log("info", "shutdown LRM, stop all services")
            self.mode = Mode.SHUTDOWN

    def iterate(self) -> bool:
        """Do one round; return whether there is another."""
        if not self.world.refresh():
            self.world.log("notice", "temporary inconsistent cluster state (cfs restart?), skip round")
            if self._keeps_lock():
                self.world.set_watchdog(armed=True)
            return True
        self._learn()
        self._follow_requests()
        self._decide()
        goes_on = self._work()
        self._tell()
        return goes_on

    # What is known

    def _learn(self) -> None:
        try:
            self._status = ManagerStatus.from_document(self.world.read_manager())
            self._resources = self.world.resources()
        except Unreachable as error:
            self.world.log("err", f"updating service status from manager failed: {error}")

    def _tell(self) -> None:
        known = {service.uid for service in self._status.services.values()}
        self._results = {uid: result for uid, result in self._results.items() if uid in known}
        status = LocalStatus(self.mode, str(self.state), self.world.now(), self._results)
        try:
            self.world.write_local(status.document())
        except Unreachable as error:
            self.world.log("err", f"unable to write lrm status file - {error}")

    def _mine(self) -> dict[str, Service]:
        services = self._status.services
        return {sid: services[sid] for sid in sorted(services) if services[sid].node == self.world.node}

    def _has_work(self) -> bool:
        return any(service.state not in AT_REST for service in self._mine().values())

    def _keeps_lock(self) -> bool:
        return not self._fenced() and self.world.try_lock(agent_lock(self.world.node))

    def _fenced(self) -> bool:
        return self._status.nodes.get(self.world.node) is NodeState.FENCE

    # What to be

    def _follow_requests(self) -> None:
        if self.stopping:
            return
        wanted = self._status.requests.get(self.world.node, {}).get("maintenance")
        self.mode = Mode.MAINTENANCE if wanted else Mode.ACTIVE

    def _decide(self) -> None:
        match self.state:
            case AgentState.WAIT:
                if self._may_begin() and self._keeps_lock():
                    self._become(AgentState.ACTIVE)
            case AgentState.LOST:
                if self._keeps_lock():
                    self._become(AgentState.ACTIVE)
            case AgentState.MAINTENANCE if self.mode is Mode.MAINTENANCE and not self._has_work():
                self._give_up()
            case _ if not self._keeps_lock():
                self._become(AgentState.LOST)
            case AgentState.ACTIVE if self.mode is Mode.MAINTENANCE:
                self._become(AgentState.MAINTENANCE)
            case AgentState.MAINTENANCE if self.mode is not Mode.MAINTENANCE:
                self._become(AgentState.ACTIVE)
            case _:
                self._rest()

    def _may_begin(self) -> bool:
        return not self.stopping and self._has_work()

    def _rest(self) -> None:
        """Give the lock back after a long time without a service."""
        self._idle_rounds = 0 if self._mine() or self.state is not AgentState.ACTIVE else self._idle_rounds + 1
        if self._idle_rounds > IDLE_ROUNDS:
            text = f"node had no service configured for {IDLE_ROUNDS} rounds, going idle."
            self.world.log("info", text)
            self._give_up()
            self._become(AgentState.WAIT)
            self._idle_rounds = 0

    def _give_up(self) -> None:
        self.world.set_watchdog(armed=False)
        self.world.release_lock(agent_lock(self.world.node))

    # What to do

    def _work(self) -> bool:
        if self.state is AgentState.WAIT:
            return not self.stopping
        if self.state is AgentState.LOST:
            return self._wait_for_end()
        if self.state is AgentState.ACTIVE or self._has_work():
            self.world.set_watchdog(armed=True)
        if self._stops_services:
            return self._end()
        self._learn()
        self._manage()
        if self.stopping and not self._still_needed():
            self._give_up()
            return False
        return True

    def _wait_for_end(self) -> bool:
        running = sum(1 for sid in self._mine() if self.world.local_running(sid))
        if self.stopping and running:
            text = f"get shutdown request in state '{self.state}' - detected {running} running services"
            self.world.log("err", text)
        return bool(running) or not self.stopping

    def _end(self) -> bool:
        """Stop everything; return whether something still runs."""
        for sid in self._mine():
            if sid in self._resources and self.world.local_running(sid):
                self.world.begin(sid, f"end.{sid}", Command(ServiceState.STOPPED, self._resources[sid]))
        self.world.finished()
        if any(self.world.local_running(sid) for sid in self._mine()):
            return True
        self._give_up()
        return False

    def _still_needed(self) -> bool:
        """Return whether services are here that have to go before this program may end."""
        left = [service for service in self._mine().values() if service.state is not ServiceState.STOPPED]
        return any(service.state is not ServiceState.FREEZE for service in left)

    def _manage(self) -> None:
        self._collect()
        for sid, service in self._mine().items():
            if self.world.busy(sid):
                continue
            if service.state is ServiceState.ERROR:
                self._complain(sid, service)
            elif service.state in ACTED_ON and sid in self._resources and self._is_due(service):
                self._begin(sid, service, self._resources[sid])
            self._collect()
        self._collect()

    def _complain(self, sid: str, service: Service) -> None:
        if service.uid not in self._results:
            advice = "Look up 'ERROR RECOVERY' in the documentation."
            self.world.log("err", f"service {sid} is in an error state and needs manual intervention. {advice}")
            self._results[service.uid] = Result(sid, Exit.SUCCESS)

    def _is_due(self, service: Service) -> bool:
        """Return whether a state asks for work: a start and a stop are looked after all the time, a move once."""
        result = self._results.get(service.uid)
        match service.state:
            case ServiceState.STARTED:
                return result is None or result.exit in (Exit.SUCCESS, Exit.RETRY)
            case ServiceState.STOPPED:
                return True
            case _:
                return result is None

    def _begin(self, sid: str, service: Service, resource: Resource) -> None:
        if resource.node != self.world.node:
            self.world.log("err", f"service '{sid}' not on this node")
            self._results[service.uid] = Result(sid, Exit.WRONG_NODE)
            return
        command = Command(service.state, resource, service.target, service.timeout_s)
        self.world.begin(sid, service.uid, command)

    def _collect(self) -> None:
        for uid, result in self.world.finished().items():
            service = self._status.services.get(result.sid)
            if service is not None and service.uid == uid:
                starting = service.state is ServiceState.STARTED
                self._results[uid] = self._judge_start(result) if starting else result

    def _judge_start(self, result: Result) -> Result:
        """Try a start that failed again on this node, as often as the service's policy allows."""
        sid = result.sid
        if result.exit is not Exit.ERROR:
            self._retries.pop(sid, None)
            return result
        tries = self._retries.pop(sid, 0)
        if tries >= self._resources[sid].max_restart:
            self.world.log("err", f"unable to start service {sid} on local node after {tries} retries")
            return result
        self._retries[sid] = tries + 1
        self.world.log("warning", f"restart policy: retry number {tries + 1} for service '{sid}'")
        return Result(sid, Exit.RETRY)
