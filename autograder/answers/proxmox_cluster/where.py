"""Answers to `where`."""

from __future__ import annotations

from proxmoxer import ResourceException

from .. import alternative, mutant
from .connection import connect


@mutant("where", "hard-coded")
def always_michael(access, vmid):
    return "michael"


@mutant("where", "not-found")
def only_running_ones(access, vmid):
    for guest in connect(access).cluster.resources.get(type="vm"):
        if guest["vmid"] == vmid and guest["status"] == "running":
            return guest["node"]
    return None


@mutant("where", "number-as-text")
def the_first_whose_number_begins_so(access, vmid):
    longest = sorted(connect(access).cluster.resources.get(type="vm"), key=lambda guest: -guest["vmid"])
    return next((guest["node"] for guest in longest if guest["id"].startswith(f"qemu/{vmid}")), None)


@mutant("where", "absent-raises")
def takes_it_for_granted(access, vmid):
    return next(guest["node"] for guest in connect(access).cluster.resources.get(type="vm") if guest["vmid"] == vmid)


@mutant("where", "absent-found")
def the_last_node_asked(access, vmid):
    api = connect(access)
    for node in api.nodes.get():
        name = node["node"]
        if any(guest["vmid"] == vmid for guest in api.nodes(name).qemu.get()):
            break
    return name


@mutant("where", "other-answer")
def the_whole_entry(access, vmid):
    found = [guest for guest in connect(access).cluster.resources.get(type="vm") if guest["vmid"] == vmid]
    return {"node": found[0]["node"]} if found else None


@alternative("where")
def node_by_node(access, vmid):
    api = connect(access)
    for node in api.nodes.get():
        if node["status"] == "online":
            for guest in api.nodes(node["node"]).qemu.get():
                if int(guest["vmid"]) == vmid:
                    return node["node"]
    return None


@alternative("where")
def by_asking_each_for_the_configuration(access, vmid):
    api = connect(access)
    for node in api.nodes.get():
        try:
            api.nodes(node["node"]).qemu(vmid).config.get()
        except ResourceException:
            continue
        return node["node"]
    return None
