"""What a cluster's answers mean to a person: servers and guests as a tree, a guest's data as rows, its buttons.

Plain functions of what the API of Proxmox VE says; `datacenter` asks it and shows the result.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Rows = list[list[str]]

_HARDWARE = re.compile(
    r"^(memory|cores|sockets|vcpus|cpu|bios|machine|boot|ostype|agent|vga|balloon|kvm|rootfs|swap|"
    r"(scsi|virtio|ide|sata|net|serial|usb|hostpci|unused|efidisk|tpmstate|mp)\d+|scsihw)$"
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def tree(resources: Sequence[Mapping[str, Any]], status: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Order nodes, guests and storages for the server tree.

    Args:
        resources: GET /cluster/resources.
        status: GET /cluster/status.

    Returns:
        One dict per line: id, level (1 the datacenter, 2 nodes, 3 what they hold), kind, name, status, node, vmid.
    """
    cluster = next((entry for entry in status if entry.get("type") == "cluster"), {})
    quorate = " (no quorum: read-only)" if cluster and not int(cluster.get("quorate", 1)) else ""
    lines: list[Row] = [_line("datacenter", 1, "datacenter", f"Datacenter {cluster.get('name', '')}".strip(), quorate)]
    for node in sorted((r for r in resources if r["type"] == "node"), key=lambda r: str(r["node"])):
        name = str(node["node"])
        lines.append(_line(f"node/{name}", 2, "node", name, str(node.get("status", "unknown")), node=name))
        lines += [_guest(r) for r in sorted(_on(resources, name, "qemu", "lxc"), key=lambda r: int(r["vmid"]))]
        lines += [_storage(r) for r in sorted(_on(resources, name, "storage"), key=lambda r: str(r["storage"]))]
    return lines


def _line(key: str, level: int, kind: str, name: str, status: str, **more: Any) -> Row:
    return {"id": key, "level": level, "kind": kind, "name": name, "status": status.strip(), **more}


def _on(resources: Sequence[Mapping[str, Any]], node: str, *kinds: str) -> list[Mapping[str, Any]]:
    return [r for r in resources if r["type"] in kinds and r.get("node") == node]


def _guest(found: Mapping[str, Any]) -> Row:
    vmid, kind = int(found["vmid"]), str(found["type"])
    status = str(found.get("status", "unknown"))
    if int(found.get("template") or 0):
        status = "template"
    if found.get("lock"):
        status += f", locked ({found['lock']})"
    more = {"node": str(found["node"]), "vmid": vmid, "pool": str(found.get("pool") or "")}
    return _line(f"{kind}/{vmid}", 3, kind, f"{vmid} ({found.get('name') or 'no name'})", status, **more)


def _storage(found: Mapping[str, Any]) -> Row:
    name, node = str(found["storage"]), str(found["node"])
    shared = ", shared" if int(found.get("shared") or 0) else ""
    status = str(found.get("status", "unknown")) + shared
    return _line(f"storage/{node}/{name}", 3, "storage", name, status, node=node, storage=name)


def as_text(lines: Sequence[Row], said: str = "") -> str:
    """The tree as indented lines."""
    kinds = {"node": "node ", "qemu": "VM ", "lxc": "CT ", "storage": "storage "}
    shown = [
        f"{'  ' * (line['level'] - 1)}{kinds.get(line['kind'], '')}{line['name']}"
        + (f": {line['status']}" if line["status"] else "")
        for line in lines
    ]
    return "\n".join([*shown, said] if said else shown) or "no cluster has answered yet"


def as_html(lines: Sequence[Row]) -> str:
    """The tree as a list, for places without a front end."""
    return f'<pre role="img" aria-label="Server tree">{html.escape(as_text(lines))}</pre>'


def size(value: Any) -> str:
    """Bytes for people: ``1.5 GiB``."""
    number, unit = float(value or 0), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {_UNITS[unit]}" if number < 1000 else f"{number:.0f} {_UNITS[unit]}"


def duration(seconds: Any) -> str:
    """Seconds for people: ``1:02:03``."""
    minutes, rest = divmod(int(seconds or 0), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def share(part: Any, whole: Any) -> str:
    """So much of so much."""
    return f"{size(part)} of {size(whole)}"


def summary_of_guest(current: Mapping[str, Any], line: Row) -> Rows:
    """Rows of a guest's status (GET …/status/current)."""
    rows = [["status", str(current.get("qmpstatus") or current.get("status", "unknown"))], ["node", line["node"]]]
    if current.get("lock"):
        rows.append(["lock", str(current["lock"])])
    ha = current.get("ha") or {}
    if ha and int(ha.get("managed") or 0):
        rows.append(["HA", str(ha.get("state", "managed"))])
    if str(current.get("status")) == "running":
        rows.append(["uptime", duration(current.get("uptime"))])
        rows.append(["CPU", f"{100 * float(current.get('cpu') or 0):.1f} % of {current.get('cpus', 1)}"])
        rows.append(["memory", share(current.get("mem"), current.get("maxmem"))])
        rows.append(["network", f"{size(current.get('netin'))} in, {size(current.get('netout'))} out"])
        if current.get("pid"):
            rows.append(["process", str(current["pid"])])
    else:
        rows.append(["memory", size(current.get("maxmem"))])
    return rows


def summary_of_node(status: Mapping[str, Any]) -> Rows:
    """Rows of a node's status (GET /nodes/{node}/status)."""
    memory, root = status.get("memory") or {}, status.get("rootfs") or {}
    rows = [
        ["version", str(status.get("pveversion", "unknown"))],
        ["uptime", duration(status.get("uptime"))],
        ["load", ", ".join(str(value) for value in status.get("loadavg") or ())],
        ["memory", share(memory.get("used"), memory.get("total"))],
        ["disk", share(root.get("used"), root.get("total"))],
    ]
    return [row for row in rows if row[1]]


def summary_of_storage(status: Mapping[str, Any]) -> Rows:
    """Rows of a storage's status (GET …/storage/{storage}/status)."""
    return [
        ["type", str(status.get("type", "unknown"))],
        ["content", str(status.get("content", "")).replace(",", ", ")],
        ["used", share(status.get("used"), status.get("total"))],
        ["shared", "yes" if int(status.get("shared") or 0) else "no"],
    ]


def summary_of_cluster(status: Sequence[Mapping[str, Any]]) -> Rows:
    """Rows of the cluster's status (GET /cluster/status)."""
    nodes = [entry for entry in status if entry.get("type") == "node"]
    cluster = next((entry for entry in status if entry.get("type") == "cluster"), {})
    online = [str(entry["name"]) for entry in nodes if int(entry.get("online") or 0)]
    rows = [["cluster", str(cluster.get("name", "a single node"))], ["nodes online", ", ".join(sorted(online))]]
    offline = sorted(str(entry["name"]) for entry in nodes if not int(entry.get("online") or 0))
    if offline:
        rows.append(["nodes offline", ", ".join(offline)])
    if cluster:
        votes = f"{len(online)} of {cluster.get('nodes', len(nodes))} votes"
        rows.append(["quorum", f"yes, {votes}" if int(cluster.get("quorate") or 0) else f"no, {votes}: read-only"])
    return rows


def hardware(config: Mapping[str, Any]) -> Rows:
    """Rows of a guest's configuration that are its hardware (GET …/config)."""
    return [[key, str(config[key])] for key in sorted(config) if _HARDWARE.match(key)]


def snapshots(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A guest's snapshots, the current state left out (GET …/snapshot)."""
    made = [entry for entry in found if entry.get("name") != "current"]
    return [
        {
            "name": str(entry["name"]),
            "parent": str(entry.get("parent") or ""),
            "ram": bool(int(entry.get("vmstate") or 0)),
            "time": clock(entry.get("snaptime")),
            "description": str(entry.get("description") or "").strip(),
        }
        for entry in sorted(made, key=lambda entry: int(entry.get("snaptime") or 0))
    ]


def tasks(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Tasks, the newest first (GET /cluster/tasks)."""
    newest = sorted(found, key=lambda task: -int(task.get("starttime") or 0))
    return [
        {
            "upid": str(task["upid"]),
            "node": str(task.get("node", "")),
            "what": f"{task.get('type', '')} {task.get('id') or ''}".strip(),
            "user": str(task.get("user", "")),
            "start": clock(task.get("starttime")),
            "status": str(task.get("status") or "running"),
        }
        for task in newest
    ]


def clock(seconds: Any) -> str:
    """Time of day, local."""
    return time.strftime("%H:%M:%S", time.localtime(int(seconds))) if seconds else ""


def buttons(line: Row | None, *, allowed: bool = True) -> list[list[Any]]:
    """Which buttons there are for what is selected: [what it does, its label, whether it can be pressed]."""
    if line is None or line["kind"] not in ("qemu", "lxc"):
        return [["create", "Create VM", True]]
    running, stopped = line["status"].startswith("running"), line["status"].startswith("stopped")
    return [
        ["create", "Create VM", True],
        ["start", "Start", allowed and stopped],
        ["shutdown", "Shutdown", allowed and running],
        ["stop", "Stop", allowed and running],
        ["migrate", "Migrate", allowed and line["status"] != "template"],
        ["snapshot", "Snapshot", allowed and (running or stopped)],
        ["console", "Console", allowed and running],
    ]


def words(error: Exception) -> str:
    """A refusal in the cluster's own words, with what it says of each parameter."""
    status = getattr(error, "status_code", None)
    if status is None:
        return f"no answer from the cluster: {type(error).__name__}"
    content = str(getattr(error, "content", "")).split(" - {")[0]
    errors = getattr(error, "errors", None)
    named = errors if isinstance(errors, Mapping) else {}
    details = "; ".join(f"{key}: {str(value).strip()}" for key, value in named.items())
    return f"✗ {status} {content}" + (f" ({details})" if details else "")
