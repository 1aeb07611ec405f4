"""Users and their passwords."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, PermissionRefused
from .. import callers, realms
from ..config.users import ROOT, User, UserConfig
from ..formats import split_list
from ..node import Node
from ..userfile import editing
from .common import ALL, Call, Parameter, endpoint, flag, number, text

USERID = Parameter(format="pve-userid", max_length=64)
PASSWORD = Parameter(min_length=5, max_length=64)
_SECRET = Parameter(optional=True, min_length=5, max_length=64)
_FIELDS = {
    "enable": flag(1),
    "expire": number(0),
    "firstname": text(),
    "lastname": text(),
    "email": text("email-opt"),
    "comment": text(),
    "keys": text(),
}
_GROUPS = text("pve-groupid-list")
OVER_USER: dict[str, Any] = {
    "check": ["and", ["userid-param", "Realm.AllocateUser"], ["userid-group", ["User.Modify"]]]
}


@endpoint("GET", "/access/users", parameters={"enabled": flag(), "full": flag(0)}, permissions=ALL)
def users(call: Call) -> Any:
    """List the users that the caller may see: oneself, and members of groups that one may look at."""
    config = call.node.state.users()
    privileges = ["User.Modify", "Sys.Audit"]
    everybody = call.may("/access/groups", privileges, any_of=True)
    found = []
    for name, user in sorted(config.users.items()):
        groups = config.groups_of(name)
        over = any(call.may(f"/access/groups/{group}", privileges, any_of=True) for group in groups)
        if not (everybody or name == call.user or over):
            continue
        if "enabled" in call.values and bool(call.values["enabled"]) != user.enable:
            continue
        entry = {"userid": name, **fields(user), "realm-type": _realm_type(call.node, name)}
        if call.values.get("full"):
            entry["groups"] = ",".join(groups)
            entry["tokens"] = [{"tokenid": token, **token_fields(user, token)} for token in sorted(user.tokens)]
        found.append(entry)
    return found


def _realm_type(node: Node, user: str) -> str:
    realm = user.rpartition("@")[2]
    known = realms.realms(node.state).get(realm)
    return known.kind if known else realm


def fields(user: User) -> dict[str, Any]:
    """Return what a user's entry says of the user; what is empty is left out."""
    found: dict[str, Any] = {"enable": int(user.enable), "expire": user.expire}
    words = {name: getattr(user, name) for name in ("firstname", "lastname", "email", "comment", "keys")}
    return found | {name: word for name, word in words.items() if word}


def token_fields(user: User, token: str) -> dict[str, Any]:
    """Return what is known of a token, but for its secret."""
    known = user.tokens[token]
    found: dict[str, Any] = {"expire": known.expire, "privsep": int(known.privsep)}
    return found | ({"comment": known.comment} if known.comment else {})


def known_user(config: UserConfig, name: str) -> User:
    """Return a user.

    Raises:
        ClusterError: there is none.
    """
    if name not in config.users:
        raise ClusterError(f"no such user ('{name}')")
    return config.users[name]


@endpoint(
    "POST",
    "/access/users",
    parameters={"userid": USERID, "password": _SECRET, "groups": _GROUPS, **_FIELDS},
    permissions={
        "check": [
            "and",
            ["userid-param", "Realm.AllocateUser"],
            ["userid-group", ["User.Modify"], "groups_param", "create"],
        ]
    },
)
def create(call: Call) -> Any:
    """Make a user."""
    values, state = call.values, call.node.state
    name = values["userid"]
    with editing(state, "create user failed") as config:
        if name in config.users:
            raise ClusterError(f"user '{name}' already exists")
        _assert_realm(call, name)
        if values.get("password"):
            realms.set_password(state, name, values["password"])
        config.users[name] = User(enable=bool(values.get("enable", 1)))
        _change(config, name, values, append=False)


def _assert_realm(call: Call, name: str) -> None:
    realm = name.rpartition("@")[2]
    if realm not in realms.realms(call.node.state):
        raise ClusterError(f"authentication domain '{realm}' does not exist")


def _change(config: UserConfig, name: str, values: dict[str, Any], *, append: bool) -> None:
    """Change what was given of a user."""
    user = config.users[name]
    for key in ("expire", "firstname", "lastname", "email", "comment", "keys"):
        if key in values:
            setattr(user, key, values[key])
    if "enable" in values:
        user.enable = bool(values["enable"])
    if "groups" in values:
        wanted = split_list(values["groups"])
        for group in wanted:
            if group not in config.groups:
                raise ClusterError(f"no such group '{group}'")
        for group, members in config.groups.items():
            if group in wanted:
                members.users.add(name)
            elif not append:
                members.users.discard(name)


@endpoint(
    "GET",
    "/access/users/{userid}",
    parameters={"userid": USERID},
    permissions={"check": ["userid-group", ["User.Modify", "Sys.Audit"]]},
)
def read(call: Call) -> Any:
    """Return a user with groups and tokens."""
    config, name = call.node.state.users(), call.values["userid"]
    user = known_user(config, name)
    tokens = {token: token_fields(user, token) for token in sorted(user.tokens)}
    return {**fields(user), "groups": config.groups_of(name), "tokens": tokens}


@endpoint(
    "PUT",
    "/access/users/{userid}",
    parameters={
        "userid": USERID,
        "groups": _GROUPS,
        "append": Parameter(type="boolean", optional=True, requires="groups"),
        **_FIELDS,
    },
    permissions={"check": ["userid-group", ["User.Modify"], "groups_param", "update"]},
)
def update(call: Call) -> Any:
    """Change a user."""
    with editing(call.node.state, "update user failed") as config:
        known_user(config, call.values["userid"])
        _change(config, call.values["userid"], call.values, append=bool(call.values.get("append")))


@endpoint("DELETE", "/access/users/{userid}", parameters={"userid": USERID}, permissions=OVER_USER)
def delete(call: Call) -> Any:
    """Remove a user with tokens, password and rights."""
    name, state = call.values["userid"], call.node.state
    with editing(state, "delete user failed") as config:
        known_user(config, name)
        if name == ROOT:
            raise ClusterError("can't delete user 'root@pam'")
        config.remove(name)
        forget_secrets(call.node, f"{name}!")
        realms.set_password(state, name, None)


def forget_secrets(node: Node, prefix: str) -> None:
    """Forget the secrets of tokens whose names begin so."""
    with node.state.lock("file-token_cfg"):
        known = callers.parse_tokens(node.state.read(callers.TOKENS))
        kept = {name: secret for name, secret in known.items() if not name.startswith(prefix)}
        if kept != known:
            node.state.write(callers.TOKENS, callers.render_tokens(kept))


@endpoint(
    "PUT",
    "/access/password",
    parameters={"userid": USERID, "password": PASSWORD},
    permissions={
        "check": [
            "or",
            ["userid-param", "self"],
            ["and", ["userid-param", "Realm.AllocateUser"], ["userid-group", ["User.Modify"]]],
        ]
    },
    allow_token=False,
)
def password(call: Call) -> Any:
    """Change a password: one's own, or as an administrator another's; only root changes those of pam."""
    name = call.values["userid"]
    known_user(call.node.state.users(), name)
    if call.user not in (ROOT, name) and name.endswith("@pam"):
        raise PermissionRefused("Permission check failed")
    realms.set_password(call.node.state, name, call.values["password"])


@endpoint(
    "GET",
    "/access/users/{userid}/tfa",
    parameters={"userid": USERID, "multiple": flag(0)},
    permissions={"check": ["or", ["userid-param", "self"], ["userid-group", ["User.Modify", "Sys.Audit"]]]},
)
def second_factors(call: Call) -> Any:
    """Return a user's second factors: there are none in the lab."""
    known_user(call.node.state.users(), call.values["userid"])
    return {"types": []} if call.values.get("multiple") else {}


@endpoint("GET", "/access/tfa", permissions=ALL)
def all_second_factors(call: Call) -> Any:
    """List everybody's second factors that the caller may see: there are none in the lab."""
    auditor = call.may("/access/groups", ["User.Modify", "Sys.Audit"], any_of=True)
    return [
        {"userid": name, "entries": []}
        for name in sorted(call.node.state.users().users)
        if auditor or name == call.user
    ]
