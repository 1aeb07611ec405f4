"""Tasks of a node and of the cluster."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from .. import tasks
from ..tasks import Entry, read_log
from ..upid import Upid
from .common import ALL, NODE, UPID, VMID, Call, Parameter, choice, endpoint, flag, index, number, text

_TASK = {"node": NODE, "upid": UPID}
CLUSTER_WIDE = 50


@endpoint(
    "GET",
    "/nodes/{node}/tasks",
    parameters={
        "node": NODE,
        "start": number(0, default=0),
        "limit": number(0, default=50),
        "userfilter": text(),
        "typefilter": text(),
        "vmid": Parameter(
            type="integer", optional=True, format=VMID.format, minimum=VMID.minimum, maximum=VMID.maximum
        ),
        "errors": flag(0),
        "source": choice("archive active all", "archive"),
        "since": number(),
        "until": number(),
        "statusfilter": text("pve-task-status-type-list"),
    },
    permissions=ALL,
)
def of_node(call: Call) -> Any:
    """List a node's tasks, the latest first."""
    matching = [record for record in _records(call) if _wanted(record, call.values)]
    call.total = len(matching)
    start, limit = call.values.get("start", 0), call.values.get("limit", 50)
    return matching[start : start + limit] if limit else matching[start:]


def _records(call: Call) -> Iterator[dict[str, Any]]:
    """Yield the tasks that the caller may see."""
    source = call.values.get("source", "archive")
    running = call.node.tasks.active() if source in ("active", "all") else []
    ended = call.node.tasks.archive() if source in ("archive", "all") else iter(())
    auditor = call.may(f"/nodes/{call.node.name}", ["Sys.Audit"])
    for entry in itertools.chain(running, ended):
        if auditor or own(call, entry.upid):
            record = entry.record()
            record.setdefault("status", "RUNNING")
            yield record


def _wanted(record: dict[str, Any], values: dict[str, Any]) -> bool:
    """Say whether a task passes the filters."""
    user = f"{record['user']}!{record['tokenid']}" if "tokenid" in record else record["user"]
    return not (
        ("vmid" in values and str(values["vmid"]) != record["id"])
        or ("typefilter" in values and values["typefilter"] != record["type"])
        or ("userfilter" in values and values["userfilter"].lower() not in user.lower())
        or record["starttime"] < values.get("since", 0)
        or record["starttime"] > values.get("until", record["starttime"])
        or (values.get("errors") and kind_of(record["status"]) in ("ok", "running"))
        or ("statusfilter" in values and kind_of(record["status"]) not in re.split(r"[,; ]", values["statusfilter"]))
    )


def kind_of(status: str) -> str:
    """Return which of ok, warning, unknown, error or running a status is."""
    if status.startswith("WARNINGS: "):
        return "warning"
    return {"OK": "ok", "RUNNING": "running", tasks.UNEXPECTED: "unknown"}.get(status, "error")


def own(call: Call, upid: Upid) -> bool:
    """Say whether a task is the caller's: a token sees what it began, a user also what the user's tokens began."""
    return call.user in (upid.user, upid.userid)


index("/nodes/{node}/tasks/{upid}", _TASK, key="name")


@endpoint("GET", "/nodes/{node}/tasks/{upid}/status", parameters=_TASK, permissions=ALL)
def status(call: Call) -> Any:
    """Say whether a task runs, and how it ended."""
    found = call.node.tasks.status(call.values["upid"])
    _assert_may(call, "Sys.Audit")
    return found


@endpoint(
    "GET",
    "/nodes/{node}/tasks/{upid}/log",
    parameters={**_TASK, "start": number(0, default=0), "limit": number(0, default=50), "download": flag()},
    permissions=ALL,
)
def log(call: Call) -> Any:
    """Return lines of a task's log."""
    _, path = call.node.tasks.known(call.values["upid"])
    _assert_may(call, "Sys.Audit")
    lines, call.total = read_log(path, call.values.get("start", 0), call.values.get("limit", 50))
    return lines


@endpoint("DELETE", "/nodes/{node}/tasks/{upid}", parameters=_TASK, permissions=ALL, writes=False)
def stop(call: Call) -> Any:
    """Stop a task."""
    call.node.tasks.known(call.values["upid"])
    _assert_may(call, "Sys.Modify")
    call.node.tasks.stop(call.values["upid"])


def _assert_may(call: Call, privilege: str) -> None:
    """Refuse those whose task it is not, unless they have a privilege at the node."""
    if not own(call, Upid.parse(call.values["upid"])):
        call.check(f"/nodes/{call.node.name}", [privilege])


@endpoint("GET", "/cluster/tasks", permissions=ALL)
def of_cluster(call: Call) -> Any:
    """List what runs or ended lately on all nodes."""
    found: list[Entry] = []
    for name in call.node.state.nodes:
        recent = tasks.read_active(call.node.state.of(name) / "tasks" / "active")
        if not call.node.members.online(name):
            recent = [Entry(e.upid, e.endtime or e.upid.starttime, e.status or tasks.UNEXPECTED) for e in recent]
        auditor = call.may(f"/nodes/{name}", ["Sys.Audit"])
        found += [entry for entry in recent if auditor or own(call, entry.upid)]
    found.sort(key=lambda entry: (entry.status is None, entry.endtime or entry.upid.starttime), reverse=True)
    return [{**entry.record(), "saved": str(int(entry.status is not None))} for entry in found[:CLUSTER_WIDE]]
