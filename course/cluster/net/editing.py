"""Changing the firewall's files, with the checks and the words of Proxmox VE.

Each list in a file (rules, aliases, the entries of a set, options) has a digest of its own, which a client sends back
with a change; a list that somebody else changed meanwhile refuses. A new rule goes to the beginning.

Source: pve-firewall 5.0, `PVE/API2/Firewall`, for what is checked and in which words.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...error import ClusterError, ParameterError
from ...network import macros
from ...network.rules import matches
from ..config import files
from ..config.firewall import Firewall, Named, Rule
from ..declaration import Declarations
from ..formats import split_list
from ..state import State
from .levels import CLUSTER, Scope, guest_file, host_file, readable

Kind = Literal["cluster", "host", "vm", "ct", "group"]
FIELDS = ("iface", "proto", "source", "dest", "sport", "dport", "log", "icmp-type")
_ALIAS = re.compile(r"(?:(?:dc|guest)/)?[A-Za-z][A-Za-z0-9\-_]+")


class Refused(ClusterError):  # noqa: N818 - as PermissionRefused
    """A change that makes no sense; its words stay as they are under the cluster's lock."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file of the firewall.

    Attributes:
        kind: which level.
        path: below ``pve``.
        lock: the cluster-wide lock for it.
        group: of a security group, its name.
    """

    kind: Kind
    path: str
    lock: str
    group: str = ""

    @classmethod
    def cluster(cls) -> Place:
        """Return the datacenter's file."""
        return cls("cluster", CLUSTER, "firewall-cluster")

    @classmethod
    def host(cls, node: str) -> Place:
        """Return a node's file."""
        return cls("host", host_file(node), f"firewall-host-{node}")

    @classmethod
    def guest(cls, kind: Kind, vmid: int) -> Place:
        """Return a guest's file."""
        return cls(kind, guest_file(vmid), f"firewall-{vmid}")

    @classmethod
    def security_group(cls, name: str) -> Place:
        """Return the place of a security group, which is in the datacenter's file."""
        return cls("group", CLUSTER, "firewall-cluster", name.lower())

    def rules(self, firewall: Firewall) -> list[Rule]:
        """Return the rules at this place.

        Raises:
            ClusterError: there is no such security group.
        """
        if self.kind != "group":
            return firewall.rules
        if self.group not in firewall.groups:
            raise Refused(f"no such security group '{self.group}'")
        return firewall.groups[self.group]


def load(state: State, place: Place) -> Firewall:
    """Return what a file says."""
    return readable(files.read(state.path(place.path)))


@contextlib.contextmanager
def change(state: State, place: Place) -> Iterator[Firewall]:
    """Read a file, and write it back when the work is done; an error writes nothing.

    Raises:
        ClusterError: there is no quorum, or the lock was not to be had.
    """
    with state.lock(place.lock):
        firewall = load(state, place)
        yield firewall
        text = firewall.text()
        if text:
            state.write(place.path, text)
        else:
            state.delete(place.path)


def digest_of(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the digest of a list, over its entries' fields in order."""
    sha = hashlib.sha1(usedforsecurity=False)
    for entry in entries:
        for key, value in sorted(entry.items()):
            sha.update(f"{key}:{value}\n".encode(errors="surrogateescape"))
    return sha.hexdigest()


def with_digest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a list's entries, each with the digest of the list."""
    digest = digest_of(entries)
    return [{**entry, "digest": digest} for entry in entries]


def assert_unchanged(entries: Iterable[Mapping[str, Any]], seen: str | None) -> None:
    """Refuse a change to a list that is not what the client saw."""
    if seen and seen != digest_of(entries):
        raise Refused("detected modified configuration - file changed by other user? Try again.")


# Rules


def rule_fields(rule: Rule) -> dict[str, Any]:
    """Return a rule as the API answers it, without its position."""
    fields: dict[str, Any] = {"type": rule.type, "action": rule.action, "enable": int(rule.enable)}
    if rule.macro:
        fields["macro"] = rule.macro
    fields |= {name: rule.match[name] for name in FIELDS if rule.match.get(name)}
    if rule.comment:
        fields["comment"] = rule.comment
    return fields


def listed(rules: list[Rule]) -> list[dict[str, Any]]:
    """Return all rules as the API answers them."""
    entries = with_digest([rule_fields(rule) for rule in rules])
    return [{**entry, "pos": position} for position, entry in enumerate(entries)]


def position(rules: list[Rule], pos: int) -> int:
    """Return a rule's position.

    Raises:
        ClusterError: there is none there.
    """
    if pos >= len(rules):
        raise Refused(f"no rule at position {pos}")
    return pos


def set_fields(rule: Rule, values: Mapping[str, Any]) -> None:
    """Give a rule the fields of a call; an empty one takes the field away."""
    rule.type, rule.action = values.get("type", rule.type), values.get("action", rule.action)
    rule.macro = values.get("macro", rule.macro) or None
    rule.comment = values.get("comment", rule.comment) or None
    rule.enable = bool(values.get("enable", rule.enable))
    for name in FIELDS:
        if name in values:
            rule.match[name] = str(values[name])
        if not rule.match.get(name):
            rule.match.pop(name, None)


def delete_fields(rule: Rule, names: str) -> None:
    """Take fields away from a rule.

    Raises:
        ParameterError: a field that there is not, or that a rule cannot do without.
    """
    for name in split_list(names):
        if name in ("type", "action"):
            raise ParameterError({"delete": f"unable to delete required property '{name}'"})
        if name not in (*FIELDS, "macro", "comment", "enable", "pos", "digest"):
            raise ParameterError({"delete": f"no such property ('{name}')"})
        rule.match.pop(name, None)
        if name == "macro":
            rule.macro = None
        elif name == "comment":
            rule.comment = None
        elif name == "enable":
            rule.enable = False


def verify(rule: Rule, place: Place, firewall: Firewall, cluster: Firewall) -> None:
    """Refuse a rule that cannot be meant.

    Raises:
        ParameterError: with the field that is wrong.
    """
    scope = Scope(firewall, cluster)
    for field, words in _complaints(rule, place, scope):
        if words:
            raise ParameterError({field: words})
    if rule.macro:
        rule.macro = macros.NAMES[rule.macro.lower()]
    if rule.type == "group":
        return
    try:
        matches(
            proto=rule.match.get("proto", ""),
            sport=rule.match.get("sport", ""),
            dport=rule.match.get("dport", ""),
            icmp_type=rule.match.get("icmp-type", ""),
            macro=rule.macro or "",
        )
    except ValueError as error:
        raise ParameterError({_guilty(rule, str(error)): str(error)}) from None


def _complaints(rule: Rule, place: Place, scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield what could be wrong with single fields: the field, and the words or nothing."""
    if rule.type == "group":
        yield "type", "security groups not allowed" if place.kind == "group" else ""
        known = re.fullmatch(r"[A-Za-z][A-Za-z0-9\-_]+", rule.action)
        yield "action", "" if known else "invalid characters in security group name"
    else:
        known_action = rule.action in ("ACCEPT", "DROP", "REJECT")
        yield "action", "" if known_action else f"unknown action '{rule.action}'"
    yield from _card_complaints(rule, place)
    if rule.macro and rule.macro.lower() not in macros.NAMES:
        yield "macro", f"unknown macro '{rule.macro}'"
    for field in ("source", "dest"):
        value = rule.match.get(field)
        if value:
            yield field, _address_complaint(value, scope)


def _card_complaints(rule: Rule, place: Place) -> Iterator[tuple[str, str]]:
    iface = rule.match.get("iface")
    if iface and place.kind == "group":
        yield "type", "parameter -i not allowed for this rule type"
    if iface and place.kind in ("vm", "ct") and not re.fullmatch(r"net\d+", iface):
        yield "iface", r"value does not match the regex pattern 'net\d+'"


def _address_complaint(value: str, scope: Scope) -> str:
    """Return what is wrong with a source or destination; empty when nothing is."""
    try:
        scope.field(value)
    except ValueError as error:
        words = str(error)
        return words if words.startswith("no such") else f"invalid IP address: {words}"
    return ""


def _guilty(rule: Rule, words: str) -> str:
    """Return the field that an error is about."""
    named = re.match(r"parameter '(\S+)' already", words)
    if named is not None:
        return named[1]
    if "requires this property" in words or words.startswith("invalid protocol"):
        return "proto"
    if "icmp-type" in words and "icmp-type" in rule.match:
        return "icmp-type"
    return "sport" if rule.match.get("sport") and not rule.match.get("dport") else "dport"


# Options


def options(firewall: Firewall, declarations: Declarations) -> dict[str, Any]:
    """Return the options as the API answers them, with their types and a digest."""
    found = _typed(firewall, declarations)
    return {**found, "digest": digest_of([found])}


def _typed(firewall: Firewall, declarations: Declarations) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, value in firewall.options.items():
        declared = declarations.get(name)
        number = declared is not None and declared.type in ("boolean", "integer") and value.isdecimal()
        typed[name] = int(value) if number else value
    return typed


def set_options(firewall: Firewall, values: Mapping[str, Any], declarations: Declarations) -> None:
    """Change options as a call says.

    Raises:
        ClusterError: somebody changed them meanwhile.
        ParameterError: an option to delete that there is not.
    """
    assert_unchanged([_typed(firewall, declarations)], values.get("digest"))
    for name in split_list(values.get("delete", "")):
        if name not in declarations:
            raise ParameterError({"delete": f"no such option '{name}'"})
        firewall.options.pop(name, None)
    for name in declarations:
        if name in values:
            firewall.options[name] = str(values[name])


# Aliases and sets


def aliases(firewall: Firewall) -> list[dict[str, Any]]:
    """Return the aliases as the API answers them, without the list's digest."""
    return [{"name": name, **_named(alias)} for name, alias in sorted(firewall.aliases.items())]


def entries(members: list[Named]) -> list[dict[str, Any]]:
    """Return the entries of a set as the API answers them, without the list's digest."""
    return [{**_named(member), **({"nomatch": 1} if member.nomatch else {})} for member in members]


def _named(one: Named) -> dict[str, Any]:
    comment = {"comment": one.comment} if one.comment else {}
    version = {} if _ALIAS.fullmatch(one.address) else {"ipversion": ipaddress.ip_interface(one.address).version}
    return {"cidr": one.address, **comment, **(version if not one.nomatch else {})}


def set_of(firewall: Firewall, name: str) -> list[Named]:
    """Return a set's entries.

    Raises:
        ClusterError: there is no such set.
    """
    found = firewall.ipsets.get(name.lower())
    if found is None:
        raise Refused(f"no such IPSet '{name}'")
    return found


def clean(cidr: str, scope: Scope) -> str:
    """Return what an entry of a set is written as: networks without the bits of a host, aliases as they are.

    Raises:
        ClusterError: an alias that there is not.
        ParameterError: all addresses at once.
    """
    if _ALIAS.fullmatch(cidr) and ":" not in cidr:
        if scope.alias(cidr) is None:
            raise Refused(f"no such alias '{cidr}'")
        return cidr
    if re.search(r"/0+$", cidr):
        raise ParameterError({"cidr": "a zero prefix is not allowed in ipset entries"})
    network = ipaddress.ip_interface(cidr).network
    return str(network if network.prefixlen < network.max_prefixlen else network.network_address)
