"""Nodes that do not exist, with a virtual clock: what the two daemons do in a given course of events, exactly.

A round lasts 20 seconds (2 for each node, if that is more). In it every node's daemons run once, one after the other,
each a second long; then the watchdogs are looked at. Every fifth round the next events happen.

Source: the scenarios of pve-ha-manager's own tests and their expected logs.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...error import UsageError
from .crm import ClusterManager
from .lrm import LocalManager
from .placement import Group
from .resources import execute
from .states import Command, Resource, Result, Wish
from .world import Unreachable

LOCK_TIMEOUT_S = 120
WATCHDOG_S = 60
ROUND_S = 20
ROUNDS_BETWEEN_EVENTS = 5
PATIENCE_S = 600
"""How long the simulation goes on after the last event."""


@dataclass
class _Guest:
    """A service of the simulation: what `fa:` ones are made to fail at."""

    running_on: set[str] = field(default_factory=set)
    lock: str = ""
    start_failures: int = 0
    move_failures: int = 0
    failing_moves: int = 0
    never_stops: bool = False

    @classmethod
    def named(cls, sid: str) -> _Guest:
        """Read the digits of ``fa:1SMX``: failing starts, failing moves, a stop that never works."""
        kind, _, digits = sid.partition(":")
        if kind != "fa":
            return cls()
        numbers = [int(digit) for digit in digits[1:]] + [0, 0, 0]
        return cls(start_failures=numbers[0], failing_moves=numbers[1], never_stops=bool(numbers[2]))


@dataclass
class _Machine:
    """A node's hardware and its two daemons."""

    power: bool = False
    network: bool = False
    readable: bool = True
    consistent: bool = True
    watchdog: int | None = None
    crm: ClusterManager | None = None
    lrm: LocalManager | None = None
    worlds: dict[str, SimulatedWorld] = field(default_factory=dict)
    ending: str = ""


class Simulation:
    """A cluster of nodes and what happens to it.

    Args:
        nodes: by name, whether power and network are on.
        resources: by service.
        groups: by name.
        manager_status: what an earlier manager left.
        shutdown_policy: ``conditional``, ``freeze``, ``failover`` or ``migrate``.

    Attributes:
        lines: the log.
        split_brains: when a service was started on a second node, which one, and where it ran then. Always empty.
    """

    def __init__(
        self,
        nodes: Mapping[str, bool],
        resources: Mapping[str, Resource],
        *,
        groups: Mapping[str, Group] | None = None,
        manager_status: Mapping[str, Any] | None = None,
        shutdown_policy: str = "conditional",
    ) -> None:
        self.lines: list[str] = []
        self.time = 0
        self.machines = {node: _Machine(power=on, network=on) for node, on in sorted(nodes.items())}
        for node, machine in self.machines.items():
            machine.worlds = {daemon: SimulatedWorld(self, node, daemon) for daemon in ("crm", "lrm")}
        self.resources = dict(resources)
        self.groups = dict(groups or {})
        self.manager_status: dict[str, Any] = dict(manager_status or {})
        self.local_status: dict[str, dict[str, Any]] = {}
        self.shutdown_policy = shutdown_policy
        self.commands: list[str] = []
        self.guests = {sid: _Guest.named(sid) for sid in resources}
        self.locks: dict[str, tuple[str, int]] = {}
        self.split_brains: list[tuple[int, str, list[str]]] = []
        self._skipped_rounds = 0

    def log(self, level: str, source: str, text: str, time: int | None = None) -> None:
        """Write a line as the expected logs have it."""
        self.lines.append(f"{level[:4]:<5}{self.time if time is None else time:>6}{source:>13}: {text}")

    def quorate(self, node: str) -> bool:
        """Return whether a node sees more than half of all."""
        together = [name for name, machine in self.machines.items() if machine.power and machine.network]
        return node in together and len(together) * 2 > len(self.machines)

    def run(self, events: Iterable[Sequence[str]]) -> list[str]:
        """Let the events happen, a list of them every hundred seconds, and return the log."""
        waiting = list(events)
        self.log("info", "hardware", "starting simulation")
        rounds, next_event, last_event = 0, 0, 0
        while True:
            self._round()
            if self.time < next_event:
                continue
            if rounds % ROUNDS_BETWEEN_EVENTS == 0:
                if not waiting and self.time - last_event >= PATIENCE_S:
                    break
                if waiting:
                    last_event = self.time
                    next_event = self.time + self._happen(waiting.pop(0))
            rounds += 1
        self.log("info", "hardware", "exit simulation - done")
        return self.lines

    # Time

    def _round(self) -> None:
        start = self.time
        skips = self._skipped_rounds > 0
        if skips:
            self._skipped_rounds -= 1
            self.log("info", "run-loop", "skipping CRM round")
        for node, machine in self.machines.items():
            if machine.crm and not skips:
                self._step_manager(node, machine, machine.crm)
            if machine.lrm:
                self._step_agent(node, machine, machine.lrm)
            self._look_at_watchdogs()
        self.time = max(self.time, start + max(ROUND_S, 2 * len(self.machines)))
        for machine in self.machines.values():
            for world in machine.worlds.values():
                world.time = self.time

    def _step(self, machine: _Machine, name: str, daemon: ClusterManager | LocalManager) -> bool:
        world = machine.worlds[name]
        world.time = self.time
        goes_on = daemon.iterate()
        world.time += 1
        self.time = max(self.time, world.time)
        if not goes_on:
            world.log("info", "exit (loop end)")
        return goes_on

    def _step_manager(self, node: str, machine: _Machine, crm: ClusterManager) -> None:
        if self._step(machine, "crm", crm):
            return
        machine.crm = None
        if machine.ending:
            self._execute(f"power {node} off", machine.ending)
            if machine.ending == "reboot":
                machine.ending = ""
                self._execute(f"power {node} on", "reboot")
            machine.ending = ""

    def _step_agent(self, node: str, machine: _Machine, lrm: LocalManager) -> None:
        if self._step(machine, "lrm", lrm):
            return
        machine.lrm = None
        if machine.ending:
            self._execute(f"crm {node} stop", machine.ending)
        else:
            machine.lrm = LocalManager(machine.worlds["lrm"])

    def _look_at_watchdogs(self) -> None:
        for node, machine in self.machines.items():
            if machine.watchdog is not None and self.time - machine.watchdog > WATCHDOG_S:
                self._execute(f"power {node} off", "watchdog")
                self.log("info", "hardware", f"server '{node}' stopped by poweroff (watchdog)")

    # Events

    def _happen(self, events: Sequence[str]) -> int:
        """Execute events; return the seconds to wait before the next ones."""
        wait = 0
        for event in events:
            self._execute(event, "cmdlist")
            verb, *arguments = event.split()
            wait = int(arguments[0]) if verb == "delay" else wait
        return wait

    def _execute(self, event: str, source: str) -> None:
        self.log("info", source, f"execute {event}")
        match event.split():
            case ["power", node, "on"]:
                self._power_on(self.machines[node])
            case ["power", node, "off"]:
                self._power_off(self.machines[node])
            case ["shutdown" | "reboot" as how, node]:
                self._shut_down(self.machines[node], how)
            case ["restart-lrm", node]:
                self._agent(node).stop()
            case ["crm", node, "stop"]:
                crm = self.machines[node].crm
                if crm:
                    crm.stop()
            case ["crm", node, request]:
                self.commands.append(f"{request} {node}")
            case ["service", sid, *arguments]:
                self._change_service(sid, arguments)
            case _:
                self._disturb(event)

    def _disturb(self, event: str) -> None:
        """Change what the daemons cannot change themselves: cables, files, time."""
        match event.split():
            case ["network", node, switch]:
                self.machines[node].network = switch == "on"
            case ["cfs", node, "rw", how]:
                self.machines[node].readable = how == "work"
            case ["cfs", node, "update", how]:
                self.machines[node].consistent = how == "work"
            case ["skip-round", "crm", count]:
                self._skipped_rounds = int(count)
            case ["delay", _]:
                pass
            case _:
                raise UsageError(f"The simulation knows no event {event!r}.")

    def _agent(self, node: str) -> LocalManager:
        lrm = self.machines[node].lrm
        if lrm is None:
            raise UsageError(f"Node {node} is switched off: there is nothing to restart.")
        return lrm

    def _power_on(self, machine: _Machine) -> None:
        machine.power = machine.network = True
        if machine.crm is None:
            machine.crm = ClusterManager(machine.worlds["crm"])
        if machine.lrm is None:
            machine.lrm = LocalManager(machine.worlds["lrm"])

    def _power_off(self, machine: _Machine) -> None:
        machine.power = machine.network = False
        for name, daemon in (("crm", machine.crm), ("lrm", machine.lrm)):
            if daemon:
                machine.worlds[name].log("info", "killed by poweroff")
        node = next(name for name, other in self.machines.items() if other is machine)
        for guest in self.guests.values():
            guest.running_on.discard(node)
        machine.crm = machine.lrm = machine.watchdog = None

    def _shut_down(self, machine: _Machine, how: str) -> None:
        if machine.lrm:
            machine.ending = how
            machine.lrm.stop(how)

    def _change_service(self, sid: str, arguments: Sequence[str]) -> None:
        match arguments:
            case ["started" | "stopped" | "disabled" | "ignored" | "enabled" as state]:
                self._wish(sid, state)
            case ["migrate" | "relocate" as move, node]:
                self.commands.append(f"{move} {sid} {node}")
            case ["stop", timeout]:
                self._wish(sid, "stopped")
                self.commands.append(f"stop {sid} {timeout}")
            case ["add", node, *state]:
                self.resources[sid] = Resource(node, Wish(state[0]) if state else Wish.STARTED)
                self.guests[sid] = _Guest.named(sid)
            case ["delete"]:
                del self.resources[sid]
            case ["lock", *kind]:
                self.guests[sid].lock = kind[0] if kind else "backup"
            case _:
                raise UsageError(f"The simulation knows no change {' '.join(arguments)!r} of service {sid}.")

    def _wish(self, sid: str, state: str) -> None:
        old = self.resources[sid]
        wish = Wish.STARTED if state == "enabled" else Wish(state)
        self.resources[sid] = Resource(old.node, wish, old.group, old.max_restart, old.max_relocate)


class SimulatedWorld:
    """What one daemon of one simulated node sees, and its way to the guests."""

    def __init__(self, simulation: Simulation, node: str, daemon: str) -> None:
        self.simulation = simulation
        self.node = node
        self.daemon = daemon
        self.time = simulation.time
        self._done: dict[str, Result] = {}

    @property
    def machine(self) -> _Machine:
        """The node's hardware."""
        return self.simulation.machines[self.node]

    def now(self) -> int:
        """Return the daemon's time."""
        return self.time

    def log(self, level: str, text: str) -> None:
        """Write to the simulation's log."""
        self.simulation.log(level, f"{self.node}/{self.daemon}", text, self.time)

    def refresh(self) -> bool:
        """Return whether the shared files are consistent."""
        return self.machine.consistent

    def quorate(self) -> bool:
        """Return whether this node sees a majority."""
        return self.simulation.quorate(self.node)

    def online_nodes(self) -> dict[str, bool]:
        """Return every node and whether it is part of the majority."""
        return {node: self.simulation.quorate(node) for node in self.simulation.machines}

    def try_lock(self, name: str) -> bool:
        """Take a lock that is free, this node's already, or was not renewed for long."""
        holder, since = self.simulation.locks.get(name, (self.node, self.time))
        if not self.quorate() or (holder != self.node and self.time - since <= LOCK_TIMEOUT_S):
            return False
        if name not in self.simulation.locks or holder != self.node:
            self.log("info", f"got lock '{name}'")
        self.simulation.locks[name] = (self.node, self.time)
        return True

    def release_lock(self, name: str) -> None:
        """Free a lock."""
        self.simulation.locks.pop(name, None)

    def _reach(self) -> Simulation:
        if not self.machine.readable:
            raise Unreachable("cfs connection refused - not mounted?")
        return self.simulation

    def read_manager(self) -> dict[str, Any]:
        """Return the manager's status."""
        return copy.deepcopy(self._reach().manager_status)

    def write_manager(self, document: Mapping[str, Any]) -> None:
        """Replace the manager's status."""
        self._reach().manager_status = copy.deepcopy(dict(document))

    def read_local(self, node: str) -> dict[str, Any]:
        """Return a node's status."""
        return copy.deepcopy(self._reach().local_status.get(node, {}))

    def write_local(self, document: Mapping[str, Any]) -> None:
        """Replace this node's status."""
        self._reach().local_status[self.node] = copy.deepcopy(dict(document))

    def resources(self) -> dict[str, Resource]:
        """Return what is configured."""
        return dict(self._reach().resources)

    def groups(self) -> dict[str, Group]:
        """Return the groups."""
        return dict(self._reach().groups)

    def take_commands(self) -> list[str]:
        """Return what people asked for."""
        commands, self._reach().commands = self.simulation.commands, []
        return commands

    def shutdown_policy(self) -> str:
        """Return the cluster's policy."""
        return self.simulation.shutdown_policy

    def move_config(self, sid: str, source: str, target: str) -> None:
        """Give a service to another node."""
        old = self._reach().resources[sid]
        new = Resource(target, old.state, old.group, old.max_restart, old.max_relocate)
        self.simulation.resources[sid] = new

    def remove_lock(self, sid: str, kinds: Collection[str]) -> str | None:
        """Take a lock off a service."""
        guest = self.simulation.guests[sid]
        if guest.lock not in kinds:
            return None
        lock, guest.lock = guest.lock, ""
        return lock

    def set_watchdog(self, armed: bool) -> None:
        """Renew the node's watchdog or switch it off."""
        self.machine.watchdog = self.time if armed else None

    def begin(self, sid: str, uid: str, command: Command) -> None:
        """Work on a service: in a simulation that takes no time."""
        self._done[uid] = Result(sid, execute(self, sid, command, self.log))

    def busy(self, sid: str) -> bool:
        """Nothing takes time here."""
        return False

    def finished(self) -> dict[str, Result]:
        """Return what was done since the last call."""
        done, self._done = self._done, {}
        return done

    def local_running(self, sid: str) -> bool:
        """Return whether a service runs here."""
        return self.running(sid)

    # The node's guests: an Agent

    def running(self, sid: str) -> bool:
        """Return whether a service runs here."""
        return sid in self.simulation.guests and self.node in self.simulation.guests[sid].running_on

    def _unlocked(self, sid: str, action: str) -> bool:
        lock = self.simulation.guests[sid].lock
        if lock:
            self.log("err", f"service '{sid}' locked ({lock}), unable to {action}!")
        return not lock

    def start(self, sid: str) -> None:
        """Start a service, unless it is made to fail."""
        guest = self.simulation.guests[sid]
        if not self._unlocked(sid, "start"):
            return
        if guest.start_failures > 0:
            guest.start_failures -= 1
        else:
            guest.running_on.add(self.node)
            if len(guest.running_on) > 1:
                self.simulation.split_brains.append((self.time, sid, sorted(guest.running_on)))

    def stop(self, sid: str, timeout_s: int | None) -> None:
        """Stop a service, unless it is made to fail."""
        guest = self.simulation.guests[sid]
        if not guest.never_stops:
            guest.running_on.discard(self.node)

    def may_move(self, sid: str) -> bool:
        """Return whether a service is made to move this time."""
        guest = self.simulation.guests[sid]
        if guest.move_failures < guest.failing_moves:
            guest.move_failures += 1
            return False
        guest.move_failures = 0
        return True

    def move(self, sid: str, target: str, *, online: bool) -> bool:
        """Move a service: it arrives stopped, and the other node's first look starts it."""
        if not self._unlocked(sid, "migrate"):
            return False
        self.simulation.guests[sid].running_on.discard(self.node)
        self.move_config(sid, self.node, target)
        return True
