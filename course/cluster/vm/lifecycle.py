"""Starting and ending virtual machines: what the calls below ``/status`` do.

::

    start     config (pending changes applied) ──▶ command line ──▶ QEMU ──▶ running
    shutdown  agent or power button ──▶ the guest ends itself ──▶ QEMU ends        else: "got timeout"
    stop      QMP quit ──▶ 10 s ──▶ SIGKILL
    reboot    shutdown, then start with what was pending
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, MachineError
from ...machine import qemu
from ..config.guest import GuestConfig
from . import agent, cloudinit, commandline, hardware, ram, surroundings
from .running import RunningVm

if TYPE_CHECKING:
    from ..node import Node
    from ..tasks import Task

TIMEOUT_S = 60
_QUIT_S = 10
_TEMPLATE = "you can't start a vm if it's a template"

Log = Callable[[str], None]


def start(
    node: Node,
    vmid: int,
    log: Log,
    *,
    skiplock: bool = False,
    machine: str | None = None,
    paused: bool = False,
) -> RunningVm:
    """Start a machine.

    Args:
        node: that it runs on.
        vmid: its number.
        log: of the task.
        skiplock: whether a lock does not matter.
        machine: kind of machine in place of the configuration's.
        paused: do not let its processors run.

    Raises:
        ClusterError: it cannot be started; the words are Proxmox VE's.
    """
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        suspended = config.current.values.get("lock") == "suspended"
        if not skiplock:
            config.assert_unlocked(unless="suspended")
        if hardware.flag(config.current.values, "template"):
            raise ClusterError(_TEMPLATE)
        if node.guests.is_running(vmid):
            raise ClusterError(f"VM {vmid} already running")
        state = config.current.values.get("vmstate") if suspended else None
        if not suspended:
            _prepare(node, vmid, config, log)
        running = _start(
            node,
            vmid,
            config.current.values,
            log,
            incoming=bool(state),
            machine=machine or (config.current.values.get("runningmachine") if state else None),
            paused=paused,
        )
        if state:
            _wake_up(node, running, config, state, log)
    node.statistics.changed()
    return running


def _prepare(node: Node, vmid: int, config: GuestConfig, log: Log) -> None:
    """Let what was pending come into force, and write the CD of cloud-init."""
    from . import changing  # noqa: PLC0415 - each knows of the other

    if config.pending.values:
        changing.Changer(node, vmid, config, log).apply_all()
        node.state.save_guest(node.name, "qemu", vmid, config)
    if cloudinit.drive_of(config.current.values) is not None:
        log("generating cloud-init ISO")
        cloudinit.write(node, vmid, config)


def _wake_up(node: Node, running: RunningVm, config: GuestConfig, state: str, log: Log) -> None:
    """Take up the state that a machine was suspended with, and forget it."""
    log("Resuming suspended VM")
    ram.load(node, running, state, resume=True)
    for key in ("lock", "vmstate", "runningmachine", "runningcpu"):
        config.current.values.pop(key, None)
    ram.forget(node, state, log)
    log("Resumed VM, removing state")


def start_incoming(node: Node, vmid: int, values: dict[str, str], log: Log, *, machine: str | None) -> RunningVm:
    """Start a machine that waits for a guest of another node, and stands still when it has come.

    Raises:
        ClusterError: it cannot be started here.
    """
    return _start(node, vmid, values, log, incoming=True, machine=machine, paused=True)


def start_from_state(
    node: Node, vmid: int, values: dict[str, str], state: str, log: Log, *, machine: str | None
) -> RunningVm:
    """Start a machine whose RAM is in a state volume, as a rollback does.

    Raises:
        ClusterError: it cannot be started, or the state does not fit.
    """
    running = _start(node, vmid, values, log, incoming=True, machine=machine)
    try:
        ram.load(node, running, state, resume=True)
    except BaseException:
        node.guests.end(running)
        raise
    node.statistics.changed()
    return running


def _start(
    node: Node,
    vmid: int,
    values: dict[str, str],
    log: Log,
    *,
    incoming: bool = False,
    machine: str | None = None,
    paused: bool = False,
) -> RunningVm:
    """Start QEMU for a configuration."""
    with node.guests.starting(vmid):
        accel, kvm = surroundings.accelerator(values)
        if not kvm and values.get("kvm") is None:
            log("KVM is not available on this node: the processor is emulated (TCG)")
        wanted = {key: value for key, value in values.items() if key not in ("lock", "vmstate", "parent")}
        _assert_known(node, machine or values.get("machine", "pc"))
        arguments = commandline.arguments(vmid, wanted, surroundings.of(node, vmid, kvm=kvm, machine=machine))
        if paused:
            arguments.append("-S")
        running = node.guests.launch(
            vmid, wanted, arguments, name=values.get("name", f"vm{vmid}"), accel=accel, incoming=incoming, log=log
        )
    found: RunningVm = running
    try:
        _set_up(found)
    except BaseException:
        node.guests.end(found)
        raise
    return found


def _assert_known(node: Node, machine: str) -> None:
    """Refuse a kind of machine that is newer than this QEMU.

    Raises:
        ClusterError: in Proxmox VE's words.
    """
    found = re.search(r"-(\d+)\.(\d+)", machine)
    here = qemu.version()
    if found and (int(found[1]), int(found[2])) > here[:2]:
        raise ClusterError(
            f"Installed QEMU version '{'.'.join(map(str, here))}' is too old to run machine type '{machine}', "
            f"please upgrade node '{node.name}'"
        )


def _set_up(running: RunningVm) -> None:
    """Tell a fresh QEMU what its command line has no words for."""
    for drive in hardware.drives(running.values):
        if limits := throttle(drive):
            running.execute("block_set_io_throttle", {"id": drive.key, **limits})
    for card in hardware.nics(running.values):
        if card.flag("link_down"):
            running.execute("set_link", name=card.key, up=False)
    target = int(running.values.get("balloon") or 0)
    if 0 < target < hardware.memory_mib(running.values) and not running.incoming:
        with contextlib.suppress(ClusterError):
            running.execute("balloon", value=target << 20)
    with contextlib.suppress(ClusterError):  # without a balloon device there is nothing to ask
        if running.values.get("balloon") != "0":
            running.execute(
                "qom-set", path="/machine/peripheral/balloon0", property="guest-stats-polling-interval", value=2
            )


_MIB = 1 << 20


def throttle(drive: hardware.Drive) -> dict[str, int]:
    """Return the limits of a drive as ``block_set_io_throttle`` takes them; empty for none."""
    names = {"bps": "mbps", "bps_rd": "mbps_rd", "bps_wr": "mbps_wr"}
    limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    for name, mega in names.items():
        if mega in drive.options:
            limits[name] = int(float(drive.options[mega]) * _MIB)
        elif name in drive.options:
            limits[name] = int(drive.options[name])
    for name in ("iops", "iops_rd", "iops_wr"):
        limits[name] = int(drive.options.get(name, 0))
    return limits if any(limits.values()) else {}


def stop(
    node: Node, vmid: int, log: Log, *, skiplock: bool = False, timeout_s: float | None = None, keep: bool = False
) -> None:
    """Pull a machine's power cord; one that does not run is left alone.

    Raises:
        ClusterError: it is locked, or does not end.
    """
    del log, keep
    with _locked(node, vmid, skiplock):
        running = node.guests.get(vmid)
        if running is not None:
            quit(node, running, timeout_s)
    node.statistics.changed()


def quit(node: Node, running: RunningVm, timeout_s: float | None = None) -> None:
    """End QEMU: ask it, then make it."""
    with contextlib.suppress(ClusterError):
        running.execute("quit", timeout_s=5)
    if not running.ended.wait(_QUIT_S if timeout_s is None else max(1.0, timeout_s)):
        node.guests.end(running)


@contextlib.contextmanager
def _locked(node: Node, vmid: int, skiplock: bool, unless: str | None = None) -> Iterator[GuestConfig]:
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        if not skiplock:
            config.assert_unlocked(unless=unless)
        yield config


def shutdown(
    node: Node,
    vmid: int,
    task: Task,
    *,
    skiplock: bool = False,
    timeout_s: float | None = None,
    force: bool = False,
) -> None:
    """Ask the guest to end itself: by its agent, else by the power button.

    Raises:
        ClusterError: it did not, and is not to be forced.
    """
    with _locked(node, vmid, skiplock):
        running = node.guests.get(vmid)
        if running is None:
            return
        _ask_to_end(running)
        if not _wait_for_end(running, task, TIMEOUT_S if timeout_s is None else timeout_s):
            if not force:
                raise ClusterError("VM quit/powerdown failed - got timeout")
            task.log("VM quit/powerdown failed - got timeout")
            task.log("VM still running - terminating now with SIGTERM")
            quit(node, running, 5)
    node.statistics.changed()


def _ask_to_end(running: RunningVm) -> None:
    if hardware.has_agent(running.values) and agent.answers(running, 3):
        with contextlib.suppress(ClusterError):
            agent.tell(running, "guest-shutdown", {"mode": "powerdown"})
            return
    running.execute("system_powerdown")


def _wait_for_end(running: RunningVm, task: Task, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not running.ended.wait(min(0.25, max(0.0, end - time.monotonic()))):
        task.check_stop()
        if time.monotonic() >= end:
            return False
    return True


def reboot(node: Node, vmid: int, task: Task, *, timeout_s: float | None = None) -> None:
    """Shut the guest down and start it again, with the changes that waited for it.

    Raises:
        ClusterError: it did not shut down, or does not start.
    """
    node.guests.require(vmid)
    shutdown(node, vmid, task, timeout_s=timeout_s)
    start(node, vmid, task.log)


def reset(node: Node, vmid: int, *, skiplock: bool = False) -> None:
    """Press the reset button.

    Raises:
        ClusterError: it does not run, or is locked.
    """
    with _locked(node, vmid, skiplock):
        node.guests.require(vmid).execute("system_reset")


def suspend(node: Node, vmid: int, task: Task, *, skiplock: bool = False, storage: str | None = None) -> None:
    """Stop a machine's processors; with a storage, keep its RAM there and end it.

    Raises:
        ClusterError: it does not run, or is locked.
    """
    if storage is None:
        with _locked(node, vmid, skiplock, "backup"):
            node.guests.require(vmid).execute("stop")
        node.statistics.changed()
        return
    with _locked(node, vmid, skiplock) as config:
        running = node.guests.require(vmid)
        config.current.values |= {"lock": "suspending"}
    try:
        volume = ram.save_to_volume(node, running, storage, f"suspend-{time.strftime('%Y-%m-%d')}", task.log)
    except (ClusterError, MachineError):
        with node.state.guest_lock(vmid, node.name, "qemu") as config:
            config.current.values.pop("lock", None)
        raise
    with node.state.guest_lock(vmid, node.name, "qemu") as config:
        config.current.values |= {
            "lock": "suspended",
            "vmstate": volume,
            "runningmachine": running_machine(running),
        }
        quit(node, running)
    node.statistics.changed()


def resume(node: Node, vmid: int, *, skiplock: bool = False, nocheck: bool = False) -> None:
    """Let a machine's processors go on.

    Raises:
        ClusterError: it does not run, or is locked.
    """
    running = node.guests.require(vmid)
    if nocheck:  # at the end of a migration, when the configuration may still be on its way
        _resume(node, running)
        return
    with _locked(node, vmid, skiplock, "backup"):
        _resume(node, running)
    node.statistics.changed()


def _resume(node: Node, running: RunningVm) -> None:
    widen(node, running)
    status = running.qmpstatus
    if status in ("shutdown", "internal-error", "guest-panicked"):
        running.execute("system_reset")
    arrived = running.incoming
    running.execute("cont")
    running.incoming = False
    if arrived:
        node.guests.made_for.pop(running.vmid, None)
        _settle(running)


def _settle(running: RunningVm) -> None:
    """End what served a migration, and tell the network where the guest is now."""
    running.started = time.time()
    with contextlib.suppress(ClusterError):
        running.execute("nbd-server-stop")
    with contextlib.suppress(ClusterError):
        running.execute("announce-self", initial=50, max=550, rounds=5, step=100)


def widen(node: Node, running: RunningVm) -> None:
    """Tell QEMU what room its disks have now; a machine that stopped for want of room goes on when there is some."""
    from ..storage import of_volume  # noqa: PLC0415 - both packages know of each other

    def execute(command: str, arguments: Any) -> Any:
        return running.machine.execute(command, arguments)

    for drive in hardware.drives(running.values):
        if drive.is_disk and drive.has_volume:
            with contextlib.suppress(Exception):  # a limit that stays as it was is no reason to refuse
                of_volume(node, drive.volume).widen(drive.volume, running.node_of(drive.key), execute)


def running_machine(running: RunningVm) -> str:
    """Return the kind of machine that QEMU emulates, with its version, as a snapshot remembers it."""
    words = running.machine.command
    asked = words[words.index("-machine") + 1] if "-machine" in words else "type=pc"
    kind = dict(part.partition("=")[::2] for part in asked.split(",")).get("type", "pc")
    for found in running.execute("query-machines"):
        if kind in (found["name"], found.get("alias")):
            return str(found["name"])
    return kind
