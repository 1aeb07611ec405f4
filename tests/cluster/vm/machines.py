"""Machines for tests: made, waited for and removed through the API as a client does it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 300


@dataclass(frozen=True)
class Ended:
    """A task that has ended.

    Attributes:
        status: how, such as ``OK``.
        log: its lines, without the last.
    """

    status: str
    log: list[str]


def ended(api: Any, upid: str) -> Ended:
    """Wait for the end of a task."""
    task = api.nodes(upid.split(":")[1]).tasks(upid)
    end = time.monotonic() + PATIENCE_S
    while (status := task.status.get())["status"] != "stopped":
        assert time.monotonic() < end, f"{upid} did not end: {task.log.get(limit=0)}"
        time.sleep(0.03)
    return Ended(status["exitstatus"], [line["t"] for line in task.log.get(limit=0)][:-1])


def done(api: Any, upid: str) -> list[str]:
    """Wait for the end of a task that has to go well; return its log."""
    result = ended(api, upid)
    assert result.status == "OK", f"{upid}: {result.status}\n" + "\n".join(result.log)
    return result.log


def until(condition: Any, what: str) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def machine(api: Any, node: str = "michael", **settings: Any) -> Iterator[int]:
    """Make a machine, yield its number, and remove it from wherever it is then."""
    vmid = int(api.cluster.nextid.get())
    done(api, api.nodes(node).qemu.post(vmid=vmid, **{"memory": 32, **settings}))
    try:
        yield vmid
    finally:
        remove(api, vmid)


def remove(api: Any, vmid: int) -> None:
    """Remove a machine that may run, may be locked or may be gone."""
    place = where(api, vmid)
    if place is None:
        return
    vm = api.nodes(place).qemu(vmid)
    done(api, vm.status.stop.post(skiplock=1))
    ended(api, vm.delete(skiplock=1, purge=1))


def where(api: Any, vmid: int) -> str | None:
    """Return the node that has a machine."""
    for node in ("franklin", "trevor", "michael"):
        if any(int(vm["vmid"]) == vmid for vm in api.nodes(node).qemu.get()):
            return node
    return None


def processes(vmid: int, run: Path, node: str = "") -> list[int]:
    """Return the QEMU processes whose command line carries a machine's number."""
    mark = f"{run}/{node}".encode() if node else str(run).encode()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                line = (path / "cmdline").read_bytes()
                if b"qemu-system" in line.split(b"\0")[0] and mark in line and f"/{vmid}.qmp,".encode() in line:
                    found.append(int(path.name))
    return found


def number(vm: Any, address: int = 0x500) -> int:
    """Return a number in a guest's memory, as QEMU's monitor tells it."""
    return int(vm.monitor.post(command=f"xp /1dw {address:#x}").split()[-1])
