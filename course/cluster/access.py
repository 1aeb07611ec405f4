"""Who may do what: roles and privileges at a path, and the rules that the schema gives for each call.

A right is given to a user, a group or a token at a path of a tree, such as ``/vms/169`` or ``/pool/students``. On the
way from the root down to the path that is asked about

- a right above counts if it propagates; at the path itself each right counts;
- a deeper level replaces what the levels above gave;
- on one level, a user's own rights replace those of the user's groups;
- ``NoAccess`` among the roles leaves nothing else.

A guest or a storage in a pool has the privileges at the pool as well, unless there is ``NoAccess`` on either side. A
token with privilege separation has what both it and its user have; another token is its user. ``root@pam`` has all.

Source: chapter "Permission Management" of the Proxmox VE administration guide; pve-access-control's regression vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..error import ClusterError, PermissionRefused
from .config.users import ROOT, Roles, UserConfig, normalize
from .roles import PRIVILEGES, builtin_roles

TOP_LEVEL = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")
REMEMBERED = 10_000
"""How many answers are kept; a configuration that changes is another `Access`."""
_AREA = {"storage": "Datastore.Allocate", "vms": "VM.Allocate", "pool": "Pool.Allocate"}


class Access:
    """The rights of everybody in one configuration.

    Args:
        config: users, groups, tokens, pools, roles and rights; it must not change while this is used.
        now: the time by which users and tokens expire, in seconds since 1970.
        privileges: all that there are, for another release of Proxmox VE.
    """

    def __init__(self, config: UserConfig, *, now: float = 0, privileges: frozenset[str] = PRIVILEGES) -> None:
        self.config = config
        self.now = now
        self._roles: dict[str, frozenset[str]] = {
            **{name: frozenset(own) & privileges for name, own in config.roles.items()},
            **builtin_roles(privileges),
        }
        self._known: dict[tuple[str, str], Mapping[str, bool]] = {}

    def role(self, name: str) -> frozenset[str]:
        """Return a role's privileges.

        Raises:
            ClusterError: there is no such role.
        """
        if name not in self._roles:
            raise ClusterError(f"role '{name}' does not exist")
        return self._roles[name]

    def active(self, who: str) -> bool:
        """Say whether a user, or a token and its user, exists, is enabled and has not expired."""
        name, _, token = who.partition("!")
        user = self.config.users.get(name)
        if user is None or not user.enable or 0 < user.expire <= self.now:
            return False
        if not token:
            return True
        known = user.tokens.get(token)
        return known is not None and not 0 < known.expire <= self.now

    def roles(self, who: str, path: str) -> Roles:
        """Return the roles at a path, each with whether it propagates; pools do not count here."""
        if not self.active(who):
            return {}
        name, _, token = who.partition("!")
        if token and not self.config.users[name].tokens[token].privsep:
            return self.roles(name, path)
        if who == ROOT:
            return {"Administrator": True}
        found: Roles = {}
        groups = [] if token else [f"@{group}" for group in self.config.groups_of(who)]
        for level in levels(path):
            final = level == normalize(path)
            found = self._given(level, [who], final) or self._given(level, groups, final) or found
        return {"NoAccess": found["NoAccess"]} if "NoAccess" in found else found

    def _given(self, level: str, members: Iterable[str], final: bool) -> Roles:
        """Return the roles that members together have at one level, as far as they count there."""
        entries = self.config.acl.get(level, {})
        roles: Roles = {}
        for member in members:
            for role, propagate in entries.get(member, {}).items():
                if role in self._roles and (final or propagate):
                    roles[role] = propagate or roles.get(role, False)
        return roles

    def privileges(self, who: str, path: str, *, pools: bool = True) -> dict[str, bool]:
        """Return the privileges at a path, each with whether it propagates.

        Args:
            who: ``user@realm`` or ``user@realm!token``.
            path: such as ``/vms/169``.
            pools: whether privileges at pools count too, as they do in all checks.
        """
        own = self._own_privileges(who, path, pools)
        name, _, token = who.partition("!")
        if not token or not own or not self.config.users[name].tokens[token].privsep:
            return own
        users = self._own_privileges(name, path, pools)
        return {privilege: propagate and users[privilege] for privilege, propagate in own.items() if privilege in users}

    def _own_privileges(self, who: str, path: str, pools: bool) -> dict[str, bool]:
        """Return the privileges without a look at the token's user."""
        places = [path, *(f"/pool/{name}" for name in self._pools_of(path))] if pools else [path]
        found: dict[str, bool] = {}
        for place in places:
            roles = self.roles(who, place)
            if "NoAccess" in roles:
                return {}
            for role, propagate in roles.items():
                for privilege in self._roles[role]:
                    found[privilege] = propagate or found.get(privilege, False)
        return found

    def _pools_of(self, path: str) -> list[str]:
        """Return the names of the pools that a guest or a storage is in."""
        found = re.fullmatch(r"/(vms|storage)/([^/]+)", normalize(path))
        if found is None:
            return []
        area, name = found.groups()
        return [
            pool
            for pool, members in sorted(self.config.pools.items())
            if (name in map(str, members.vms) if area == "vms" else name in members.storages)
        ]

    def tree(self, who: str) -> dict[str, dict[str, int]]:
        """Return all that somebody may do, by path, as ``/access/permissions`` answers."""
        places = {*TOP_LEVEL, *self.config.acl}
        for name, pool in self.config.pools.items():
            places |= {f"/pool/{name}", *(f"/vms/{vmid}" for vmid in pool.vms)}
            places |= {f"/storage/{storage}" for storage in pool.storages}
        found = {place: self.privileges(who, place) for place in sorted(places)}
        return {
            place: {name: int(spreads) for name, spreads in sorted(has.items())} for place, has in found.items() if has
        }

    def may(self, who: str, path: str, privileges: Sequence[str], *, any_of: bool = False) -> bool:
        """Say whether somebody has all of the privileges, or any of them."""
        has = self._has(who, path)
        return (any if any_of else all)(privilege in has for privilege in privileges)

    def check(self, who: str, path: str, privileges: Sequence[str], *, any_of: bool = False) -> None:
        """Refuse who lacks a privilege.

        Raises:
            PermissionRefused: the path and what is missing, in Proxmox VE's words.
        """
        has = self._has(who, path)
        missing = [privilege for privilege in privileges if privilege not in has]
        if any_of and len(missing) == len(privileges):
            raise PermissionRefused(f"Permission check failed ({path}, {'|'.join(privileges)})")
        if missing and not any_of:
            raise PermissionRefused(f"Permission check failed ({path}, {missing[0]})")

    def _has(self, who: str, path: str) -> Mapping[str, bool]:
        """Return the privileges at a path; none at what is no path, for rules put clients' words into paths."""
        if not self.active(who):
            return {}
        found = self._known.get((who, path))
        if found is None:
            try:
                found = self.privileges(who, normalize(path))
            except ClusterError:
                found = {}
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[who, path] = found
        return found

    def check_call(self, who: str, permissions: Mapping[str, Any] | None, parameters: Mapping[str, Any]) -> None:
        """Apply the rule that the schema gives for a call.

        Args:
            who: the caller.
            permissions: such as ``{"check": ["perm", "/vms/{vmid}", ["VM.Audit"]]}``, ``{"user": "all"}``, or None for
                a call that only root may make.
            parameters: of the call, those of its path included.

        Raises:
            PermissionRefused: the caller may not.
        """
        if who == ROOT or (permissions and permissions.get("user") in ("all", "world")):
            return
        if not permissions or "check" not in permissions:
            raise PermissionRefused("Permission check failed (user != root@pam)")
        self._apply(who, permissions["check"], parameters)

    def _apply(self, who: str, rule: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """Apply one rule or a combination of rules."""
        kind, rest = rule[0], rule[1:]
        if kind == "and":
            for part in rest:
                self._apply(who, part, parameters)
        elif kind == "or":
            if not any(self._holds(who, part, parameters) for part in rest):
                raise PermissionRefused("Permission check failed")
        elif kind == "perm":
            self._perm(who, rest, parameters)
        elif kind == "perm-modify":
            self._perm_modify(who, _fill(rest[0], parameters))
        elif kind == "userid-param":
            self._userid_param(who, rest[0], str(parameters.get("userid", "")))
        elif kind == "userid-group":
            self._userid_group(who, rest, parameters)
        else:
            raise PermissionRefused("Permission check failed")

    def _holds(self, who: str, rule: Sequence[Any], parameters: Mapping[str, Any]) -> bool:
        """Say whether a rule lets somebody pass."""
        try:
            self._apply(who, rule, parameters)
        except PermissionRefused:
            return False
        return True

    def _perm(self, who: str, rest: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """Apply ``["perm", path, privileges, options ...]``."""
        options = dict(zip(rest[2::2], rest[3::2], strict=True))
        if options.get("require_param") and parameters.get(options["require_param"]) is None:
            raise PermissionRefused("Permission check failed")
        self.check(who, _fill(rest[0], parameters), rest[1], any_of=bool(options.get("any")))

    def _perm_modify(self, who: str, path: str) -> None:
        """Who may allocate something may also give rights to it."""
        area = _AREA.get(path.strip("/").partition("/")[0])
        wanted = ["Permissions.Modify", area] if area and path.strip("/").count("/") else ["Permissions.Modify"]
        self.check(who, path, wanted, any_of=True)

    def _userid_param(self, who: str, what: str, userid: str) -> None:
        """Apply ``["userid-param", "self"]``, or a privilege at the realm of the user that the call is about."""
        if what == "self":
            if who != userid:
                raise PermissionRefused("Permission check failed")
            return
        self.check(who, f"/access/realm/{userid.rpartition('@')[2]}", [what])

    def _userid_group(self, who: str, rest: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """Apply ``["userid-group", privileges, "groups_param", when]``: rights over a group of the user concerned."""
        privileges, options = rest[0], dict(zip(rest[1::2], rest[2::2], strict=True))
        named = [name for name in re.split(r"[,;\s]+", str(parameters.get("groups") or "")) if name]
        for group in named if options.get("groups_param") else ():
            self.check(who, f"/access/groups/{group}", privileges)
        if options.get("groups_param") == "create" and named:
            return
        groups = self.config.groups_of(str(parameters.get("userid", "")))
        places = ["/access/groups", *(f"/access/groups/{group}" for group in groups)]
        if not any(self.may(who, place, privileges, any_of=True) for place in places):
            raise PermissionRefused(f"Permission check failed (/access/groups, {'|'.join(privileges)})")


def levels(path: str) -> list[str]:
    """Return the levels from the root down to a path, both included."""
    parts = [part for part in normalize(path).split("/") if part]
    return ["/", *("/" + "/".join(parts[: count + 1]) for count in range(len(parts)))]


def _fill(path: str, parameters: Mapping[str, Any]) -> str:
    """Put the call's parameters in a rule's path.

    Raises:
        PermissionRefused: the path needs one that the call lacks.
    """
    try:
        return re.sub(r"\{([\w-]+)\}", lambda found: str(parameters[found[1]]), path)
    except KeyError as missing:
        raise PermissionRefused(f"Permission check failed ({path}, parameter {missing} is missing)") from None
