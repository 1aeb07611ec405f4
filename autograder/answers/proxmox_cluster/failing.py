"""Answers to `quorum` and `recover`."""

from __future__ import annotations

import math
import time

from proxmoxer import ResourceException

from .. import alternative, mutant
from .connection import connect


@mutant("quorum", "two-rulers")
def half_is_enough(votes):
    return math.ceil(votes / 2)


@mutant("quorum", "two-rulers")
def always_two(votes):
    return 2


@mutant("quorum", "too-careful")
def all_but_one(votes):
    return max(votes - 1, votes // 2 + 1)


@mutant("quorum", "too-careful")
def all_of_them(votes):
    return votes


@alternative("quorum")
def by_counting(votes):
    return next(needed for needed in range(1, votes + 1) if 2 * needed > votes)


def _look(access, vmid):
    """The node on which the guest runs, by what nodes that are alive say of themselves."""
    api = connect(access)
    for node in api.nodes.get():
        if node["status"] != "online":
            continue
        try:
            for guest in api.nodes(node["node"]).qemu.get():
                if int(guest["vmid"]) == vmid and guest["status"] == "running":
                    return node["node"]
        except ResourceException:
            continue
    return None


@mutant("recover", "still-dead")
def where_it_was_last_seen(access, vmid, patience_s):
    return next(guest["node"] for guest in connect(access).cluster.resources.get(type="vm") if guest["vmid"] == vmid)


@mutant("recover", "guessed")
def the_first_node_that_lives(access, vmid, patience_s):
    api = connect(access)
    here = next(guest["node"] for guest in api.cluster.resources.get(type="vm") if guest["vmid"] == vmid)
    return next(node["node"] for node in api.nodes.get() if node["status"] == "online" and node["node"] != here)


@mutant("recover", "claimed-without-quorum")
def gives_up_in_silence(access, vmid, patience_s):
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if node := _look(access, vmid):
            return node
        time.sleep(0.1)
    return "nowhere"


@alternative("recover")
def by_asking_the_living(access, vmid, patience_s):
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if node := _look(access, vmid):
            return node
        time.sleep(0.1)
    raise TimeoutError(f"guest {vmid} did not come back within {patience_s} s")
