"""All guests of a node, one after the other, in the order that their ``startup`` says.

A node that comes to life starts those that are to start with it, as soon as the cluster has its quorum.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, CourseError
from ..ha import hooks
from ..route import Call
from ..state import GuestPlace
from . import hardware

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

_LAST = 1 << 30


def chosen(call: Call, privileges: Sequence[str]) -> list[GuestPlace]:
    """Return the guests of this node that a call is about.

    Raises:
        PermissionRefused: the caller lacks a privilege: for one that is named, or for all.
    """
    named = [int(word) for word in re.split(r"[,;\s]+", call.values.get("vms", "")) if word]
    if not call.may("/", privileges):
        if not named:
            call.check("/", privileges)
        for vmid in named:
            call.check(f"/vms/{vmid}", privileges)
    return [place for place in guests(call.node) if not named or place.vmid in named]


def guests(node: Node) -> list[GuestPlace]:
    """Return the guests of a node in the order of their start."""
    found = [place for place in node.state.guests().values() if place.node == node.name]
    return sorted(found, key=lambda place: (_order(node, place), place.vmid))


def _order(node: Node, place: GuestPlace) -> int:
    said = node.state.view_guest(place).current.values.get("startup", "")
    found = re.search(r"(?:^|,)(?:order=)?(\d+)(?:,|$)", said)
    return int(found[1]) if found else _LAST


def start(node: Node, wanted: Sequence[GuestPlace], task: Task, *, force: bool) -> None:
    """Start guests; one that cannot is a warning.

    Args:
        node: that has them.
        wanted: in this order.
        task: whose log tells.
        force: also those that are not to start with their node.
    """
    for place in wanted:
        task.check_stop()
        values = node.state.view_guest(place).current.values
        if hardware.flag(values, "template") or not (force or hardware.flag(values, "onboot")):
            continue
        if hooks.managed(node.state, place.vmid) or _status(node, place) == "running":
            continue
        task.log(f"Starting {_kind(place)} {place.vmid}")
        _do(node, place, "status/start", task)


def stop(node: Node, wanted: Sequence[GuestPlace], task: Task, *, force: bool, timeout_s: int) -> None:
    """Shut guests down, the last started first; one that cannot is a warning."""
    for place in reversed(wanted):
        task.check_stop()
        if _status(node, place) != "running":
            continue
        task.log(f"Stopping {_kind(place)} {place.vmid} (timeout = {timeout_s} seconds)")
        _do(node, place, "status/shutdown", task, timeout=timeout_s, forceStop=int(force))


def migrate(node: Node, wanted: Sequence[GuestPlace], target: str, task: Task, *, with_local_disks: bool) -> None:
    """Move guests to another node; one that cannot is a warning."""
    for place in wanted:
        task.check_stop()
        running = _status(node, place) == "running"
        task.log(f"Migrating {_kind(place)} {place.vmid} to '{target}'")
        values: dict[str, Any] = {"target": target}
        if running:
            values["online" if place.kind == "qemu" else "restart"] = 1
        if with_local_disks and running and place.kind == "qemu":
            values["with-local-disks"] = 1
        _do(node, place, "migrate", task, **values)


def _kind(place: GuestPlace) -> str:
    return "VM" if place.kind == "qemu" else "CT"


def _status(node: Node, place: GuestPlace) -> str:
    found = node.peer(node.name).call("GET", f"/nodes/{node.name}/{place.kind}/{place.vmid}/status/current")
    return str(found["status"])


def _do(node: Node, place: GuestPlace, what: str, task: Task, **values: Any) -> None:
    """Do something with a guest through the node's own API, and wait for its end."""
    own = node.peer(node.name)
    try:
        upid = own.call("POST", f"/nodes/{node.name}/{place.kind}/{place.vmid}/{what}", **values)
        while not node.tasks.wait(upid, 0.2):
            task.check_stop()
        status = node.tasks.status(upid).get("exitstatus")
        if status != "OK":
            raise ClusterError(str(status))
    except CourseError as error:
        words = error.message if isinstance(error, ClusterError) else str(error)
        task.warn(f"{_kind(place)} {place.vmid}: {words}")


def start_with_node(node: Node) -> None:
    """Start what is to start with a node that came to life: wait for its API and for the quorum, then begin."""
    while not node.stopping.wait(0.2):
        if node.members.quorate() and node.peer(node.name).socket.exists():
            break
    else:
        return
    wanted = [place for place in guests(node) if hardware.flag(node.state.view_guest(place).current.values, "onboot")]
    if wanted:
        time.sleep(0.2)  # the socket may exist a moment before somebody listens
        node.tasks.start("startall", "", "root@pam", lambda task: start(node, wanted, task, force=False))
