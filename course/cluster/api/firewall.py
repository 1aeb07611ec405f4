"""The firewall: rules, options, aliases, sets and groups of the datacenter, the nodes and the guests.

The same calls exist at several levels; each level says here where its file is, whose rights count and what its options
are, and the calls are declared for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...network import macros
from ..config.firewall import Firewall, Rule
from ..declaration import Declarations, Parameter
from ..net import editing
from ..net.editing import Place
from .common import ALL, LIMIT, NODE, START, VMID, Call, choice, endpoint, flag, index, number, perm, text

_NAME = r"[A-Za-z][A-Za-z0-9\-\_]+"
DIGEST_64 = text(longest=64)
"""The digest of a list, where it may be longer than elsewhere."""

_LEVEL = choice("emerg alert crit err warning notice info debug nolog")
_POLICY = choice("ACCEPT REJECT DROP")


def name_of(longest: int, *, optional: bool = False) -> Parameter:
    """Declare the name of a set, an alias or a group."""
    return Parameter(min_length=2, max_length=longest, pattern=_NAME, optional=optional)


def _rule(*, optional: bool) -> Declarations:
    """Declare a rule's fields; a new rule has to have a type and an action."""
    return {
        "pos": number(0),
        "type": choice("in out group", optional=optional),
        "action": name_of(20, optional=optional),
        "macro": text(longest=128),
        "iface": Parameter(format="pve-iface", min_length=2, max_length=20, optional=True),
        "source": text("pve-fw-addr-spec", longest=512),
        "dest": text("pve-fw-addr-spec", longest=512),
        "proto": text("pve-fw-protocol-spec"),
        "dport": text("pve-fw-dport-spec"),
        "sport": text("pve-fw-sport-spec"),
        "icmp-type": text("pve-fw-icmp-type-spec"),
        "enable": number(0),
        "log": _LEVEL,
        "comment": text(),
        "digest": DIGEST_64,
    }


_POS = number(0)
_DELETE = text("pve-configid-list")
_CLUSTER_OPTIONS: Declarations = {
    "enable": number(0),
    "ebtables": flag(1),
    "policy_in": _POLICY,
    "policy_out": _POLICY,
    "log_ratelimit": text(
        {
            "enable": Parameter(type="boolean", default="1", default_key=True),
            "rate": text(pattern=r"[1-9][0-9]*\/(second|minute|hour|day)", default="1/second"),
            "burst": number(0, default=5),
        }
    ),
}
_HOST_OPTIONS: Declarations = {
    "enable": flag(),
    "log_level_in": _LEVEL,
    "log_level_out": _LEVEL,
    "tcp_flags_log_level": _LEVEL,
    "smurf_log_level": _LEVEL,
    "nosmurfs": flag(),
    "tcpflags": flag(0),
    "nf_conntrack_max": number(32768, default=262144),
    "nf_conntrack_tcp_timeout_established": number(7875, default=432000),
    "nf_conntrack_tcp_timeout_syn_recv": number(30, 60, 60),
    "ndp": flag(0),
    "nf_conntrack_allow_invalid": flag(0),
    "nf_conntrack_helpers": text("pve-fw-conntrack-helper", default=""),
    "protection_synflood": flag(0),
    "protection_synflood_rate": number(default=200),
    "protection_synflood_burst": number(default=1000),
    "log_nf_conntrack": flag(0),
}
_GUEST_OPTIONS: Declarations = {
    "enable": flag(0),
    "macfilter": flag(1),
    "dhcp": flag(0),
    "ndp": flag(0),
    "radv": flag(),
    "ipfilter": flag(),
    "policy_in": _POLICY,
    "policy_out": _POLICY,
    "log_level_in": _LEVEL,
    "log_level_out": _LEVEL,
}


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the firewall, and what its calls share.

    Attributes:
        path: where its calls begin.
        place: returns its file.
        audit, modify: who may read and change it.
        parameters: of the path.
        options: what may be set.
        proxied: whether rules are answered by the node of the path.
    """

    path: str
    place: Callable[[Call], Place]
    audit: Mapping[str, Any]
    modify: Mapping[str, Any]
    parameters: Declarations = field(default_factory=dict)
    options: Declarations = field(default_factory=dict)
    proxied: bool = False

    @property
    def proxy(self) -> str | None:
        """The parameter of the path that names the node which answers about rules."""
        return "node" if self.proxied else None


_GUEST = {"node": NODE, "vmid": VMID}
_VM_RIGHTS = perm("/vms/{vmid}", "VM.Audit"), perm("/vms/{vmid}", "VM.Config.Network")
CLUSTER = Level(
    "/cluster/firewall",
    lambda call: Place.cluster(),
    perm("/", "Sys.Audit"),
    perm("/", "Sys.Modify"),
    options=_CLUSTER_OPTIONS,
)
HOST = Level(
    "/nodes/{node}/firewall",
    lambda call: Place.host(call.values["node"]),
    perm("/nodes/{node}", "Sys.Audit"),
    perm("/nodes/{node}", "Sys.Modify"),
    {"node": NODE},
    _HOST_OPTIONS,
    proxied=True,
)
VM = Level(
    "/nodes/{node}/qemu/{vmid}/firewall",
    lambda call: Place.guest("vm", call.values["vmid"]),
    *_VM_RIGHTS,
    _GUEST,
    _GUEST_OPTIONS,
)
CT = Level(
    "/nodes/{node}/lxc/{vmid}/firewall",
    lambda call: Place.guest("ct", call.values["vmid"]),
    *_VM_RIGHTS,
    _GUEST,
    _GUEST_OPTIONS,
)
GROUP = Level(
    "/cluster/firewall/groups/{group}",
    lambda call: Place.security_group(call.values["group"]),
    perm("/", "Sys.Audit"),
    perm("/", "Sys.Modify"),
    {"group": name_of(18)},
)


def cluster_file(call: Call) -> Firewall:
    """Return the datacenter's file."""
    return editing.load(call.node.state, Place.cluster())


def _declare_rules(level: Level, path: str) -> None:
    """Declare the calls about a list of rules."""
    common, proxy = level.parameters, level.proxy

    def rules(call: Call) -> Any:
        place = level.place(call)
        return editing.listed(place.rules(editing.load(call.node.state, place)))

    def add(call: Call) -> Any:
        place = level.place(call)
        with editing.change(call.node.state, place) as firewall:
            found = place.rules(firewall)
            rule = Rule(call.values["type"], call.values["action"], enable=False)
            editing.set_fields(rule, call.values)
            editing.verify(rule, place, firewall, cluster_file(call))
            found.insert(0, rule)

    def rule(call: Call) -> Any:
        place = level.place(call)
        found = place.rules(editing.load(call.node.state, place))
        return editing.listed(found)[editing.position(found, call.values["pos"])]

    def update(call: Call) -> Any:
        values, place = call.values, level.place(call)
        with editing.change(call.node.state, place) as firewall:
            found = place.rules(firewall)
            editing.assert_unchanged(map(editing.rule_fields, found), values.get("digest"))
            pos = editing.position(found, values["pos"])
            target = values.get("moveto", pos)
            if target != pos:
                moved = found.pop(pos)
                found.insert(target - 1 if target > pos else target, moved)
                return
            editing.set_fields(found[pos], {key: value for key, value in values.items() if key != "pos"})
            editing.delete_fields(found[pos], values.get("delete", ""))
            editing.verify(found[pos], place, firewall, cluster_file(call))

    def remove(call: Call) -> Any:
        place = level.place(call)
        with editing.change(call.node.state, place) as firewall:
            found = place.rules(firewall)
            editing.assert_unchanged(map(editing.rule_fields, found), call.values.get("digest"))
            del found[editing.position(found, call.values["pos"])]

    new, changed = _rule(optional=False), _rule(optional=True)
    more = {"moveto": number(0), "delete": _DELETE}
    at = f"{path}/{{pos}}"
    for method, where, handler, parameters in (
        ("GET", path, rules, {}),
        ("POST", path, add, new),
        ("GET", at, rule, {"pos": _POS}),
        ("PUT", at, update, {**changed, **more}),
        ("DELETE", at, remove, {"pos": _POS, "digest": DIGEST_64}),
    ):
        rights = level.audit if method == "GET" else level.modify
        endpoint(method, where, parameters={**common, **parameters}, permissions=rights, proxy=proxy)(handler)


def _declare_options(level: Level) -> None:
    """Declare the calls about options."""
    path, common = f"{level.path}/options", level.parameters

    @endpoint("GET", path, parameters=common, permissions=level.audit)
    def options(call: Call) -> Any:
        return editing.options(editing.load(call.node.state, level.place(call)), level.options)

    @endpoint(
        "PUT",
        path,
        parameters={**common, **level.options, "delete": _DELETE, "digest": DIGEST_64},
        permissions=level.modify,
    )
    def change(call: Call) -> Any:
        with editing.change(call.node.state, level.place(call)) as firewall:
            editing.set_options(firewall, call.values, level.options)


@endpoint("GET", "/cluster/firewall/macros", permissions=ALL, inline=True)
def macro_names(call: Call) -> Any:
    """List the macros."""
    return [{"macro": name, "descr": macros.DESCRIPTIONS[name] or name} for name in sorted(macros.MACROS)]


_REFERENCE = {"type": choice("alias ipset")}


def _references(firewall: Firewall, scope: str, wanted: str | None) -> list[dict[str, Any]]:
    """Return the names that a rule may use."""
    found: list[dict[str, Any]] = []
    for name in sorted(firewall.ipsets) if wanted in (None, "ipset") else ():
        found.append({"type": "ipset", "name": name, "ref": f"+{name}", "scope": scope})
        if words := firewall.comments.get(f"ipset {name}"):
            found[-1]["comment"] = words
    for name, alias in sorted(firewall.aliases.items()) if wanted in (None, "alias") else ():
        found.append({"type": "alias", "name": name, "ref": name, "scope": scope})
        if alias.comment:
            found[-1]["comment"] = alias.comment
    return found


@endpoint("GET", "/cluster/firewall/refs", parameters=_REFERENCE, permissions=CLUSTER.audit)
def references(call: Call) -> Any:
    """List the names that rules of the datacenter may use."""
    return _references(cluster_file(call), "dc", call.values.get("type"))


_LOG = {"start": START, "limit": LIMIT, "since": number(0), "until": number(0)}


def _log(call: Call) -> Any:
    """Return lines of the firewall's log, those of a guest if the call is about one."""
    values = call.values
    lines = list(call.node.fabric.log.lines(values.get("vmid"), values.get("since", 0), values.get("until", 0)))
    start, limit = values.get("start", 0), values.get("limit", 50)
    call.total = len(lines) or 1
    if not lines:
        return [{"n": 1, "t": "no content"}]
    chosen = lines[start : start + limit] if limit else lines[start:]
    return [{"n": start + number_, "t": line} for number_, line in enumerate(chosen, 1)]


def _declare_guest(level: Level) -> None:
    """Declare what only guests have."""

    @endpoint(
        "GET",
        f"{level.path}/refs",
        parameters={**level.parameters, **_REFERENCE},
        permissions=level.audit,
        proxy=None,
    )
    def guest_references(call: Call) -> Any:
        wanted = call.values.get("type")
        own = editing.load(call.node.state, level.place(call))
        return [*_references(cluster_file(call), "dc", wanted), *_references(own, "guest", wanted)]

    endpoint(
        "GET",
        f"{level.path}/log",
        parameters={**level.parameters, **_LOG},
        permissions=perm("/vms/{vmid}", "VM.Console"),
    )(_log)


def _declare() -> None:
    """Declare the calls of all levels."""
    for level in (CLUSTER, HOST, VM, CT):
        _declare_rules(level, f"{level.path}/rules")
        _declare_options(level)
        index(level.path, level.parameters, key="name")
    _declare_rules(GROUP, GROUP.path)
    for level in (VM, CT):
        _declare_guest(level)
    log = {**HOST.parameters, **_LOG}
    endpoint("GET", f"{HOST.path}/log", parameters=log, permissions=perm("/nodes/{node}", "Sys.Syslog"))(_log)


_declare()
