"""Realms of one's own: kept as they were given; the lab has no directory server to ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...error import ClusterError, ParameterError
from .. import realms
from ..config import sections
from ..config.files import assert_unchanged, digest
from ..config.sections import TypedSection
from ..declaration import Parameter
from ..formats import split_list
from ..state import State
from .common import Call, choice, endpoint, flag, number, perm, text

LOCK = "file-domains_cfg"
BUILT_IN = ("pam", "pve")
SECRET = ("password", "client-key")
_ALLOCATE = perm("/access/realm", "Realm.Allocate")
_REALM = {"realm": Parameter(format="pve-realm", max_length=32)}
_CLASSES = "groupOfNames, group, univentionGroup, ipausergroup"
_CHANGE: dict[str, Parameter] = {
    "acr-values": text(),
    "autocreate": flag(0),
    "base_dn": text(longest=256),
    "bind_dn": text(longest=256),
    "capath": text(default="/etc/ssl/certs"),
    "case-sensitive": flag(1),
    "cert": text(),
    "certkey": text(),
    "check-connection": flag(0),
    "client-id": text(longest=256),
    "client-key": text(longest=256),
    "comment": text(longest=4096),
    "default": flag(),
    "domain": text(pattern=r"\S+", longest=256),
    "filter": text(longest=2048),
    "group_classes": text("ldap-simple-attr-list", default=_CLASSES),
    "group_dn": text(longest=256),
    "group_filter": text(longest=2048),
    "group_name_attr": text("ldap-simple-attr", longest=256),
    "issuer-url": text(longest=256),
    "mode": choice("ldap ldaps ldap+starttls", "ldap"),
    "password": text(),
    "port": number(1, 65535),
    "prompt": text(pattern=r"(?:none|login|consent|select_account|\S+)"),
    "scopes": text(default="email profile"),
    "secure": flag(),
    "server1": text("address", longest=256),
    "server2": text("address", longest=256),
    "sslversion": choice("tlsv1 tlsv1_1 tlsv1_2 tlsv1_3"),
    "sync-defaults-options": text("realm-sync-options"),
    "sync_attributes": text(pattern=r"\w+=[^,]+(,\s*\w+=[^,]+)*"),
    "tfa": text("pve-tfa-config", longest=128),
    "user_attr": text(pattern=r"\S{2,}", longest=256),
    "user_classes": text("ldap-simple-attr-list", default="inetorgperson, posixaccount, person, user"),
    "verify": flag(0),
}
NEEDED = {
    "ad": ("server1", "domain"),
    "ldap": ("server1", "base_dn", "user_attr"),
    "openid": ("issuer-url", "client-id"),
}
"""What a realm of a kind cannot do without."""


@contextlib.contextmanager
def _editing(state: State, failed: str) -> Iterator[dict[str, TypedSection]]:
    """Lock the file, hand out its realms, and write them back."""
    try:
        with state.lock(LOCK):
            known = sections.parse(state.read(realms.DOMAINS))
            yield known
            state.write(realms.DOMAINS, sections.render(known.values(), flags=()))
    except ParameterError:
        raise
    except ClusterError as error:
        raise ClusterError(f"{failed}: {error.message}") from error


@endpoint(
    "POST",
    "/access/domains",
    parameters={
        **_REALM,
        "type": Parameter(enum=("ad", "ldap", "openid", "pam", "pve")),
        "username-claim": text(),
        **_CHANGE,
    },
    permissions=_ALLOCATE,
)
def create(call: Call) -> Any:
    """Make a realm."""
    values = dict(call.values)
    name, kind = values.pop("realm"), values.pop("type")
    with _editing(call.node.state, "add auth server failed") as known:
        if name in known or name in BUILT_IN:
            raise ClusterError(f"domain '{name}' already exists")
        if kind in BUILT_IN:
            raise ClusterError(f"unable to create builtin type '{kind}'")
        missing = {word: "property is missing and it is not optional" for word in NEEDED[kind] if word not in values}
        if missing:
            raise ParameterError(missing)
        known[name] = TypedSection(kind, name)
        _set(known, name, values)


def _set(known: dict[str, TypedSection], name: str, values: dict[str, Any]) -> None:
    """Set what was given; only one realm is the default, and secrets are not kept in this file."""
    kept = {key: str(value) for key, value in values.items() if key not in (*SECRET, "check-connection")}
    known[name].values |= kept
    if kept.get("default") == "1":
        for other in known.values():
            if other.name != name:
                other.values.pop("default", None)


@endpoint(
    "PUT",
    "/access/domains/{realm}",
    parameters={
        **_REALM,
        **_CHANGE,
        "delete": text("pve-configid-list", longest=4096),
        "digest": text(longest=64),
    },
    permissions=_ALLOCATE,
)
def update(call: Call) -> Any:
    """Change a realm."""
    values = dict(call.values)
    name, delete = values.pop("realm"), split_list(values.pop("delete", ""))
    with _editing(call.node.state, "update auth server failed") as known:
        assert_unchanged(digest(call.node.state.read(realms.DOMAINS)), values.pop("digest", None))
        if name not in known:
            raise ClusterError(f"domain '{name}' does not exist")
        for key in delete:
            known[name].values.pop(key, None)
        _set(known, name, values)


@endpoint("DELETE", "/access/domains/{realm}", parameters=_REALM, permissions=_ALLOCATE)
def delete(call: Call) -> Any:
    """Remove a realm; its users stay, and cannot log in."""
    name = call.values["realm"]
    with _editing(call.node.state, "delete auth server failed") as known:
        if name not in known:
            raise ClusterError(f"authentication domain '{name}' does not exist")
        if name in BUILT_IN:
            raise ClusterError(f"unable to delete builtin domain '{name}'")
        del known[name]
