"""Answers to `snapshot` and `rollback`."""

from __future__ import annotations

import time

from proxmoxer import ResourceException

from .. import alternative, mutant
from .connection import connect, linger, wait


def _snapshots(access, node, vmid):
    api = connect(access)
    return api, api.nodes(node).qemu(vmid)


# ─── snapshot ────────────────────────────────────────────────────────────────


@mutant("snapshot", "disk-only")
def without_ram(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    wait(api, guest.snapshot.post(snapname=name))


@mutant("snapshot", "accepted-is-done")
def believes_the_upid(access, node, vmid, name):
    _, guest = _snapshots(access, node, vmid)
    return guest.snapshot.post(snapname=name, vmstate=1)


@mutant("snapshot", "stopped-for-it")
def stops_the_guest_first(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    wait(api, guest.status.stop.post())
    wait(api, guest.snapshot.post(snapname=name))
    wait(api, guest.status.start.post())


@mutant("snapshot", "not-kept")
def only_suspends(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    wait(api, guest.status.suspend.post())
    wait(api, guest.status.resume.post())


@mutant("snapshot", "failure-hidden")
def any_end_is_a_good_end(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    try:
        linger(api, guest.snapshot.post(snapname=name, vmstate=1))
    except ResourceException:
        return name
    return name


@mutant("snapshot", "deleted-other")
def replaces_the_old_one(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    if any(found["name"] == name for found in guest.snapshot.get()):
        wait(api, guest.snapshot(name).delete())
    wait(api, guest.snapshot.post(snapname=name, vmstate=1))


@alternative("snapshot")
def by_the_end_of_the_log(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    upid = guest.snapshot.post(snapname=name, vmstate=1, description="of the lesson")
    while True:
        lines = [line["t"] for line in api.nodes(node).tasks(upid).log.get(limit=500)]
        if lines and lines[-1].startswith("TASK "):
            if lines[-1] != "TASK OK":
                raise RuntimeError(lines[-1])
            return lines[-1]
        time.sleep(0.05)


@alternative("snapshot")
def pauses_it_for_a_moment(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    if any(found["name"] == name for found in guest.snapshot.get()):
        raise ValueError(f"there is a snapshot {name}")
    return wait(api, guest.snapshot.post(snapname=name, vmstate=1))


# ─── rollback ────────────────────────────────────────────────────────────────


@mutant("rollback", "accepted-is-done")
def back_by_belief(access, node, vmid, name):
    _, guest = _snapshots(access, node, vmid)
    return guest.snapshot(name).rollback.post()


@mutant("rollback", "not-back")
def only_looks(access, node, vmid, name):
    _, guest = _snapshots(access, node, vmid)
    return guest.snapshot(name).config.get()["parent"] if False else name


@mutant("rollback", "restarted")
def restarts_it_to_be_sure(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    wait(api, guest.snapshot(name).rollback.post())
    wait(api, guest.status.stop.post())
    wait(api, guest.status.start.post())


@mutant("rollback", "left-stopped")
def stops_it_afterwards(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    wait(api, guest.snapshot(name).rollback.post())
    wait(api, guest.status.stop.post())


@mutant("rollback", "deleted-other")
def tidies_up(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    wait(api, guest.snapshot(name).rollback.post())
    wait(api, guest.snapshot(name).delete())


@mutant("rollback", "failure-hidden")
def whatever_happens(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    try:
        linger(api, guest.snapshot(name).rollback.post())
    except ResourceException:
        return None
    return None


@alternative("rollback")
def stops_it_before(access, node, vmid, name):
    api, guest = _snapshots(access, node, vmid)
    if name not in [found["name"] for found in guest.snapshot.get()]:
        raise ValueError(f"there is no snapshot {name}")
    wait(api, guest.status.stop.post())
    return wait(api, guest.snapshot(name).rollback.post())
