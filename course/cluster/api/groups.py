"""Groups of users, and roles: named sets of privileges."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, ParameterError
from ..config.users import Group
from ..formats import split_list
from ..roles import builtin_roles
from ..userfile import editing
from .common import ALL, Call, Parameter, endpoint, perm, text

GROUP = {"groupid": Parameter(format="pve-groupid")}
ROLE = {"roleid": Parameter(format="pve-roleid")}
_PRIVILEGES = text("pve-priv-list")
_ALLOCATE, _MODIFY = perm("/access/groups", "Group.Allocate"), perm("/access", "Sys.Modify")


def _known(groups: dict[str, Group], name: str) -> Group:
    if name not in groups:
        raise ClusterError(f"group '{name}' does not exist")
    return groups[name]


@endpoint("GET", "/access/groups", permissions=ALL)
def groups(call: Call) -> Any:
    """List the groups that the caller may look at."""
    wanted = ["User.Modify", "Sys.Audit", "Group.Allocate"]
    return [
        {"groupid": name, "users": ",".join(sorted(group.users)), **_comment(group.comment)}
        for name, group in sorted(call.node.state.users().groups.items())
        if call.may(f"/access/groups/{name}", wanted, any_of=True)
    ]


def _comment(words: str) -> dict[str, str]:
    return {"comment": words} if words else {}


@endpoint("POST", "/access/groups", parameters={**GROUP, "comment": text()}, permissions=_ALLOCATE)
def create_group(call: Call) -> Any:
    """Make a group."""
    name = call.values["groupid"]
    with editing(call.node.state, "create group failed") as config:
        if name in config.groups:
            raise ClusterError(f"group '{name}' already exists")
        config.groups[name] = Group(comment=call.values.get("comment", ""))


@endpoint(
    "GET",
    "/access/groups/{groupid}",
    parameters=GROUP,
    permissions=perm("/access/groups", "Sys.Audit", "Group.Allocate", any_of=True),
)
def read_group(call: Call) -> Any:
    """Return a group's members."""
    group = _known(call.node.state.users().groups, call.values["groupid"])
    return {"members": sorted(group.users), **_comment(group.comment)}


@endpoint("PUT", "/access/groups/{groupid}", parameters={**GROUP, "comment": text()}, permissions=_ALLOCATE)
def update_group(call: Call) -> Any:
    """Change a group's remark."""
    with editing(call.node.state, "update group failed") as config:
        group = _known(config.groups, call.values["groupid"])
        group.comment = call.values.get("comment", group.comment)


@endpoint("DELETE", "/access/groups/{groupid}", parameters=GROUP, permissions=_ALLOCATE)
def delete_group(call: Call) -> Any:
    """Remove a group with its rights; its members stay."""
    with editing(call.node.state, "delete group failed") as config:
        _known(config.groups, call.values["groupid"])
        config.remove(f"@{call.values['groupid']}")


@endpoint("GET", "/access/roles", permissions=ALL)
def roles(call: Call) -> Any:
    """List all roles."""
    built_in = builtin_roles()
    own = call.node.state.users().roles
    return [
        {"roleid": name, "privs": ",".join(sorted(privileges)), "special": int(name in built_in)}
        for name, privileges in sorted({**own, **built_in}.items())
    ]


@endpoint("POST", "/access/roles", parameters={**ROLE, "privs": _PRIVILEGES}, permissions=_MODIFY)
def create_role(call: Call) -> Any:
    """Make a role."""
    name = call.values["roleid"]
    if name.upper().startswith("PVE"):
        raise ParameterError({"roleid": "cannot use role ID starting with the (case-insensitive) 'PVE' namespace"})
    with editing(call.node.state, "create role failed") as config:
        if name in config.roles or name in builtin_roles():
            raise ClusterError(f"role '{name}' already exists")
        config.roles[name] = set(split_list(call.values.get("privs", "")))


@endpoint("GET", "/access/roles/{roleid}", parameters=ROLE, permissions=ALL)
def read_role(call: Call) -> Any:
    """Return a role's privileges."""
    return dict.fromkeys(sorted(call.access.role(call.values["roleid"])), 1)


@endpoint(
    "PUT",
    "/access/roles/{roleid}",
    parameters={
        **ROLE,
        "privs": _PRIVILEGES,
        "append": Parameter(type="boolean", optional=True, requires="privs"),
    },
    permissions=_MODIFY,
)
def update_role(call: Call) -> Any:
    """Change a role."""
    name = call.values["roleid"]
    if name in builtin_roles():
        raise ClusterError(f"auto-generated role '{name}' cannot be modified")
    with editing(call.node.state, "update role failed") as config:
        if name not in config.roles:
            raise ClusterError(f"role '{name}' does not exist")
        wanted = set(split_list(call.values.get("privs", "")))
        config.roles[name] = config.roles[name] | wanted if call.values.get("append") else wanted


@endpoint("DELETE", "/access/roles/{roleid}", parameters=ROLE, permissions=_MODIFY)
def delete_role(call: Call) -> Any:
    """Remove a role, wherever it was given."""
    name = call.values["roleid"]
    if name in builtin_roles():
        raise ClusterError(f"auto-generated role '{name}' cannot be deleted")
    with editing(call.node.state, "delete role failed") as config:
        if name not in config.roles:
            raise ClusterError(f"role '{name}' does not exist")
        del config.roles[name]
        for path, members in list(config.acl.items()):
            config.revoke(path, list(members), [name])
