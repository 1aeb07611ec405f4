"""Firewall files: ``firewall/cluster.fw``, ``firewall/169.fw``, ``nodes/michael/host.fw``.

::

    [OPTIONS]
    enable: 1
    policy_in: DROP

    [ALIASES]
    admin 10.0.0.5 # the desk

    [IPSET blocked]
    10.9.0.0/16 # noisy
    !10.9.0.7

    [RULES]
    IN SSH(ACCEPT) -source +admins -log nolog # in by SSH
    |OUT DROP -p tcp -dport 25

    [group web] # what web servers need
    IN ACCEPT -p tcp -dport 80,443

A rule begins with ``|`` when it is switched off. Positions, as the API counts them, are indices into the list.

Source: chapter "Firewall" of the Proxmox VE administration guide.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from ...error import ClusterError

_HEADER = re.compile(r"\[(?P<kind>\w+)(?:\s+(?P<name>[^\]\s]+))?\]\s*(?:#\s*(?P<comment>.*?))?\s*")
_OPTION = re.compile(r"(?P<key>[a-z0-9_-]+):\s*(?P<value>\S.*?)\s*", re.IGNORECASE)
_MACRO = re.compile(r"(?P<macro>[A-Za-z0-9-]+)\((?P<action>[A-Za-z0-9-]+)\)")
_DIRECTIONS = {"IN": "in", "OUT": "out", "FORWARD": "forward", "GROUP": "group"}
ARGUMENTS = {
    "-i": "iface",
    "-p": "proto",
    "-proto": "proto",
    "-source": "source",
    "-dest": "dest",
    "-sport": "sport",
    "-dport": "dport",
    "-log": "log",
    "-icmp-type": "icmp-type",
}
_WRITTEN = {name: flag for flag, name in ARGUMENTS.items() if flag != "-proto"}


@dataclass(slots=True)
class Rule:
    """One rule.

    Attributes:
        type: in, out, forward or group.
        action: ACCEPT, DROP, REJECT, or a security group's name.
        enable: whether it counts.
        macro: such as SSH.
        match: iface, proto, source, dest, sport, dport, log, icmp-type.
        comment: its remark.
    """

    type: str
    action: str
    enable: bool = True
    macro: str | None = None
    match: dict[str, str] = field(default_factory=dict)
    comment: str | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule's line.

        Raises:
            ClusterError: it is none.
        """
        line, hash_sign, comment = text.partition("#")
        try:
            words = shlex.split(line.strip().removeprefix("|"), comments=False)
        except ValueError:
            words = []
        if len(words) < 2 or words[0].upper() not in _DIRECTIONS or len(words) % 2:
            raise ClusterError(f"unable to parse rule: {text.strip()}")
        macro = _MACRO.fullmatch(words[1])
        rule = cls(
            _DIRECTIONS[words[0].upper()],
            macro["action"] if macro else words[1],
            enable=not line.strip().startswith("|"),
            macro=macro["macro"] if macro else None,
            comment=comment.strip() if hash_sign else None,
        )
        for flag, value in zip(words[2::2], words[3::2], strict=True):
            if flag not in ARGUMENTS:
                raise ClusterError(f"unable to parse rule: {text.strip()}")
            rule.match[ARGUMENTS[flag]] = value
        return rule

    def __str__(self) -> str:
        words = [self.type.upper(), f"{self.macro}({self.action})" if self.macro else self.action]
        for value in (*words, *self.match.values()):
            if not re.fullmatch(r"[^\s#'\"\\]+", value):
                raise ClusterError(f"value {value!r} does not fit in a rule")
        for name in ARGUMENTS.values():
            if self.match.get(name) and _WRITTEN[name] not in words:
                words += [_WRITTEN[name], self.match[name]]
        comment = f" # {' '.join(self.comment.split())}" if self.comment else ""
        return ("" if self.enable else "|") + " ".join(words) + comment


@dataclass(slots=True)
class Named:
    """An address under a name, or one entry of a set.

    Attributes:
        address: an address, a network, or another alias.
        comment: its remark.
        nomatch: of a set's entry, whether it is left out of the set.
    """

    address: str
    comment: str | None = None
    nomatch: bool = False

    def _tail(self) -> str:
        return f" # {' '.join(self.comment.split())}" if self.comment else ""


@dataclass(slots=True)
class Firewall:
    """A whole file.

    Attributes:
        options: as text, such as ``{"enable": "1"}``.
        aliases: by name.
        ipsets: entries by the set's name.
        rules: in order.
        groups: rules of security groups, by name.
        comments: of sets and groups, by ``"ipset name"`` or ``"group name"``.
    """

    options: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, Named] = field(default_factory=dict)
    ipsets: dict[str, list[Named]] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    groups: dict[str, list[Rule]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Firewall:
        """Read a file.

        Raises:
            ClusterError: a line belongs to no section or is not what its section holds.
        """
        firewall, kind, name = cls(), "", ""
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if found := _HEADER.fullmatch(line):
                kind, name = found["kind"].lower(), (found["name"] or "").lower()
                firewall._begin(kind, name, found["comment"])
                continue
            try:
                firewall._entry(kind, name, line)
            except ClusterError as error:
                raise ClusterError(f"line {number}: {error.message}") from None
        return firewall

    def _begin(self, kind: str, name: str, comment: str | None) -> None:
        """Begin a section."""
        if kind == "ipset":
            self.ipsets.setdefault(name, [])
        elif kind == "group":
            self.groups.setdefault(name, [])
        if comment and name:
            self.comments[f"{kind} {name}"] = comment

    def _entry(self, kind: str, name: str, line: str) -> None:
        """Take a line of a section."""
        if kind == "options":
            found = _OPTION.fullmatch(line)
            if found is None:
                raise ClusterError(f"unable to parse option: {line.strip()}")
            self.options[found["key"]] = found["value"]
        elif kind == "rules":
            self.rules.append(Rule.parse(line))
        elif kind == "group":
            self.groups[name].append(Rule.parse(line))
        elif kind == "aliases":
            words, _, comment = line.partition("#")
            alias, _, address = words.strip().partition(" ")
            if not address.strip():
                raise ClusterError(f"unable to parse alias: {line.strip()}")
            self.aliases[alias.lower()] = Named(address.strip(), comment.strip() or None)
        elif kind == "ipset":
            address, _, comment = line.partition("#")
            bare = address.strip()
            self.ipsets[name].append(Named(bare.lstrip("! "), comment.strip() or None, bare.startswith("!")))
        else:
            raise ClusterError(f"skip line outside of any section: {line.strip()}")

    def text(self) -> str:
        """Write the file."""
        parts = []
        if self.options:
            parts.append(_part("OPTIONS", [f"{key}: {value}" for key, value in self.options.items()]))
        if self.aliases:
            entries = sorted(self.aliases.items())
            parts.append(_part("ALIASES", [f"{name} {alias.address}{alias._tail()}" for name, alias in entries]))
        for name, addresses in sorted(self.ipsets.items()):
            lines = [f"{'!' * entry.nomatch}{entry.address}{entry._tail()}" for entry in addresses]
            parts.append(_part(f"IPSET {name}", lines, self.comments.get(f"ipset {name}")))
        if self.rules:
            parts.append(_part("RULES", [str(rule) for rule in self.rules]))
        for name, rules in sorted(self.groups.items()):
            parts.append(_part(f"group {name}", [str(rule) for rule in rules], self.comments.get(f"group {name}")))
        return "\n".join(parts)


def _part(header: str, lines: list[str], comment: str | None = None) -> str:
    """Write one section."""
    first = f"[{header}]" + (f" # {' '.join(comment.split())}" if comment else "")
    return "".join(f"{line}\n" for line in (first, "", *lines))
