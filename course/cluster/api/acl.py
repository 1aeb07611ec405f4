"""Who may do what where: rights as they were given, and as they turn out."""

from __future__ import annotations

import re
from typing import Any

from ...error import ClusterError, ParameterError, PermissionRefused
from .. import realms
from ..config.users import UserConfig, normalize
from ..formats import split_list
from ..userfile import editing
from .common import ALL, WORLD, Call, Parameter, endpoint, flag, perm, text

_NAME = r"[A-Za-z0-9.\-_]+"
PLACES = re.compile(
    rf"""/
    | /access (?: /groups (?:/{_NAME})? | /realm (?:/{_NAME})? )?
    | /mapping (?: /(?:pci|usb) (?:/{_NAME})? )?
    | /nodes (?:/{_NAME})?
    | /pool (?:/{_NAME}){{0,3}}
    | /sdn (?: /zones (?:/{_NAME}){{0,3}} )?
    | /storage (?:/{_NAME})?
    | /vms (?:/[1-9][0-9]{{2,}})?
    """,
    re.VERBOSE,
)
"""Where rights may be given."""
_MEMBERS = {"users": "pve-userid-list", "groups": "pve-groupid-list", "tokens": "pve-tokenid-list"}


@endpoint("GET", "/access/acl", permissions=ALL)
def acl(call: Call) -> Any:
    """List the rights as they were given, where the caller may look or give some."""
    auditor = call.may("/access", ["Sys.Audit"])
    found = []
    for path, members in sorted(call.node.state.users().acl.items()):
        if not auditor and not _may_modify(call, path):
            continue
        for member, roles in sorted(members.items()):
            kind = "group" if member.startswith("@") else "token" if "!" in member else "user"
            found += [
                {
                    "path": path,
                    "type": kind,
                    "ugid": member.removeprefix("@"),
                    "roleid": role,
                    "propagate": int(propagate),
                }
                for role, propagate in sorted(roles.items())
            ]
    return found


def _may_modify(call: Call, path: str) -> bool:
    try:
        call.access.check_call(call.user, {"check": ["perm-modify", path]}, {})
    except PermissionRefused:
        return False
    return True


@endpoint(
    "PUT",
    "/access/acl",
    parameters={
        "path": Parameter(),
        "roles": Parameter(format="pve-roleid-list"),
        **{name: text(form) for name, form in _MEMBERS.items()},
        "propagate": flag(1),
        "delete": flag(),
    },
    permissions={"check": ["perm-modify", "{path}"]},
)
def update(call: Call) -> Any:
    """Give rights at a path, or take them away."""
    values = call.values
    if not any(values.get(name) for name in _MEMBERS):
        raise ParameterError(dict.fromkeys(_MEMBERS, "either 'users', 'groups' or 'tokens' is required."))
    path = _path(values["path"], delete=bool(values.get("delete")))
    roles = split_list(values["roles"])
    with editing(call.node.state, "ACL update failed") as config:
        members = _members(config, values)
        for role in roles:
            _assert_may_give(call, path, role)
        if values.get("delete"):
            config.revoke(path, members, roles)
        else:
            config.grant(path, members, roles, propagate=bool(values.get("propagate", 1)))


def _path(text: str, *, delete: bool) -> str:
    """Return a place of rights.

    Raises:
        ParameterError: there is none.
    """
    try:
        path = normalize(text)
    except ClusterError:
        path = ""
    if not path or not (delete or PLACES.fullmatch(path)):
        raise ParameterError({"path": f"invalid ACL path '{text}'"})
    return path


def _members(config: UserConfig, values: dict[str, Any]) -> list[str]:
    """Return who is meant, as the file names them.

    Raises:
        ClusterError: somebody does not exist.
    """
    users = split_list(values.get("users", ""))
    groups = [f"@{group}" for group in split_list(values.get("groups", ""))]
    tokens = split_list(values.get("tokens", ""))
    for kind, names in (("user", users), ("group", groups), ("API token", tokens)):
        for name in names:
            if not config.exists(name):
                raise ClusterError(f"{kind} '{name.removeprefix('@')}' does not exist")
    return [*users, *groups, *tokens]


def _assert_may_give(call: Call, path: str, role: str) -> None:
    """Refuse to give what one does not have, unless one may give all."""
    privileges = call.access.role(role)
    has = call.access.privileges(call.user, path)
    if "Permissions.Modify" in has:
        return
    delete = bool(call.values.get("delete"))
    verb = "remove" if delete else "add"
    if role == "NoAccess":
        raise ParameterError({"role": f"Cannot {verb} role '{role}' - requires 'Permissions.Modify'"})
    if not privileges <= has.keys():
        words = "requires 'Permissions.Modify' or superset of privileges."
        raise ParameterError({"role": f"Cannot {verb} role '{role}' - {words}"})
    spreads = call.values.get("propagate", 1) and not delete
    if spreads and not all(has[privilege] for privilege in privileges):
        words = "requires 'Permissions.Modify' or propagated superset of privileges."
        raise ParameterError({"role": f"Cannot {verb} role '{role}' with propagation - {words}"})


@endpoint(
    "GET",
    "/access/permissions",
    parameters={
        "userid": text(pattern=r"(?:[^\s:/]+)\@(?:[A-Za-z][A-Za-z0-9\.\-_]+)(?:!(?:[A-Za-z][A-Za-z0-9\.\-_]+))?"),
        "path": text(),
    },
    permissions=ALL,
)
def permissions(call: Call) -> Any:
    """Return what somebody may do, by path."""
    who = call.values.get("userid", call.user)
    if who != call.user and who.partition("!")[0] != call.user:
        call.check("/access", ["Sys.Audit"])
    if not call.node.state.users().exists(who):
        raise ClusterError(f"no such user ('{who}')")
    if "path" not in call.values:
        return call.access.tree(who)
    path = _path(call.values["path"], delete=True)
    has = call.access.privileges(who, path)
    return {path: {name: int(spreads) for name, spreads in sorted(has.items())}}


@endpoint("GET", "/access/domains", permissions=WORLD, inline=True)
def domains(call: Call) -> Any:
    """List the realms."""
    return [
        {"realm": name, "type": realm.kind, **_shown(realm.values)}
        for name, realm in sorted(realms.realms(call.node.state).items())
    ]


def _shown(values: dict[str, str]) -> dict[str, Any]:
    return {key: values[key] for key in ("comment", "default", "tfa") if key in values}


@endpoint(
    "GET",
    "/access/domains/{realm}",
    parameters={"realm": Parameter(format="pve-realm", max_length=32)},
    permissions=perm("/access/realm", "Realm.Allocate", "Sys.Audit", any_of=True),
)
def domain(call: Call) -> Any:
    """Return a realm's settings."""
    known = realms.realms(call.node.state).get(call.values["realm"])
    if known is None:
        raise ClusterError(f"domain '{call.values['realm']}' does not exist")
    return {"type": known.kind, **known.values}
