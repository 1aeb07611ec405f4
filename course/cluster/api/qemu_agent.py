"""The guest agent of virtual machines."""

from __future__ import annotations

import base64
from typing import Any

from ...error import ClusterError
from ..declaration import Parameter
from ..vm import agent
from ..vm.running import RunningVm
from .common import ALL, NODE, VMID, Call, choice, endpoint, flag, perm, text

GUEST = {"node": NODE, "vmid": VMID}
PATH = "/nodes/{node}/qemu/{vmid}/agent"
MONITOR = perm("/vms/{vmid}", "VM.Monitor")

GETS = (
    *("get-fsinfo", "get-host-name", "get-memory-block-info", "get-memory-blocks", "get-osinfo", "get-time"),
    *("get-timezone", "get-users", "get-vcpus", "info", "network-get-interfaces"),
)
POSTS = (
    *("fsfreeze-freeze", "fsfreeze-status", "fsfreeze-thaw", "fstrim", "ping", "shutdown"),
    *("suspend-disk", "suspend-hybrid", "suspend-ram"),
)
_SILENT = ("shutdown", "suspend-disk", "suspend-hybrid", "suspend-ram")
_LONG_S = {"fsfreeze-freeze": 600.0, "fstrim": 600.0}
_OUTPUT_LIMIT = 16 << 20


def _running(call: Call) -> RunningVm:
    """Return the machine whose agent may be asked."""
    node, vmid = call.node, call.values["vmid"]
    config = node.state.load_guest(vmid, node.name, "qemu")
    return agent.require(node.guests.get(vmid), vmid, config.current.values)


def _ask(call: Call, command: str) -> dict[str, Any]:
    running = _running(call)
    if command in _SILENT:
        agent.tell(running, f"guest-{command}")
        return {"result": None}
    return {"result": agent.execute(running, f"guest-{command}", timeout_s=_LONG_S.get(command))}


def _declare(method: str, command: str) -> None:
    @endpoint(method, f"{PATH}/{command}", parameters=GUEST, permissions=MONITOR, writes=False)
    def ask(call: Call) -> Any:
        return _ask(call, command)

    del ask


for _command in GETS:
    _declare("GET", _command)
for _command in POSTS:
    _declare("POST", _command)


@endpoint("GET", PATH, parameters=GUEST, permissions=ALL, additional=True, inline=True)
def index(call: Call) -> Any:
    """Return the names of all commands."""
    del call
    more = ("exec", "exec-status", "file-read", "file-write", "set-user-password")
    return [{"name": name} for name in sorted((*GETS, *POSTS, *more))]


@endpoint(
    "POST", PATH, parameters={**GUEST, "command": choice(" ".join(sorted((*GETS, *POSTS))), optional=False)},
    permissions=MONITOR,
    writes=False,
)  # fmt: skip
def any_command(call: Call) -> Any:
    """Execute a command of the agent by its name."""
    return _ask(call, call.values["command"])


@endpoint(
    "POST",
    f"{PATH}/exec",
    parameters={
        **GUEST,
        "command": Parameter(type="array", items=Parameter(format="string")),
        "input-data": text(longest=65536),
    },
    permissions=MONITOR,
    writes=False,
)
def execute(call: Call) -> Any:
    """Start a program in the guest."""
    words = [str(word) for word in call.values["command"]]
    if not words:
        raise ClusterError("command must not be empty")
    arguments: dict[str, Any] = {"path": words[0], "arg": words[1:], "capture-output": True}
    if call.values.get("input-data"):
        arguments["input-data"] = base64.b64encode(call.values["input-data"].encode()).decode()
    answer = agent.execute(_running(call), "guest-exec", arguments)
    return {"pid": answer["pid"]}


@endpoint(
    "GET",
    f"{PATH}/exec-status",
    parameters={**GUEST, "pid": Parameter(type="integer")},
    permissions=MONITOR,
)
def outcome(call: Call) -> Any:
    """Return how a program in the guest does."""
    found = agent.execute(_running(call), "guest-exec-status", {"pid": call.values["pid"]})
    answer: dict[str, Any] = {key: value for key, value in found.items() if key in ("exitcode", "signal")}
    answer["exited"] = int(bool(found.get("exited")))
    for key in ("out-data", "err-data"):
        if key in found:
            data = base64.b64decode(found[key])
            answer[key] = data[:_OUTPUT_LIMIT].decode("utf-8", "replace")
            if found.get(f"{key[:3]}-truncated") or len(data) > _OUTPUT_LIMIT:
                answer[f"{key[:3]}-truncated"] = 1
    return answer


@endpoint("GET", f"{PATH}/file-read", parameters={**GUEST, "file": text(optional=False)}, permissions=MONITOR)
def read_file(call: Call) -> Any:
    """Return the content of a file of the guest."""
    running = _running(call)
    handle = agent.execute(running, "guest-file-open", {"path": call.values["file"]})
    content, rest = b"", True
    try:
        while rest and len(content) < _OUTPUT_LIMIT:
            part = agent.execute(running, "guest-file-read", {"handle": handle, "count": 1 << 20})
            content += base64.b64decode(part["buf-b64"])
            rest = not part["eof"]
    finally:
        agent.execute(running, "guest-file-close", {"handle": handle})
    answer: dict[str, Any] = {"content": content.decode("utf-8", "replace"), "bytes-read": len(content)}
    return {**answer, "truncated": 1} if rest else answer


@endpoint(
    "POST",
    f"{PATH}/file-write",
    parameters={
        **GUEST,
        "file": text(optional=False),
        "content": text(longest=61440, optional=False),
        "encode": flag(1),
    },
    permissions=MONITOR,
    writes=False,
)
def write_file(call: Call) -> Any:
    """Write a file of the guest."""
    running, content = _running(call), call.values["content"]
    coded = base64.b64encode(content.encode()).decode() if call.values.get("encode", 1) else content
    handle = agent.execute(running, "guest-file-open", {"path": call.values["file"], "mode": "wb"})
    try:
        agent.execute(running, "guest-file-write", {"handle": handle, "buf-b64": coded})
    finally:
        agent.execute(running, "guest-file-close", {"handle": handle})


@endpoint(
    "POST",
    f"{PATH}/set-user-password",
    parameters={
        **GUEST,
        "username": text(optional=False),
        "password": Parameter(min_length=5, max_length=1024),
        "crypted": flag(0),
    },
    permissions=MONITOR,
    writes=False,
)
def set_password(call: Call) -> Any:
    """Change a user's password in the guest."""
    coded = base64.b64encode(call.values["password"].encode()).decode()
    arguments = {
        "username": call.values["username"],
        "password": coded,
        "crypted": bool(call.values.get("crypted", 0)),
    }
    return {"result": agent.execute(_running(call), "guest-set-user-password", arguments)}
