"""What starting, stopping and moving a service means, step by step.

Source: the expected logs of pve-ha-manager's scenarios.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .states import Command, Exit, ServiceState

Log = Callable[[str, str], None]


class Agent(Protocol):
    """One node's way to its guests."""

    def running(self, sid: str) -> bool:
        """Return whether a service runs here."""

    def start(self, sid: str) -> None:
        """Start it; whether that worked is asked afterwards."""

    def stop(self, sid: str, timeout_s: int | None) -> None:
        """Stop it: gently, at once with a timeout of 0."""

    def may_move(self, sid: str) -> bool:
        """Return whether it can be moved at all."""

    def move(self, sid: str, target: str, *, online: bool) -> bool:
        """Move it to another node; return whether it is there now."""


def execute(agent: Agent, sid: str, command: Command, log: Log) -> Exit:
    """Do what a state of a service asks for, unless it is so already."""
    match command.kind:
        case ServiceState.STARTED:
            return _start(agent, sid, log)
        case ServiceState.REQUEST_STOP | ServiceState.STOPPED:
            return _stop(agent, sid, command.timeout_s, log)
        case ServiceState.MIGRATE | ServiceState.RELOCATE:
            return _move(agent, sid, command, log)
        case _:
            return Exit.ERROR


def _start(agent: Agent, sid: str, log: Log) -> Exit:
    if agent.running(sid):
        return Exit.SUCCESS
    log("info", f"starting service {sid}")
    agent.start(sid)
    if agent.running(sid):
        log("info", f"service status {sid} started")
        return Exit.SUCCESS
    log("warning", f"unable to start service {sid}")
    return Exit.ERROR


def _stop(agent: Agent, sid: str, timeout_s: int | None, log: Log, *, why: str = "") -> Exit:
    if not agent.running(sid):
        return Exit.SUCCESS
    within = "" if timeout_s is None else f" (timeout={timeout_s})"
    log("info", f"stopping service {sid}{why or within}")
    agent.stop(sid, timeout_s)
    if agent.running(sid):
        log("info", f"unable to stop stop service {sid} (still running)")
        return Exit.ERROR
    log("info", f"service status {sid} stopped")
    return Exit.SUCCESS


def _move(agent: Agent, sid: str, command: Command, log: Log) -> Exit:
    target = str(command.target)
    moved = agent.may_move(sid)
    if moved:
        log("info", f"service {sid} - start {command.kind} to node '{target}'")
        if command.kind is ServiceState.RELOCATE:
            _stop(agent, sid, None, log, why=" (relocate)")
        online = agent.running(sid)
        moved = not (online and command.kind is ServiceState.RELOCATE) and agent.move(sid, target, online=online)
    if not moved:
        log("err", f"service {sid} not moved (migration error)")
        return Exit.ERROR
    log("info", f"service {sid} - end {command.kind} to node '{target}'")
    return Exit.SUCCESS
