"""One round of decisions of the master: where every service should be, and what happens to a dead node.

A round looks at the nodes first, then at people's wishes, then gives every service at most one new state, again and
again until none changes. A node that was not seen for a while is *fenced*: its services are only touched once the
manager holds the lock of that node's own resource manager, which it cannot get while that one may still run them.

Source: the expected logs of pve-ha-manager's scenarios; its administration guide, "Fencing" and "Recovery".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .placement import Group, choose
from .states import Exit, LocalStatus, ManagerStatus, Mode, NodeState, Resource, Result, Service, ServiceState, Wish
from .world import World, agent_lock

FENCE_DELAY_S = 60
REMOVABLE_LOCKS = ("backup", "mounted")
"""Locks whose owner died with its node."""

MOVING = (ServiceState.MIGRATE, ServiceState.RELOCATE)
COUNTED = (
    ServiceState.STARTED,
    ServiceState.REQUEST_STOP,
    ServiceState.FENCE,
    ServiceState.RECOVERY,
    ServiceState.FREEZE,
    ServiceState.ERROR,
)


class Manager:
    """The master's memory and its decisions.

    Args:
        world: the master's node.
        fence_delay_s: how long a node may be away before it is fenced.
    """

    def __init__(self, world: World, *, fence_delay_s: int = FENCE_DELAY_S) -> None:
        self.world = world
        self.fence_delay_s = fence_delay_s
        self.status = ManagerStatus.from_document(world.read_manager())
        self.status.master = world.node
        self._seen: dict[str, int] = {}
        self._local: dict[str, LocalStatus] = {}
        self._results: dict[str, Result] = {}
        self._resources: dict[str, Resource] = {}
        self._groups: Mapping[str, Group] = {}
        self._usage: dict[str, int] = {}
        self._changes = 0
        self._handlers: dict[ServiceState, Callable[[str, Service, Resource], None]] = {
            ServiceState.REQUEST_START: self._request_start,
            ServiceState.STARTED: self._started,
            ServiceState.REQUEST_STOP: self._request_stop,
            ServiceState.STOPPED: self._stopped,
            ServiceState.MIGRATE: self._moving,
            ServiceState.RELOCATE: self._moving,
            ServiceState.RECOVERY: self._recovery,
            ServiceState.ERROR: self._error,
        }

    def manage(self) -> None:
        """Play one round and write down what was decided."""
        self._look_at_nodes()
        self._look_at_wishes()
        self._take_commands()
        while self._pass():
            pass
        self.status.timestamp = self.world.now()
        self.world.write_manager(self.status.document())

    # What is there

    def _look_at_nodes(self) -> None:
        members = self.world.online_nodes()
        self._local = {node: LocalStatus.from_document(self.world.read_local(node)) for node in members}
        self._results = {uid: result for local in self._local.values() for uid, result in local.results.items()}
        for node in sorted(members):
            self._look_at_node(node, online=members[node])
        for node in sorted(set(self.status.nodes) - set(members)):
            self._set_node(node, NodeState.GONE)

    def _look_at_node(self, node: str, *, online: bool) -> None:
        self.status.nodes.setdefault(node, NodeState.UNKNOWN)
        maintenance = self._local[node].mode is Mode.MAINTENANCE
        if not online:
            self._seen.setdefault(node, self.world.now())
            if self.status.nodes[node] is NodeState.ONLINE:
                self._set_node(node, NodeState.UNKNOWN)
            return
        self._seen[node] = self.world.now()
        if self.status.nodes[node] in (NodeState.UNKNOWN, NodeState.GONE):
            self._set_node(node, NodeState.ONLINE)
        if maintenance and self.status.nodes[node] is NodeState.ONLINE:
            self._set_node(node, NodeState.MAINTENANCE)
        elif not maintenance and self.status.nodes[node] is NodeState.MAINTENANCE:
            self._set_node(node, NodeState.ONLINE)

    def _set_node(self, node: str, state: NodeState) -> None:
        before = self.status.nodes[node]
        if before is not state:
            self.status.nodes[node] = state
            self.world.log("info", f"node '{node}': state changed from '{before}' => '{state}'")

    def _online(self, node: str) -> bool:
        return self.status.nodes.get(node) is NodeState.ONLINE

    def _lost(self, node: str) -> bool:
        """Return whether a node is away for so long that it has to be fenced."""
        last_seen = self._seen.get(node, 0)
        return not self._online(node) and self.world.now() - last_seen >= self.fence_delay_s

    # What people want

    def _look_at_wishes(self) -> None:
        self._resources = self.world.resources()
        self._groups = self.world.groups()
        for sid in sorted(set(self._resources) - set(self.status.services)):
            resource = self._resources[sid]
            if resource.state is Wish.IGNORED:
                continue
            self.world.log("info", f"adding new service '{sid}' on node '{resource.node}'")
            state = ServiceState.REQUEST_START if resource.state is Wish.STARTED else ServiceState.REQUEST_STOP
            self.status.services[sid] = Service(state=state, node=resource.node, uid=self._new_uid(sid))
        for sid in sorted(self.status.services):
            wanted = self._resources.get(sid)
            if wanted is None or wanted.state is Wish.IGNORED:
                why = "no config" if wanted is None else "ignored state requested"
                self.world.log("info", f"removing stale service '{sid}' ({why})")
                del self.status.services[sid]

    def _take_commands(self) -> None:
        for line in self.world.take_commands():
            match line.split():
                case ["migrate" | "relocate" as move, sid, node]:
                    self._command(line, sid, move, node, needs=node)
                case ["stop", sid, timeout]:
                    self._command(line, sid, "stop", timeout)
                case ["enable-node-maintenance", node]:
                    self._request_maintenance(line, node)
                case ["disable-node-maintenance", node]:
                    self.status.requests.get(node, {}).pop("maintenance", None)
                case _:
                    self.world.log("err", f"unable to parse crm command: {line}")

    def _command(self, line: str, sid: str, verb: str, argument: str, *, needs: str | None = None) -> None:
        service = self.status.services.get(sid)
        if service is None:
            self.world.log("err", f"crm command error - no such service: {line}")
        elif needs is not None and not self._online(needs):
            self.world.log("err", f"crm command error - node not online: {line}")
        else:
            self.world.log("info", f"got crm command: {line}")
            service.command = (verb, argument)

    def _request_maintenance(self, line: str, node: str) -> None:
        if self.status.nodes.get(node) in (NodeState.ONLINE, NodeState.MAINTENANCE):
            self.status.requests.setdefault(node, {})["maintenance"] = 1
        else:
            self.world.log("err", f"crm command error - node not online: {line}")

    # One pass over all services

    def _pass(self) -> bool:
        self._count_usage()
        before = self._changes
        for sid in sorted(self.status.services):
            service, resource = self.status.services[sid], self._resources[sid]
            if not self._freeze(sid, service, resource):
                self._handlers.get(service.state, _wait)(sid, service, resource)
            service.command = None
        self._fence()
        return self._changes != before

    def _count_usage(self) -> None:
        self._usage = {node: 0 for node, state in self.status.nodes.items() if state is NodeState.ONLINE}
        for service in self.status.services.values():
            if service.state in COUNTED or service.state in MOVING:
                self._use(service.node)
            if service.state in MOVING:
                self._use(service.target)

    def _use(self, node: str | None) -> None:
        if node in self._usage:
            self._usage[str(node)] += 1

    def _new_uid(self, sid: str) -> str:
        self._changes += 1
        return f"{self.world.node}.{self.world.now()}.{self._changes}.{sid}"

    def _change(
        self, sid: str, state: ServiceState, *, node: str = "", target: str | None = None, timeout_s: int | None = None
    ) -> None:
        """Give a service another state; `node`, `target` and `timeout_s` are told where they matter."""
        service = self.status.services[sid]
        before = service.state
        told = {"node": node or None, "target": target, "timeout": timeout_s}
        details = ", ".join(f"{name} = {value}" for name, value in told.items() if value is not None)
        service.state, service.node, service.uid = state, node or service.node, self._new_uid(sid)
        service.target, service.timeout_s, service.running = target, timeout_s, False
        if state in MOVING:
            self._use(target)
        elif before is ServiceState.RECOVERY:
            self._use(service.node)
        text = f"service '{sid}': state changed from '{before}' to '{state}'"
        self.world.log("info", f"{text}  ({details})" if details else text)

    def _freeze(self, sid: str, service: Service, resource: Resource) -> bool:
        """Leave services alone whose resource manager is being restarted; return whether this is one."""
        local = self._local.get(service.node, LocalStatus())
        stable = (ServiceState.STARTED, ServiceState.STOPPED, ServiceState.REQUEST_STOP)
        if local.mode is Mode.RESTART and service.state in stable:
            self._change(sid, ServiceState.FREEZE)
        elif local.mode is Mode.ACTIVE and service.state is ServiceState.FREEZE:
            self._change(sid, _wanted(resource))
        return service.state is ServiceState.FREEZE

    def _request_start(self, sid: str, service: Service, resource: Resource) -> None:
        if resource.state is Wish.STARTED:
            self._change(sid, ServiceState.STARTED, node=service.node)
        else:
            self._change(sid, ServiceState.REQUEST_STOP)

    def _started(self, sid: str, service: Service, resource: Resource) -> None:
        if not self._online(service.node):
            if self._lost(service.node):
                self._change(sid, ServiceState.FENCE)
            if self.status.nodes.get(service.node) is not NodeState.MAINTENANCE:
                return
        if service.command and self._obey(sid, service, service.command):
            return
        if resource.state is not Wish.STARTED:
            self._change(sid, ServiceState.REQUEST_STOP)
            return
        result = self._results.get(service.uid)
        if result and result.exit is Exit.ERROR:
            self._start_failed(sid, service, resource)
            return
        if result and result.exit is Exit.WRONG_NODE:
            self.world.log("err", f"service '{sid}' start failed: service registered on wrong node!")
            self._change(sid, ServiceState.ERROR)
            return
        if result and result.exit is Exit.SUCCESS:
            service.running = True
            self._start_succeeded(sid, service)
        self._place(sid, service, resource)

    def _start_succeeded(self, sid: str, service: Service) -> None:
        if service.failed_nodes:
            failed = ", ".join(service.failed_nodes)
            place = f"for '{sid}' on node '{service.node}'"
            self.world.log("info", f"relocation policy successful {place}, failed nodes: {failed}")
            service.failed_nodes = []

    def _start_failed(self, sid: str, service: Service, resource: Resource) -> None:
        service.failed_nodes.append(service.node)
        failed = ", ".join(service.failed_nodes)
        if len(service.failed_nodes) > resource.max_relocate:
            text = f"recovery policy for service {sid} failed, entering error state. Failed nodes: {failed}"
            self.world.log("err", text)
            self._change(sid, ServiceState.ERROR)
            return
        self.world.log("warning", f"starting service {sid} on node '{service.node}' failed, relocating service.")
        group = self._groups.get(resource.group)
        target = choose(group, self._usage, service.node, tried=service.failed_nodes, leave=True)
        if target is None:
            text = f"Tried all available nodes for service '{sid}', retry start on current node. Tried nodes: {failed}"
            self.world.log("warning", f"Start Error Recovery: {text}")
            service.uid = self._new_uid(sid)
        else:
            self._move(sid, service, target)

    def _place(self, sid: str, service: Service, resource: Resource) -> None:
        """Move a service that runs well to where it should rather be."""
        if not self._online(service.node):
            service.maintenance_node = service.maintenance_node or service.node
        elif service.maintenance_node == service.node:
            text = f"clearing stale maintenance node '{service.node}' setting (is current node)"
            self.world.log("info", f"service '{sid}': {text}")
            service.maintenance_node = None
        group = self._groups.get(resource.group)
        target = choose(group, self._usage, service.node, maintenance_node=service.maintenance_node)
        if target is None or target == service.node:
            return
        if target == service.maintenance_node:
            self.world.log("info", f"moving service '{sid}' back to '{target}', node came back from maintenance.")
            service.maintenance_node = None
        self._move(sid, service, target)

    def _move(self, sid: str, service: Service, target: str) -> None:
        """Move a service on the manager's own account: machines stay alive, everything else is stopped and started."""
        if sid.startswith("vm:"):
            self.world.log("info", f"migrate service '{sid}' to node '{target}' (running)")
            self._change(sid, ServiceState.MIGRATE, node=service.node, target=target)
        else:
            self.world.log("info", f"relocate service '{sid}' to node '{target}'")
            self._change(sid, ServiceState.RELOCATE, node=service.node, target=target)

    def _obey(self, sid: str, service: Service, command: tuple[str, str]) -> bool:
        """Do what somebody asked for a service that is started; return whether that changed its state."""
        verb, argument = command
        if verb == "stop":
            timeout_s = int(argument)
            what = f"graceful stop with timeout '{timeout_s}'" if timeout_s else "immediate service hard-stop"
            self.world.log("info", f"request {what} for service '{sid}'")
            self._change(sid, ServiceState.REQUEST_STOP, timeout_s=timeout_s)
            return True
        if argument == service.node:
            self._ignore(sid, verb, f"service already on node '{argument}'")
            return False
        self.world.log("info", f"{verb} service '{sid}' to node '{argument}'")
        self._change(sid, ServiceState(verb), node=service.node, target=argument)
        return True

    def _ignore(self, sid: str, verb: str, why: str) -> None:
        self.world.log("info", f"ignore service '{sid}' {verb} request - {why}")

    def _request_stop(self, sid: str, service: Service, resource: Resource) -> None:
        result = self._results.get(service.uid)
        if result and result.exit is Exit.SUCCESS:
            self._change(sid, ServiceState.STOPPED)
        elif result:
            self.world.log("err", f"service '{sid}' stop failed (exit code {int(result.exit)})")
            self._change(sid, ServiceState.ERROR)
        elif self._lost(service.node):
            self._change(sid, ServiceState.FENCE)

    def _stopped(self, sid: str, service: Service, resource: Resource) -> None:
        if resource.node != service.node:
            self.world.log("info", f"fixup service '{sid}' location ({service.node} => {resource.node})")
            service.node = resource.node
        if service.command:
            verb, argument = service.command
            if verb == "stop":
                self._ignore(sid, verb, "service already stopped")
            elif argument == service.node:
                self._ignore(sid, verb, f"service already on node '{argument}'")
            else:
                self._change(sid, ServiceState(verb), node=service.node, target=argument)
                return
        if resource.state is Wish.STARTED:
            self._change(sid, ServiceState.REQUEST_START, node=service.node)
        elif resource.state is Wish.STOPPED and self._lost(service.node):
            self._change(sid, ServiceState.FENCE)

    def _moving(self, sid: str, service: Service, resource: Resource) -> None:
        if self._lost(service.node):
            self._change(sid, ServiceState.FENCE)
            return
        result = self._results.get(service.uid)
        if result is None:
            return
        if result.exit is Exit.SUCCESS:
            self._change(sid, _wanted(resource), node=str(service.target))
        elif result.exit is Exit.WRONG_NODE:
            self.world.log("err", f"service '{sid}' - migration failed: service registered on wrong node!")
            self._change(sid, ServiceState.ERROR)
        else:
            self.world.log("err", f"service '{sid}' - migration failed (exit code {int(result.exit)})")
            self._change(sid, _wanted(resource), node=service.node)

    def _error(self, sid: str, service: Service, resource: Resource) -> None:
        if resource.state is Wish.DISABLED:
            service.failed_nodes = []
            self._change(sid, ServiceState.STOPPED)

    # Fencing and recovery

    def _fence(self) -> None:
        nodes = {service.node for service in self.status.services.values() if service.state is ServiceState.FENCE}
        for node in sorted(node for node, state in self.status.nodes.items() if state is NodeState.FENCE):
            if node not in nodes:
                text = f"node '{node}' in fence state but no services to-fence! admin interference?!"
                self.world.log("notice", text)
                nodes.add(node)
        fenced = [node for node in sorted(nodes) if self._fence_node(node)]
        for sid in sorted(self.status.services):
            service = self.status.services[sid]
            if service.state is ServiceState.FENCE and service.node in fenced:
                self._change(sid, ServiceState.RECOVERY)

    def _fence_node(self, node: str) -> bool:
        """Make sure that a node runs nothing; return whether that is so."""
        if self.status.nodes.get(node) is not NodeState.FENCE:
            self.status.nodes.setdefault(node, NodeState.UNKNOWN)
            self._set_node(node, NodeState.FENCE)
            self.world.log("email", f"FENCE: Try to fence node '{node}'")
        if not self.world.try_lock(agent_lock(node)):
            return False
        text = f"fencing: acknowledged - got agent lock for node '{node}'"
        self.world.log("info", text)
        self._set_node(node, NodeState.UNKNOWN)
        self.world.log("email", f"SUCCEED: {text}")
        return True

    def _recovery(self, sid: str, service: Service, resource: Resource) -> None:
        dead = service.node
        target = choose(self._groups.get(resource.group), self._usage, dead)
        if target is None:
            text = f"recovering service '{sid}' from fenced node '{dead}' failed, no recovery node found"
            self.world.log("err", text)
            if resource.state is Wish.DISABLED:
                self._change(sid, ServiceState.STOPPED)
            return
        if target == dead:
            self.world.log("info", f"recover service '{sid}' to previous failed and fenced node '{dead}' again")
        else:
            self.world.log("info", f"recover service '{sid}' from fenced node '{dead}' to node '{target}'")
            self.world.move_config(sid, dead, target)
        lock = self.world.remove_lock(sid, REMOVABLE_LOCKS)
        if lock:
            text = f"removed leftover lock '{lock}' from recovered service '{sid}' to allow its start."
            self.world.log("warning", text)
        self._change(sid, _wanted(resource), node=target)


def _wanted(resource: Resource) -> ServiceState:
    return ServiceState.STARTED if resource.state is Wish.STARTED else ServiceState.REQUEST_STOP


def _wait(sid: str, service: Service, resource: Resource) -> None:
    """Nothing to decide: the service waits for its node's fencing."""
