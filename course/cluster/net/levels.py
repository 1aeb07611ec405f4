"""The firewall's levels: files of the datacenter, of a node and of a guest become guards.

::

    firewall/cluster.fw        enable: 1 switches all on; groups, sets, aliases for all; rules and policies of nodes
    nodes/michael/host.fw      rules of the node before the datacenter's; enable: 0 switches the node's off
    firewall/169.fw            enable: 1 switches the guest's on; its rules, policies, sets and aliases
    net0: ...,firewall=1       the card

A guest's frames meet its own rules only: those of the datacenter are for the nodes. A rule that cannot be meant is left
out, as is one that names a set or an alias that is not there. Files are looked at when a frame comes, by their stamp,
and read only when it changed: a change counts for the next frame.

Source: what pve-firewall 5.0 makes of these files, read in its public sources and regression tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...error import ClusterError
from ...network.address import ip_text, link_local, mac_bytes
from ...network.conntrack import TCP_ESTABLISHED_S, Tracker
from ...network.guard import NOLOG, Chain, GuestGuard, InputFilter, Log
from ...network.rules import Action, Addresses, Match, Rule, matches
from ..config import files
from ..config.firewall import Firewall, Named
from ..config.firewall import Rule as Line

CLUSTER = "firewall/cluster.fw"
LOCAL_NETWORK = "10.0.0.0/24"
_MANAGEMENT = "22,3128,8006,5900:5999,60000:60050"
_TO_OTHERS = "22,3128,8006,5900:5999"
_COROSYNC = "5404:5405"
_SETTLED_NS = 100_000_000  # a time stamp younger than this may stand for a second change as well
_ACTIONS: dict[str, Action] = {"ACCEPT": "ACCEPT", "DROP": "DROP", "REJECT": "REJECT"}


def guest_file(vmid: int) -> str:
    """Return where a guest's rules are, below ``pve``."""
    return f"firewall/{vmid}.fw"


def host_file(node: str) -> str:
    """Return where a node's rules are, below ``pve``."""
    return f"nodes/{node}/host.fw"


@dataclass(slots=True)
class Scope:
    """Where names of sets and aliases are looked up: the file's own first, then the datacenter's.

    Attributes:
        own: the guest's or the node's file.
        cluster: the datacenter's.
    """

    own: Firewall
    cluster: Firewall

    def alias(self, name: str) -> str | None:
        """Return the address of an alias, written ``name``, ``dc/name`` or ``guest/name``."""
        scope, slash, bare = name.rpartition("/")
        for where, firewall in (("guest", self.own), ("dc", self.cluster)):
            if (not slash or scope == where) and bare.lower() in firewall.aliases:
                return firewall.aliases[bare.lower()].address
        return LOCAL_NETWORK if bare.lower() == "local_network" else None

    def entries(self, name: str) -> list[Named] | None:
        """Return the entries of a set, written like an alias."""
        scope, slash, bare = name.rpartition("/")
        for where, firewall in (("guest", self.own), ("dc", self.cluster)):
            if (not slash or scope == where) and bare.lower() in firewall.ipsets:
                return firewall.ipsets[bare.lower()]
        return None

    def addresses(self, entries: Iterable[Named], more: Iterable[str] = ()) -> Addresses:
        """Return a set's addresses; entries that nobody understands are left out."""
        inside, without = list(more), list[str]()
        for entry in entries:
            address = self._address(entry.address)
            if address is not None:
                (without if entry.nomatch else inside).append(address)
        return Addresses(inside, without)

    def _address(self, text: str) -> str | None:
        try:
            Addresses([text])
        except ValueError:
            return self.alias(text)
        return text

    def field(self, text: str) -> Addresses:
        """Return what the source or destination of a rule means: a set, an alias, a span or a list of networks.

        Raises:
            ValueError: it means nothing.
        """
        if text.startswith("+"):
            entries = self.entries(text[1:])
            if entries is None:
                raise ValueError(f"no such ipset '{text[1:]}'")
            return self.addresses(entries)
        if text[0].isalpha() and ":" not in text:
            address = self.alias(text)
            if address is None:
                raise ValueError(f"no such alias '{text}'")
            return Addresses([address])
        return Addresses(text.split(","))


def compiled(line: Line, scope: Scope) -> Rule:
    """Return a rule of a file as one that can be asked about packets.

    Raises:
        ValueError: it cannot be meant.
    """
    match = line.match
    if line.action not in _ACTIONS:
        raise ValueError(f"unknown action '{line.action}'")
    found = matches(
        proto=match.get("proto", ""),
        source=scope.field(match["source"]) if match.get("source") else None,
        dest=scope.field(match["dest"]) if match.get("dest") else None,
        sport=match.get("sport", ""),
        dport=match.get("dport", ""),
        icmp_type=match.get("icmp-type", ""),
        macro=line.macro or "",
    )
    return Rule(_ACTIONS[line.action], found, str(line).partition(" #")[0], match.get("log", ""))


def chain_rules(
    lines: Iterable[Line], direction: str, card: str, scope: Scope, warn: Callable[[str], None]
) -> list[Rule]:
    """Return the rules of one direction for one card, those of security groups in their group's place."""
    found = []
    for line in lines:
        if not line.enable or line.match.get("iface", card) != card:
            continue
        if line.type == "group":
            group = scope.cluster.groups.get(line.action.lower())
            if group is None:
                warn(f"no such security group '{line.action}'")
            else:
                found += chain_rules(group, direction, card, scope, warn)
        elif line.type == direction:
            try:
                found.append(compiled(line, scope))
            except ValueError as error:
                warn(f"errors in rule parameters: {line}: {error}")
    return found


class Levels:
    """The firewall's files, read again when they changed.

    Args:
        folder: ``pve``.
        node: whose ``host.fw`` counts.
        log: gets the VMID, then what `course.network.guard.Log` gets.
        warn: gets words about rules that were left out.
        others: addresses of the cluster's nodes by name.
    """

    def __init__(
        self,
        folder: Path,
        node: str,
        log: Callable[[int], Log],
        warn: Callable[[str], None],
        others: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._node = node
        self._log = log
        self._warn = warn
        self._others = dict(others or {})
        self._read: dict[str, tuple[tuple[int, ...], bool, Firewall]] = {}

    def changed(self, vmids: Iterable[int]) -> bool:
        """Say whether a file that counts for these guests or for the node changed since it was read."""
        names = [CLUSTER, host_file(self._node), *map(guest_file, vmids)]
        return any(self._kept(name, self._stamp(name)) is None for name in names)

    def _stamp(self, name: str) -> tuple[int, ...]:
        try:
            found = (self._folder / name).stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _kept(self, name: str, stamp: tuple[int, ...]) -> Firewall | None:
        """Return what was read of a file before, unless it changed, or may have changed within the tick of a clock."""
        kept = self._read.get(name)
        return kept[2] if kept is not None and kept[0] == stamp and kept[1] else None

    def file(self, name: str) -> Firewall:
        """Return what a file says now; a line that cannot be read is left out."""
        stamp = self._stamp(name)
        kept = self._kept(name, stamp)
        if kept is not None:
            return kept
        settled = not stamp or time.time_ns() - stamp[0] > _SETTLED_NS
        found = readable(files.read(self._folder / name), lambda words: self._warn(f"{name}: {words}"))
        self._read[name] = (stamp, settled, found)
        return found

    @property
    def enabled(self) -> bool:
        """Whether the datacenter has its firewall on."""
        return _flag(self.file(CLUSTER).options, "enable", False)

    @property
    def host_enabled(self) -> bool:
        """Whether the node's own rules count; only where the datacenter's firewall is on."""
        return self.enabled and _flag(self.file(host_file(self._node)).options, "enable", True)

    @property
    def established_s(self) -> int:
        """How long an established connection of TCP may be silent, as the node's option says it, in seconds."""
        value = self.file(host_file(self._node)).options.get("nf_conntrack_tcp_timeout_established", "")
        return int(value) if value.isdecimal() else TCP_ESTABLISHED_S

    def log_rate(self) -> str:
        """Return how much is logged, as the datacenter's option says it."""
        return self.file(CLUSTER).options.get("log_ratelimit", "")

    def guest(  # noqa: PLR0917
        self, vmid: int, index: int, mac: str, chain: str, tracker: Tracker, own: Iterable[str] = ()
    ) -> GuestGuard | None:
        """Return the guard for a guest's card; None when its firewall is off.

        Args:
            vmid: the guest.
            index: of the card.
            mac: its address.
            chain: the port's name.
            tracker: the connections of the port.
            own: addresses that a container was configured with.
        """
        firewall = self.file(guest_file(vmid))
        options = firewall.options
        if not self.enabled or not _flag(options, "enable", False):
            return None
        cluster = self.file(CLUSTER)
        host = self.file(host_file(self._node)).options
        scope = Scope(firewall, cluster)
        ipfilter, arpfilter = self._ipfilter(scope, index, mac, own)

        def rules(direction: str) -> list[Rule]:
            return chain_rules(firewall.rules, direction, f"net{index}", scope, lambda w: self._warn(f"VM {vmid}: {w}"))

        return GuestGuard(
            mac=mac,
            rules_in=Chain(
                f"{chain}-IN", rules("in"), _policy(options, "policy_in", "DROP"), options.get("log_level_in", NOLOG)
            ),
            rules_out=Chain(
                f"{chain}-OUT",
                rules("out"),
                _policy(options, "policy_out", "ACCEPT"),
                options.get("log_level_out", NOLOG),
            ),
            tracker=tracker,
            dhcp=_flag(options, "dhcp", True),
            ndp=_flag(options, "ndp", True),
            radv=_flag(options, "radv", False),
            macfilter=_flag(options, "macfilter", True),
            frames_too=_flag(cluster.options, "ebtables", True),
            ipfilter=ipfilter,
            arpfilter=arpfilter,
            before=self._before(),
            allow_invalid=_flag(host, "nf_conntrack_allow_invalid", False),
            log=self._log(vmid),
        )

    def _before(self) -> InputFilter:
        cluster = self.file(CLUSTER)
        host = self.file(host_file(self._node)).options
        black = cluster.ipsets.get("blacklist")
        return InputFilter(
            Scope(cluster, cluster).addresses(black) if black is not None else None,
            _flag(host, "nosmurfs", True),
            _flag(host, "tcpflags", False),
            host.get("log_level_in", NOLOG),
        )

    def _ipfilter(
        self, scope: Scope, index: int, mac: str, own: Iterable[str]
    ) -> tuple[Addresses | None, Addresses | None]:
        """Return the addresses that a card may use, and those that it may claim in ARP; None for any."""
        entries = scope.own.ipsets.get(f"ipfilter-net{index}")
        wanted = _flag(scope.own.options, "ipfilter", False)
        if entries is None and not wanted:
            return None, None
        configured = list(own) if wanted else []
        own_local = ip_text(link_local(mac_bytes(mac)))
        others_local = Named("fe80::/10", nomatch=True)
        allowed = scope.addresses([*(entries or []), others_local], [*configured, own_local])
        fours = scope.addresses(entries or [], [address for address in configured if ":" not in address])
        return allowed, fours if 4 in fours.versions else None

    def host_chain(self, direction: str, bridge: str = "vmbr0") -> Chain:
        """Return the rules for what comes to the node itself (``in``) or from it (``out``) over a bridge."""
        firewall, cluster = self.file(host_file(self._node)), self.file(CLUSTER)
        scope = Scope(firewall, cluster)
        rules: list[Rule] = []
        for lines, which in ((firewall.rules, scope), (cluster.rules, scope)):
            rules += chain_rules(lines, direction, bridge, which, self._warn)
        rules += self._standard(direction, cluster)
        default = "DROP" if direction == "in" else "ACCEPT"
        policy = _policy(cluster.options, f"policy_{direction}", default)
        log = firewall.options.get(f"log_level_{direction}", NOLOG)
        return Chain(f"PVEFW-HOST-{direction.upper()}", rules, policy, log)

    def _standard(self, direction: str, cluster: Firewall) -> list[Rule]:
        """Return what the nodes need of each other and of their administrators."""
        scope = Scope(cluster, cluster)
        local = scope.alias("local_network") or LOCAL_NETWORK
        trusted = scope.addresses(cluster.ipsets.get("management", []), [local])
        me = Addresses([self._others[self._node]]) if self._node in self._others else Addresses()
        peers = Addresses([address for name, address in self._others.items() if name != self._node])
        if direction == "in":
            found = matches(proto="tcp", source=trusted, dport=_MANAGEMENT)
            corosync = matches(proto="udp", source=peers, dest=me, dport=_COROSYNC)
        else:
            found = matches(proto="tcp", dest=Addresses([local]), dport=_TO_OTHERS)
            corosync = matches(proto="udp", source=me, dest=peers, dport=_COROSYNC)
        igmp = (Match(protocol=2),)
        return [Rule("ACCEPT", each, "management") for each in (igmp, found, corosync)]

    def host_filter(self) -> InputFilter:
        """Return what the node drops before any rule is asked."""
        return self._before()


def _flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """Return a switch."""
    value = options.get(name)
    return default if value is None else value not in ("0", "off", "no", "false")


def _policy(options: Mapping[str, str], name: str, default: str) -> Action:
    """Return a policy; one that does not exist is the default."""
    return _ACTIONS.get(options.get(name, "").upper(), _ACTIONS[default])


def readable(text: str, warn: Callable[[str], None] = lambda words: None) -> Firewall:
    """Read a file without the lines that cannot be read."""
    lines = text.split("\n")
    while True:
        try:
            return Firewall.parse("\n".join(lines))
        except ClusterError as error:
            warn(error.message)
            number = error.message.removeprefix("line ").partition(":")[0]
            if not number.isdecimal():
                return Firewall()
            lines[int(number) - 1] = ""
