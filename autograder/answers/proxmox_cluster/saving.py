"""Answers to `save_and_restore`."""

from __future__ import annotations

import re

from .. import alternative, mutant
from .connection import connect, guest, place, wait


def _archives(api, node, storage, vmid):
    found = api.nodes(node).storage(storage).content.get(content="backup", vmid=vmid)
    return sorted(one["volid"] for one in found)


def _save(api, vmid, storage, mode="snapshot"):
    return wait(api, api.nodes(place(api, vmid)).vzdump.post(vmid=vmid, storage=storage, mode=mode))


def _restore(api, node, new_vmid, archive, **more):
    return wait(api, api.nodes(node).qemu.post(vmid=new_vmid, archive=archive, **more))


@mutant("save_and_restore", "stopped-for-it")
def of_a_stopped_guest(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    wait(api, guest(api, vmid).status.stop.post())
    _save(api, vmid, storage, "stop")
    wait(api, guest(api, vmid).status.start.post())
    archive = _archives(api, node, storage, vmid)[-1]
    _restore(api, node, new_vmid, archive, unique=1)
    return archive


@mutant("save_and_restore", "no-archive")
def a_clone_is_a_backup(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    wait(api, guest(api, vmid).clone.post(newid=new_vmid, full=1))
    return api.nodes(node).qemu(new_vmid).config.get()["scsi0"]


@mutant("save_and_restore", "not-restored")
def hopes(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    _save(api, vmid, storage)
    return _archives(api, node, storage, vmid)[-1]


@mutant("save_and_restore", "no-content")
def restores_the_configuration(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    _save(api, vmid, storage)
    wait(api, api.nodes(node).qemu.post(vmid=new_vmid, memory=32, scsi0=f"{storage}:0.01,format=qcow2"))
    return _archives(api, node, storage, vmid)[-1]


@mutant("save_and_restore", "same-address")
def with_the_original_s_address(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    _save(api, vmid, storage)
    archive = _archives(api, node, storage, vmid)[-1]
    _restore(api, node, new_vmid, archive)
    return archive


@mutant("save_and_restore", "accepted-is-done")
def restores_by_belief(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    _save(api, vmid, storage)
    archive = _archives(api, node, storage, vmid)[-1]
    api.nodes(node).qemu.post(vmid=new_vmid, archive=archive, unique=1)
    return archive


@mutant("save_and_restore", "other-archive")
def restores_the_oldest(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    _save(api, vmid, storage)
    archive = _archives(api, node, storage, vmid)[0]
    _restore(api, node, new_vmid, archive, unique=1)
    return archive


@alternative("save_and_restore")
def name_from_the_log(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    upid = _save(api, vmid, storage)
    log = "\n".join(line["t"] for line in api.nodes(node).tasks(upid).log.get(limit=500))
    name = re.search(r"creating vzdump archive '.*?([^/']+)'", log)[1]
    archive = f"{storage}:backup/{name}"
    _restore(api, node, new_vmid, archive, unique=1)
    return archive


@alternative("save_and_restore")
def in_suspend_mode_to_another_node(access, vmid, storage, new_vmid):
    api = connect(access)
    node = place(api, vmid)
    before = set(_archives(api, node, storage, vmid))
    _save(api, vmid, storage, "suspend")
    [archive] = set(_archives(api, node, storage, vmid)) - before
    other = next(one["node"] for one in api.nodes.get() if one["node"] != node and one["status"] == "online")
    _restore(api, other, new_vmid, archive, unique=1, storage=storage)
    return archive
