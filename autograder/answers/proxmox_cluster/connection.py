"""What many answers share: a connection, and waiting for a task."""

from __future__ import annotations

import time

from proxmoxer import ProxmoxAPI
from proxmoxer.tools import Tasks


def connect(access):
    return ProxmoxAPI(**access)


def wait(api, upid):
    """Wait until a task has ended; raise when it has failed."""
    task = api.nodes(upid.split(":")[1]).tasks(upid)
    while (status := task.status.get())["status"] != "stopped":
        time.sleep(0.05)
    if status["exitstatus"] != "OK":
        raise RuntimeError(status["exitstatus"])
    return upid


def linger(api, upid):
    """Wait until a task has ended, however."""
    return Tasks.blocking_status(api, upid, timeout=60, polling_interval=0.05)


def place(api, vmid):
    return next(guest["node"] for guest in api.cluster.resources.get(type="vm") if guest["vmid"] == vmid)


def guest(api, vmid):
    return api.nodes(place(api, vmid)).qemu(vmid)
