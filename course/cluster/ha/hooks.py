"""What happens to a call about a guest that high availability looks after: the manager is asked in its place.

Source: pve-container and qemu-server as the task lists of real clusters show them: hastart, hastop, hamigrate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ...error import ClusterError
from .states import Wish
from .store import KINDS, RESOURCES, Store

if TYPE_CHECKING:
    from ..node import Node
    from ..route import Call
    from ..state import State
    from ..tasks import Task

Action = Literal["start", "stop", "shutdown", "migrate"]


def managed(state: State, vmid: int) -> str | None:
    """Return the service that a guest is, or None when nobody looks after it."""
    place = state.guests().get(vmid)
    if place is None:
        return None
    sid = f"{KINDS[place.kind]}:{vmid}"
    section = Store(state).sections(RESOURCES).get(sid)
    return None if section is None or section.values.get("state") == Wish.IGNORED else sid


def instead(
    call: Call, action: Action, vmid: int, *, target: str | None = None, timeout_s: int | None = None
) -> str | None:
    """Start the task that asks the manager, when a guest is managed.

    Args:
        call: what somebody wants.
        action: of the guest.
        vmid: its number.
        target: for a migration.
        timeout_s: for a shutdown.

    Returns:
        The task's UPID; None when the caller has to do it.
    """
    sid = managed(call.node.state, vmid)
    if sid is None:
        return None
    store, what = Store(call.node.state), "CT" if sid.startswith("ct:") else "VM"
    kind, words = {
        "start": ("hastart", f"Requesting HA start for {what} {vmid}"),
        "stop": ("hastop", f"Requesting HA stop for {what} {vmid}"),
        "shutdown": ("hastop", f"Requesting HA stop for {what} {vmid}"),
        "migrate": ("hamigrate", f"Requesting HA migration for {what} {vmid} to node {target}"),
    }[action]

    def work(task: Task) -> None:
        task.log(words)
        ask(store, sid, action, target=target or "", timeout_s=timeout_s)

    return call.task(kind, vmid, work)


def ask(store: Store, sid: str, action: str, *, target: str = "", timeout_s: int | None = None) -> None:
    """Tell the manager what somebody wants of a service.

    Args:
        store: the shared files.
        sid: the service.
        action: an `Action`; ``stop`` is at once, ``shutdown`` is gentle.
        target: of a migration.
        timeout_s: of a shutdown.
    """
    if action == "migrate":
        store.command(f"migrate {sid} {target}")
        return
    store.wish(sid, Wish.STARTED if action == "start" else Wish.STOPPED)
    if action == "stop":
        store.command(f"stop {sid} 0")
    elif action == "shutdown" and timeout_s is not None:
        store.command(f"stop {sid} {timeout_s}")


def refuse_destroy(node: Node, vmid: int, *, purge: bool) -> None:
    """Refuse to remove a guest that is managed, unless everything that names it goes as well.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    place = node.state.guests().get(vmid)
    if place is None or purge:
        return
    if f"{KINDS[place.kind]}:{vmid}" in Store(node.state).sections(RESOURCES):
        what = "CT" if place.kind == "lxc" else "VM"
        raise ClusterError(f"unable to remove {what} {vmid} - used in HA resources and purge parameter not set.")


def purge(node: Node, vmid: int) -> None:
    """Forget a guest that is gone."""
    for kind in KINDS.values():
        Store(node.state).remove(f"{kind}:{vmid}")
