"""Options of the whole cluster, its nodes as corosync knows them, and what is scheduled."""

from __future__ import annotations

import datetime
import re
import time
from typing import Any

from ...error import ClusterError
from .. import certificates, properties
from ..calendar import CalendarEvent
from ..config import lines
from ..config.files import digest
from ..declaration import Parameter
from ..formats import split_list
from ..foundation import address_of, cluster_name
from ..options import choice, flag, number, text
from ..state import parse_options, render_options
from .common import ALL, Call, endpoint, index, perm

AUDIT, MODIFY = perm("/", "Sys.Audit"), perm("/", "Sys.Modify")
FILE, DOMAIN = "datacenter.cfg", "file-datacenter_cfg"
_TAG = r"(?i:[a-z0-9_][a-z0-9_\-\+\.]*)"
_COLOR = rf"(?:{_TAG}:[0-9a-fA-F]{{6}}(?::[0-9a-fA-F]{{6}})?)"
_KEYBOARDS = "de de-ch da en-gb en-us es fi fr fr-be fr-ca fr-ch hu is it ja lt mk nl no pl pt pt-br sv sl tr"
_LANGUAGES = "ar ca da de en es eu fa fr hr he it ja ka kr nb nl nn pl pt_BR ru sl sv tr ukr zh_CN zh_TW"
_LIMIT = number(0, kind="number")
FORMATS: dict[str, dict[str, Parameter]] = {
    "bwlimit": dict.fromkeys(("default", "restore", "migration", "clone", "move"), _LIMIT),
    "crs": {"ha": choice("basic static", "basic"), "ha-rebalance-on-start": flag(0)},
    "ha": {"shutdown_policy": Parameter(default="conditional", enum=("freeze", "failover", "conditional", "migrate"))},
    "migration": {
        "type": choice("secure insecure", "secure", optional=False, default_key=True),
        "network": text("CIDR"),
    },
    "next-id": {"lower": number(default=100), "upper": number(default=1000000)},
    "notify": {
        "fencing": choice("always never", "always"),
        "package-updates": choice("auto always never", "auto"),
        "replication": choice("always never", "always"),
        **{name: text() for name in ("target-fencing", "target-package-updates", "target-replication")},
    },
    "tag-style": {
        "shape": choice("full circle dense none", "circle"),
        "color-map": text(pattern=rf"{_COLOR}(?:;{_COLOR})*"),
        "ordering": choice("config alphabetical", "alphabetical"),
        "case-sensitive": flag(0),
    },
    "u2f": {"appid": text(), "origin": text()},
    "user-tag-access": {
        "user-allow": choice("none list existing free", "free"),
        "user-allow-list": text(pattern=rf"{_TAG}(?:;{_TAG})*"),
    },
    "webauthn": {"rp": text(), "origin": text(), "id": text(), "allow-subdomains": flag(1)},
}
"""Options that hold properties."""
OPTIONS: dict[str, Parameter] = {
    **{name: text(form) for name, form in FORMATS.items()},
    "console": choice("applet vv html5 xtermjs"),
    "description": text(longest=65536),
    "email_from": text("email-opt"),
    "fencing": choice("watchdog hardware both", "watchdog"),
    "http_proxy": text(pattern=r"http://.*"),
    "keyboard": choice(_KEYBOARDS),
    "language": choice(_LANGUAGES),
    "mac_prefix": text("mac-prefix", default="BC:24:11"),
    "max_workers": number(1),
    "migration_unsecure": flag(),
    "registered-tags": text(pattern=rf"(?:{_TAG};)*{_TAG}"),
}
PUBLIC = ("console", "tag-style", "description")
"""What anybody may read."""

index("/cluster/config", key="name", permissions=AUDIT)
index("/cluster/jobs")
index("/cluster/metrics", key="name")


@endpoint("GET", "/cluster/options", permissions={"check": AUDIT["check"], "user": "all"})
def read(call: Call) -> Any:
    """Return the options; to those who may not audit, only what everybody may know."""
    text = call.node.state.read(FILE)
    found: dict[str, Any] = {name: _shown(name, value) for name, value in parse_options(text).items()}
    if comment := _description(text):
        found["description"] = comment
    found.setdefault("mac_prefix", "BC:24:11")
    found["allowed-tags"] = sorted(_tags(call))
    if call.may("/", ["Sys.Audit"]):
        return found
    return {name: value for name, value in found.items() if name in (*PUBLIC, "allowed-tags")}


def _tags(call: Call) -> set[str]:
    """Return the tags that guests have or that are registered."""
    state = call.node.state
    found = set(split_list(state.datacenter().get("registered-tags", "")))
    for place in state.guests().values():
        if call.may(f"/vms/{place.vmid}", ["VM.Audit"]):
            found |= set(split_list(state.view_guest(place).current.values.get("tags", "")))
    return found


def _shown(name: str, value: str) -> Any:
    """Return an option as it is answered: properties as an object."""
    if name in FORMATS:
        return properties.parse(value, FORMATS[name])
    return int(value) if value.isdecimal() and name in ("max_workers", "migration_unsecure") else value


def _description(text: str) -> str:
    words = [line.removeprefix("#") for line in text.splitlines() if line.startswith("#")]
    return "".join(f"{lines.unescape(word)}\n" for word in words)


@endpoint(
    "PUT",
    "/cluster/options",
    parameters={**OPTIONS, "delete": text("pve-configid-list")},
    permissions=MODIFY,
)
def update(call: Call) -> Any:
    """Change options."""
    state, values = call.node.state, dict(call.values)
    delete = split_list(values.pop("delete", ""))
    with state.lock(DOMAIN):
        before = state.read(FILE)
        options, comment = parse_options(before), _description(before)
        if "description" in values or "description" in delete:
            comment = values.pop("description", "")
        for name in delete:
            if name not in OPTIONS:
                raise ClusterError(f"unknown setting '{name}'")
            options.pop(name, None)
        options |= {name: str(value) for name, value in values.items()}
        head = "".join(f"#{lines.escape(line)}\n" for line in comment.splitlines())
        state.write(FILE, head + render_options(options))


@endpoint("GET", "/cluster/config/nodes", permissions=AUDIT)
def nodes(call: Call) -> Any:
    """List the nodes as corosync knows them."""
    return [
        {
            "node": name,
            "name": name,
            "nodeid": str(count),
            "quorum_votes": "1",
            "ring0_addr": address_of(name),
        }
        for count, name in enumerate(call.node.state.nodes, 1)
    ]


@endpoint("GET", "/cluster/config/totem", permissions=AUDIT)
def totem(call: Call) -> Any:
    """Return how the nodes speak to each other."""
    return _totem(call)


def _totem(call: Call) -> dict[str, Any]:
    return {
        "cluster_name": cluster_name(call.node.state, call.node.settings),
        "config_version": str(len(call.node.state.nodes)),
        "interface": {"0": {"linknumber": "0"}},
        "ip_version": "ipv4-6",
        "secauth": "on",
        "version": "2",
    }


@endpoint("GET", "/cluster/config/apiversion", permissions=AUDIT)
def apiversion(call: Call) -> Any:
    """Return the version of the way to join."""
    return 1


@endpoint("GET", "/cluster/config/qdevice", permissions=AUDIT)
def qdevice(call: Call) -> Any:
    """Return the state of an outside vote: there is none."""
    return {}


@endpoint(
    "GET",
    "/cluster/config/join",
    parameters={"node": Parameter(optional=True, format="pve-node", default="current connected node")},
    permissions=AUDIT,
)
def join(call: Call) -> Any:
    """Return what a new node would need to know."""
    state = call.node.state
    return {
        "config_digest": digest(state.read("corosync.conf")),
        "nodelist": [
            {
                "name": name,
                "nodeid": str(count),
                "pve_addr": address_of(name),
                "pve_fp": certificates.fingerprint(state.read(f"nodes/{name}/pve-ssl.pem")),
                "quorum_votes": "1",
                "ring0_addr": address_of(name),
            }
            for count, name in enumerate(state.nodes, 1)
        ],
        "preferred_node": call.values.get("node", call.node.name),
        "totem": _totem(call),
    }


@endpoint("GET", "/cluster/metrics/server", permissions=AUDIT)
def metric_servers(call: Call) -> Any:
    """List the servers that measurements are sent to: none."""
    return []


@endpoint(
    "GET",
    "/cluster/jobs/schedule-analyze",
    parameters={
        "schedule": Parameter(format="pve-calendar-event", max_length=128),
        "starttime": number(),
        "iterations": number(1, 100, 10),
    },
    permissions=ALL,
)
def schedule(call: Call) -> Any:
    """Return the next times of a schedule."""
    event = CalendarEvent.parse(call.values["schedule"])
    zone = datetime.datetime.now().astimezone().tzinfo or datetime.UTC
    moment: int = call.values.get("starttime", int(time.time()))
    found = []
    for _ in range(call.values.get("iterations", 10)):
        following = event.next_run(moment, zone)
        if following is None:
            break
        moment = following
        utc = datetime.datetime.fromtimestamp(moment, datetime.UTC)
        found.append({"timestamp": moment, "utc": re.sub(r"\+.*", " UTC", utc.isoformat(sep=" "))})
    return found


@endpoint("GET", "/cluster/ceph/status", permissions=perm("/", "Sys.Audit", "Datastore.Audit", any_of=True))
def ceph(call: Call) -> Any:
    """Say that there is no Ceph."""
    raise ClusterError("binary not installed: /usr/bin/ceph-mon")


index("/cluster/mapping", key="name")
