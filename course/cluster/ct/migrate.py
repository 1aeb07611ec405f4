"""Moving a container to another node: stopped, or by stopping it here and starting it there.

A container cannot be moved while it runs: its processes are this kernel's.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

from ...error import ClusterError
from ..foundation import address_of
from ..properties import parse, render
from ..storage import storage_of
from . import lifecycle, options, settings

START_S = 60.0

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task


def assert_possible(node: Node, vmid: int, target: str, *, restart: bool) -> None:
    """Refuse what cannot be, before a task begins.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    node.peer(target)
    config = node.state.load_guest(vmid, node.name, "lxc")
    settings.assert_unlocked(config)
    if node.containers.is_running(vmid) and not restart:
        raise ClusterError("can't migrate running container without --online or --restart")


def migrate(
    node: Node,
    vmid: int,
    target: str,
    task: Task,
    *,
    online: bool = False,
    timeout_s: float | None = None,
    storage: str | None = None,
) -> None:
    """Move a container.

    Args:
        node: that has it.
        vmid: its number.
        target: the node that gets it.
        task: whose log tells.
        online: whether one that runs is stopped here and started there.
        timeout_s: how long it may take to stop.
        storage: of its disk there; None for the same.

    Raises:
        ClusterError: it stays where it was.
    """
    begin = time.monotonic()
    running = node.containers.is_running(vmid)
    assert_possible(node, vmid, target, restart=online)

    def say(text: str) -> None:
        task.log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    if running:
        say(f"shutdown CT {vmid}")
        lifecycle.shutdown(node, vmid, task, timeout_s=timeout_s, force=True)
    say(f"starting migration of CT {vmid} to node '{target}' ({address_of(target)})")
    try:
        _move(node, vmid, target, storage, say)
    except (ClusterError, OSError) as error:
        say(f"ERROR: migration aborted (duration {_duration(begin)}): {error}")
        if running:
            lifecycle.start(node, vmid, task.log)
        raise ClusterError("migration aborted") from error
    if running:
        say("start container on target node")
        _start_there(node, vmid, target)
    say("start final cleanup")
    say(f"migration finished successfully (duration {_duration(begin)})")
    node.statistics.changed()


def _start_there(node: Node, vmid: int, target: str) -> None:
    """Start the container on its new node and wait until that is done.

    Raises:
        ClusterError: it does not start there.
    """
    peer = node.peer(target)
    upid = peer.call("POST", f"/nodes/{target}/lxc/{vmid}/status/start", skiplock=1)
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        found = peer.call("GET", f"/nodes/{target}/tasks/{upid}/status")
        if found["status"] == "stopped":
            if found["exitstatus"] != "OK":
                raise ClusterError(f"container does not start on node '{target}': {found['exitstatus']}")
            return
        time.sleep(0.05)
    raise ClusterError(f"container does not start on node '{target}' - got timeout")


def _duration(begin: float) -> str:
    seconds = round(time.monotonic() - begin)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _move(node: Node, vmid: int, target: str, storage: str | None, say: lifecycle.Log) -> None:
    if not node.peer(target).online:
        raise ClusterError(f"Can't connect to destination address of node '{target}'")
    with node.state.lock(f"lock-{vmid}.conf"):
        config = node.state.load_guest(vmid, node.name, "lxc")
        values = config.current.values
        held, volume = settings.storage_of_root(node, values)
        there = storage_of(seen_by(node, target), storage or held.name)
        there.require("rootdir")
        if held.shared and there.name == held.name:
            say(f"volume '{volume}' is on shared storage '{held.name}'")
            node.state.move_guest(vmid, target)
            return
        if config.snapshots:
            raise ClusterError(f"can't migrate local volume '{volume}': it has snapshots")
        say(f"found local volume '{volume}' (in current VM config)")
        copied = held.copy(volume, there, vmid, format="subvol")
        say(f"volume '{volume}' is '{copied}' on the target")
        try:
            disk = {**parse(values["rootfs"], options.ROOT_DISK), "volume": copied}
            values["rootfs"] = render(disk, options.ROOT_DISK)
            node.state.save_guest(node.name, "lxc", vmid, config)
            node.state.move_guest(vmid, target)
        except BaseException:
            there.free(copied)
            raise
        held.free(volume)


def seen_by(node: Node, other: str) -> Node:
    """Return another node's view of its own disks: here they are one machine's, there they would be sent."""
    view = copy.copy(node)
    view.name = other
    return view
