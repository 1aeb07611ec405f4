"""Logging in: a ticket for a password, or a fresh ticket for one that is still good."""

from __future__ import annotations

import re
from typing import Any

from ...error import ClusterError
from .. import realms
from ..config.users import USER
from ..foundation import cluster_name
from .common import WORLD, Call, Parameter, endpoint, flag, text

_AREAS = {
    "vms": r"VM\.|Permissions\.Modify$",
    "access": r"(User|Group)\.|Permissions\.Modify$",
    "storage": r"Datastore\.|Permissions\.Modify$",
    "nodes": r"Sys\.|Permissions\.Modify$",
    "sdn": r"SDN\.|Permissions\.Modify$",
    "dc": r"Sys\.(Audit|Modify)$|SDN\.",
    "mapping": r"Mapping\.|Permissions\.Modify$",
}
FAILURE = "authentication failure"


@endpoint("GET", "/access/ticket", permissions=WORLD, inline=True)
def nothing(call: Call) -> Any:
    """Exist, for web pages that look whether there is a server."""
    return


@endpoint(
    "POST",
    "/access/ticket",
    parameters={
        "username": Parameter(max_length=64),
        "realm": text("pve-realm", longest=32),
        "password": Parameter(),
        "otp": text(),
        "path": Parameter(optional=True, requires="privs", max_length=64),
        "privs": Parameter(optional=True, requires="path", format="pve-priv-list", max_length=64),
        "new-format": flag(1),
        "tfa-challenge": text(),
    },
    permissions=WORLD,
    writes=False,
    allow_token=False,
)
def login(call: Call) -> Any:
    """Check a password, or a ticket in its place, and return a ticket."""
    values, node = call.values, call.node
    user = values["username"] + (f"@{values['realm']}" if "realm" in values else "")
    if not USER.fullmatch(user) or not node.access().active(user) or not _right(call, user, values["password"]):
        node.log(f"authentication failure; rhost={_peer(call)} user={user!r}", "warning")
        raise ClusterError(FAILURE, status=401)
    if "path" in values:
        wanted = re.split(r"[,;\s]+", values["privs"])
        if not node.access().may(user, values["path"], wanted):
            raise ClusterError(FAILURE, status=401)
        return {"username": user}
    node.cluster_log(f"successful auth for user '{user}'", user=user)
    answer = {
        "username": user,
        "ticket": node.tickets.give(user),
        "CSRFPreventionToken": node.tickets.csrf(user),
        "cap": capabilities(call, user),
    }
    if node.access().may(user, "/", ["Sys.Audit"]):
        answer["clustername"] = cluster_name(node.state, node.settings)
    return answer


def _right(call: Call, user: str, password: str) -> bool:
    """Say whether a password, or a ticket in its place, is a user's."""
    try:
        if call.node.tickets.verify(password) == user:
            return True
    except ClusterError:
        pass
    return realms.verify(call.node.state, user, password)


def capabilities(call: Call, user: str) -> dict[str, dict[str, int]]:
    """Return what a user may do at all, by area, as the web interface wants to know."""
    access = call.node.access()
    found: dict[str, dict[str, int]] = {area: {} for area in _AREAS}
    for path in {"/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping", *access.config.acl}:
        for privilege in access.privileges(user, path):
            for area, pattern in _AREAS.items():
                if re.match(pattern, privilege):
                    found[area][privilege] = 1
    return found


def _peer(call: Call) -> str:
    return str(getattr(call.request, "remote", None) or "unknown")
