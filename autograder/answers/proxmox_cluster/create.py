"""Answers to `create`."""

from __future__ import annotations

import time

from proxmoxer import ResourceException
from proxmoxer.tools import Tasks

from .. import alternative, mutant
from .connection import connect, linger, wait


def _free(api, vmid):
    taken = {guest["vmid"] for guest in api.cluster.resources.get(type="vm")}
    return int(api.cluster.nextid.get()) if vmid in taken else vmid


def _make(api, node, vmid, iso, memory_mib, **more):
    return api.nodes(node).qemu.post(vmid=vmid, memory=memory_mib, ide2=f"{iso},media=cdrom", serial0="socket", **more)


def _start(api, node, vmid):
    return api.nodes(node).qemu(vmid).status.start.post()


@mutant("create", "started-too-early")
def goes_on_at_once(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    _make(api, node, vmid, iso, memory_mib)
    time.sleep(0.5)
    wait(api, _start(api, node, vmid))
    return vmid


@mutant("create", "accepted-is-done")
def does_not_wait_for_the_start(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    wait(api, _make(api, node, vmid, iso, memory_mib))
    _start(api, node, vmid)
    return vmid


@mutant("create", "memory-unit")
def counts_in_bytes(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    wait(api, _make(api, node, vmid, iso, memory_mib << 20))
    wait(api, _start(api, node, vmid))
    return vmid


@mutant("create", "not-started")
def a_configuration_is_a_machine(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    wait(api, _make(api, node, vmid, iso, memory_mib))
    return vmid


@mutant("create", "other-node")
def on_the_first_node(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid, node = _free(api, vmid), "franklin"
    wait(api, _make(api, node, vmid, iso, memory_mib))
    wait(api, _start(api, node, vmid))
    return vmid


@mutant("create", "no-image")
def without_a_cd(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    wait(api, api.nodes(node).qemu.post(vmid=vmid, memory=memory_mib))
    wait(api, _start(api, node, vmid))
    return vmid


@mutant("create", "number-taken")
def insists_on_its_number(access, node, vmid, iso, memory_mib):
    api = connect(access)
    wait(api, _make(api, node, vmid, iso, memory_mib))
    wait(api, _start(api, node, vmid))
    return vmid


@mutant("create", "destroyed-other")
def makes_room(access, node, vmid, iso, memory_mib):
    api = connect(access)
    for guest in api.cluster.resources.get(type="vm"):
        if guest["vmid"] == vmid:
            wait(api, api.nodes(guest["node"]).qemu(vmid).delete())
    wait(api, _make(api, node, vmid, iso, memory_mib))
    wait(api, _start(api, node, vmid))
    return vmid


@mutant("create", "other-number")
def returns_the_number_wished_for(access, node, vmid, iso, memory_mib):
    api = connect(access)
    made = _free(api, vmid)
    wait(api, _make(api, node, made, iso, memory_mib))
    wait(api, _start(api, node, made))
    return vmid


@mutant("create", "failure-hidden")
def stopped_is_done(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    for step in (lambda: _make(api, node, vmid, iso, memory_mib), lambda: _start(api, node, vmid)):
        try:
            linger(api, step())
        except ResourceException:
            continue
    return vmid


@alternative("create")
def with_proxmoxer_s_own_waiting(access, node, vmid, iso, memory_mib):
    api = connect(access)
    vmid = _free(api, vmid)
    for step in (lambda: _make(api, node, vmid, iso, memory_mib), lambda: _start(api, node, vmid)):
        done = Tasks.blocking_status(api, step(), polling_interval=0.05)
        if done is None or done["exitstatus"] != "OK":
            raise RuntimeError(str(done))
    return vmid


@alternative("create")
def by_trying_the_number_and_reading_the_task_list(access, node, vmid, iso, memory_mib):
    api = connect(access)

    def ended(upid):
        while True:
            [task] = [task for task in api.nodes(node).tasks.get(source="all") if task["upid"] == upid]
            if task.get("endtime"):
                if task["status"] != "OK":
                    raise RuntimeError(task["status"])
                return
            time.sleep(0.05)

    try:
        upid = _make(api, node, vmid, iso, memory_mib)
    except ResourceException:
        vmid = int(api.cluster.nextid.get())
        upid = _make(api, node, vmid, iso, memory_mib)
    ended(upid)
    ended(_start(api, node, vmid))
    return vmid
