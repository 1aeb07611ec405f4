"""Starting and ending containers: what the calls below ``/status`` do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...error import CapabilityError, ClusterError
from . import network, settings, tree
from .boxed import Boxed

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task
    from .registry import Running

SHUTDOWN_S = 60
REBOOTED = -1
"""PID 1's status after a reboot from inside: the kernel ends it with SIGHUP."""

Log = Callable[[str], None]


def start(node: Node, vmid: int, log: Log, *, skiplock: bool = False) -> Running:
    """Start a container.

    Raises:
        ClusterError: it runs, is locked or a template, or cannot be started.
    """
    with node.state.guest_lock(vmid, node.name, "lxc") as config:
        if not skiplock:
            settings.assert_unlocked(config, unless="mounted")
        config.apply_pending()
        values = dict(config.current.values)
        if settings.flag(values, "template"):
            raise ClusterError("you can't start a CT if it's a template")
        storage, volume = settings.storage_of_root(node, values)
        if not storage.exists(volume):
            raise ClusterError(f"volume '{volume}' does not exist")
        root = storage.path(volume)
        _name(root, vmid, values)
        running: Running = node.containers.keep(vmid, lambda: _launch(node, vmid, root, values, log))
    network.connect(node, vmid, values, running, log)
    node.statistics.changed()
    return running


def _name(root: Path, vmid: int, values: dict[str, str]) -> None:
    """Tell a container its name, as Proxmox VE writes it into the container's files."""
    name = settings.hostname(vmid, values)
    tree.write(root, "etc/hostname", f"{name}\n")
    tree.write(root, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n")
    servers = values.get("nameserver", "").split()
    domain = f"search {values['searchdomain']}\n" if "searchdomain" in values else ""
    tree.write(root, "etc/resolv.conf", domain + "".join(f"nameserver {server}\n" for server in servers))


def _launch(node: Node, vmid: int, root: Path, values: dict[str, str], log: Log) -> Running:
    def ended(status: int) -> None:
        network.disconnect(node, vmid)
        again = status == REBOOTED and not node.stopping.is_set()
        threading.Thread(target=_after, args=(node, vmid, again), name=f"ct-{vmid}-end", daemon=True).start()

    name = settings.hostname(vmid, values)
    if node.settings.containers != "guest":
        try:
            nets = [interface.name for interface in settings.interfaces(values)]
            return Boxed(vmid, root, hostname=name, run=node.run, nets=nets, on_end=ended)
        except CapabilityError as error:
            if node.settings.containers == "namespaces":
                raise ClusterError(str(error)) from error
            log(f"no namespaces here ({error.why}): the container runs in a small virtual machine")
    from .guestbox import GuestBox  # noqa: PLC0415 - loaded only where it is needed

    return GuestBox(vmid, root, hostname=name, on_end=ended)


def _after(node: Node, vmid: int, again: bool) -> None:
    """Tell that a container has ended, and start it again if it asked for that."""
    running = node.containers.get(vmid)
    if running is not None:
        running.ended.wait(SHUTDOWN_S)
    node.statistics.changed()
    with contextlib.suppress(ClusterError):
        if again:
            start(node, vmid, lambda line: node.log(f"CT {vmid}: {line}"))


def stop(node: Node, vmid: int, log: Log, *, skiplock: bool = False) -> None:
    """End a container at once; one that does not run is left alone.

    Raises:
        ClusterError: it is locked.
    """
    del log
    if not skiplock:
        settings.assert_unlocked(node.state.load_guest(vmid, node.name, "lxc"))
    running = node.containers.get(vmid)
    if running is not None:
        running.kill()
    node.statistics.changed()


def shutdown(
    node: Node,
    vmid: int,
    task: Task,
    *,
    timeout_s: float | None = None,
    force: bool = False,
) -> None:
    """Ask a container to end.

    Raises:
        ClusterError: it is locked, or did not end in time and is not to be forced.
    """
    settings.assert_unlocked(node.state.load_guest(vmid, node.name, "lxc"))
    running = node.containers.get(vmid)
    if running is None:
        return
    within = SHUTDOWN_S if timeout_s is None else timeout_s
    running.ask_to_end()
    end = time.monotonic() + within
    while not running.ended.wait(min(0.2, max(0.0, end - time.monotonic()))):
        task.check_stop()
        if time.monotonic() >= end:
            break
    if not running.ended.is_set():
        if not force:
            command = f"lxc-stop -n {vmid} --nokill --timeout {within:g}"
            raise ClusterError(f"command '{command}' failed: exit code 1")
        running.kill()
    node.statistics.changed()


def reboot(node: Node, vmid: int, task: Task, *, timeout_s: float | None = None) -> None:
    """Ask a container to end, and start it again.

    Raises:
        ClusterError: it does not run, did not end in time, or does not start.
    """
    node.containers.require(vmid)
    shutdown(node, vmid, task, timeout_s=timeout_s)
    start(node, vmid, task.log)
