"""``user.cfg``: users, tokens, groups, pools, roles and who may do what where.

::

    user:alice@pve:1:0:Alice:::her comment::       id:enabled:expires:first:last:email:comment:keys
    token:alice@pve!ci:0:1:for builds:             id:expires:privilege separation:comment
    group:admins:alice@pve,root@pam:comment:
    pool:students:comment:169,200:local local-lvm:
    role:starter:VM.Audit,VM.PowerMgmt:
    acl:1:/vms/169:alice@pve,@admins:PVEVMUser:    propagates:path:who:roles

Comments are escaped as in guests' files. A line that cannot be meant is left out and named in `warnings`; so is a right
of somebody who does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ...error import ClusterError
from .lines import escape, unescape

USER = re.compile(r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+")
TOKEN = re.compile(rf"{USER.pattern}![A-Za-z][A-Za-z0-9.\-_]+")
NAME = re.compile(r"[A-Za-z0-9.\-_]+")
POOL = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern}){{0,2}}")
ROOT = "root@pam"


@dataclass(slots=True)
class Token:
    """An API token, without its secret.

    Attributes:
        expire: seconds since 1970, 0 for never.
        privsep: whether it has rights of its own, which never exceed its user's.
        comment: its remark.
    """

    expire: int = 0
    privsep: bool = True
    comment: str = ""


@dataclass(slots=True)
class User:
    """A user.

    Attributes:
        enable: whether the user may do anything.
        expire: seconds since 1970, 0 for never.
        firstname, lastname, email, comment, keys: as given.
        tokens: by their names, without the user's.
    """

    enable: bool = True
    expire: int = 0
    firstname: str = ""
    lastname: str = ""
    email: str = ""
    comment: str = ""
    keys: str = ""
    tokens: dict[str, Token] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """A group of users."""

    users: set[str] = field(default_factory=set)
    comment: str = ""


@dataclass(slots=True)
class Pool:
    """A pool of guests and storages."""

    comment: str = ""
    vms: set[int] = field(default_factory=set)
    storages: set[str] = field(default_factory=set)


Roles = dict[str, bool]
"""Roles given at a path, each with whether it propagates."""


@dataclass(slots=True)
class UserConfig:
    """The whole file.

    Attributes:
        users: by id, tokens inside.
        groups, pools: by name.
        roles: privileges of roles that are not built in.
        acl: by path, then by whom: ``user@realm``, ``@group`` or ``user@realm!token``.
        warnings: what was left out when reading.
    """

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    roles: dict[str, set[str]] = field(default_factory=dict)
    acl: dict[str, dict[str, Roles]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> UserConfig:
        """Read a file; `root@pam` is there whatever it says."""
        config = cls()
        takers: dict[str, Callable[[list[str]], None]] = {
            "user": config._user,
            "token": config._token,
            "group": config._group,
            "pool": config._pool,
            "role": config._role,
            "acl": config._acl,
        }
        lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
        for kind, taker in takers.items():  # whom a line names may stand below it
            for line in lines:
                word, _, rest = line.partition(":")
                if word == kind:
                    config._take(taker, rest, line)
        config.warnings += [f"ignoring unknown line: {line}" for line in lines if line.partition(":")[0] not in takers]
        config.users.setdefault(ROOT, User())
        return config

    def _take(self, taker: Callable[[list[str]], None], rest: str, line: str) -> None:
        """Take one line, or say why not."""
        try:
            taker([*(part.strip() for part in rest.split(":")), *[""] * 8])
        except (ClusterError, ValueError) as error:
            self.warnings.append(f"ignoring '{line}': {error}")

    def _user(self, parts: list[str]) -> None:
        name, enable, expire, first, last, email, comment, keys = parts[:8]
        _must(USER, name, "user")
        self.users[name] = User(
            enable=enable not in ("", "0"),
            expire=int(expire or 0),
            firstname=unescape(first),
            lastname=unescape(last),
            email=unescape(email),
            comment=unescape(comment),
            keys=keys,
        )

    def _token(self, parts: list[str]) -> None:
        name, expire, privsep, comment = parts[:4]
        _must(TOKEN, name, "token")
        user, _, token = name.partition("!")
        if user not in self.users:
            raise ClusterError(f"no such user ('{user}')")
        self.users[user].tokens[token] = Token(int(expire or 0), privsep not in ("", "0"), unescape(comment))

    def _group(self, parts: list[str]) -> None:
        name, users, comment = parts[:3]
        _must(NAME, name, "group")
        self.groups[name] = Group({user for user in _words(users) if user in self.users}, unescape(comment))

    def _pool(self, parts: list[str]) -> None:
        name, comment, vms, storages = parts[:4]
        _must(POOL, name, "pool")
        self.pools[name] = Pool(unescape(comment), {int(vmid) for vmid in _words(vms)}, set(_words(storages)))

    def _role(self, parts: list[str]) -> None:
        name, privileges = parts[:2]
        _must(NAME, name, "role")
        self.roles[name] = set(_words(privileges))

    def _acl(self, parts: list[str]) -> None:
        propagate, path, members, roles = parts[:4]
        for member in _words(members):
            if not self.exists(member):
                self.warnings.append(f"ignoring acl for '{member}' on '{path}': no such user, group or token")
                continue
            entry = self.acl.setdefault(normalize(path), {}).setdefault(member, {})
            entry.update(dict.fromkeys(_words(roles), propagate == "1"))

    def exists(self, member: str) -> bool:
        """Say whether a user, an ``@group`` or a token is there."""
        if member.startswith("@"):
            return member[1:] in self.groups
        user, _, token = member.partition("!")
        return user in self.users and (not token or token in self.users[user].tokens)

    def groups_of(self, user: str) -> list[str]:
        """Return the names of a user's groups, in order."""
        return sorted(name for name, group in self.groups.items() if user in group.users)

    def remove(self, member: str) -> None:
        """Remove a user with all tokens, an ``@group``, or a token, and every right it has."""
        user, _, token = member.partition("!")
        if member.startswith("@"):
            self.groups.pop(member[1:], None)
        elif token:
            self.users[user].tokens.pop(token, None)
        else:
            self.users.pop(user, None)
            for group in self.groups.values():
                group.users.discard(user)
        for path in list(self.acl):
            for who in [who for who in self.acl[path] if who == member or who.startswith(f"{member}!")]:
                del self.acl[path][who]
            if not self.acl[path]:
                del self.acl[path]

    def grant(self, path: str, members: Iterable[str], roles: Iterable[str], *, propagate: bool = True) -> None:
        """Give roles at a path.

        Raises:
            ClusterError: a member does not exist.
        """
        names, place = list(roles), normalize(path)
        for member in members:
            self.assert_exists(member)
            self.acl.setdefault(place, {}).setdefault(member, {}).update(dict.fromkeys(names, propagate))

    def revoke(self, path: str, members: Iterable[str], roles: Iterable[str]) -> None:
        """Take roles at a path away; what was not given is no error."""
        names, place = list(roles), normalize(path)
        for member in members:
            given = self.acl.get(place, {}).get(member, {})
            for role in names:
                given.pop(role, None)
            if not given:
                self.acl.get(place, {}).pop(member, None)
        if not self.acl.get(place, True):
            del self.acl[place]

    def assert_exists(self, member: str) -> None:
        """Refuse somebody who does not exist.

        Raises:
            ClusterError: no such user, group or token.
        """
        if not self.exists(member):
            kind = "group" if member.startswith("@") else "API token" if "!" in member else "user"
            raise ClusterError(f"no such {kind} ('{member.removeprefix('@')}')")

    def text(self) -> str:
        """Write the file."""
        parts = [self._user_lines()]
        parts.append(
            "".join(
                f"group:{name}:{','.join(sorted(group.users))}:{escape(group.comment)}:\n"
                for name, group in sorted(self.groups.items())
            )
        )
        parts.append(
            "".join(
                f"pool:{name}:{escape(pool.comment)}:{','.join(map(str, sorted(pool.vms)))}:"
                f"{','.join(sorted(pool.storages))}:\n"
                for name, pool in sorted(self.pools.items())
            )
        )
        parts.append(
            "".join(f"role:{name}:{','.join(sorted(privileges))}:\n" for name, privileges in sorted(self.roles.items()))
        )
        parts.append(self._acl_lines())
        return "\n".join(parts) + "\n"

    def _user_lines(self) -> str:
        """Write users, each with the tokens below.

        Raises:
            ClusterError: a user's keys, which alone are not escaped, would end their field.
        """
        lines = []
        for name, user in sorted(self.users.items()):
            if re.search(r"[:\s]", user.keys):
                raise ClusterError(f"keys of user '{name}' contain a colon or a blank")
            words = ":".join(escape(word) for word in (user.firstname, user.lastname, user.email, user.comment))
            lines.append(f"user:{name}:{int(user.enable)}:{user.expire}:{words}:{user.keys}:\n")
            for token, what in sorted(user.tokens.items()):
                lines.append(f"token:{name}!{token}:{what.expire}:{int(what.privsep)}:{escape(what.comment)}:\n")
        return "".join(lines)

    def _acl_lines(self) -> str:
        """Write rights; who has the same roles at the same path shares a line."""
        lines = []
        for path, members in sorted(self.acl.items()):
            for propagate in (False, True):
                together: dict[tuple[str, ...], list[str]] = {}
                for member, roles in sorted(members.items()):
                    names = tuple(sorted(role for role, spreads in roles.items() if spreads is propagate))
                    if names:
                        together.setdefault(names, []).append(member)
                for names, who in sorted(together.items()):
                    lines.append(f"acl:{int(propagate)}:{path}:{','.join(who)}:{','.join(names)}:\n")
        return "".join(lines)


def normalize(path: str) -> str:
    """Return a path of rights without needless slashes.

    Raises:
        ClusterError: it does not begin at the root, or a part of it is no name.
    """
    parts = [part for part in path.split("/") if part]
    if (path and not path.startswith("/")) or not all(re.fullmatch(r"[A-Za-z0-9._:@\-]+", part) for part in parts):
        raise ClusterError(f"invalid ACL path '{path}'")
    return "/" + "/".join(parts)


def _words(text: str) -> list[str]:
    """Read a list."""
    return [word for word in re.split(r"[,;\s]+", text) if word]


def _must(pattern: re.Pattern[str], name: str, kind: str) -> None:
    """Refuse a name of the wrong form."""
    if not pattern.fullmatch(name):
        raise ClusterError(f"value '{name}' does not look like a valid {kind} name")
