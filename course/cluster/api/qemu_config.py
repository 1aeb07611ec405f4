"""Configurations of virtual machines: reading and changing them, disks that grow or go."""

from __future__ import annotations

from typing import Any

from ...error import ClusterError, ParameterError
from .. import options
from ..properties import parse
from ..tasks import Task
from ..vm import allocation, changing, cloudinit, disks, hardware, rights, status
from ..vm.changing import Wish
from .common import DIGEST, NODE, SKIPLOCK, VMID, Call, choice, endpoint, flag, perm, text

GUEST = {"node": NODE, "vmid": VMID}
AUDIT = perm("/vms/{vmid}", "VM.Audit")
CHANGE = perm(
    "/vms/{vmid}",
    "VM.Config.Disk",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.HWType",
    "VM.Config.Options",
    "VM.Config.Cloudinit",
    any_of=True,
)
SNAPSHOT_NAME = text("pve-configid", longest=40)
_COUNTS = {"ide": 4, "scsi": 31, "virtio": 16, "sata": 6}
DISKS = " ".join([f"{bus}{n}" for bus, count in _COUNTS.items() for n in range(count)] + ["efidisk0", "tpmstate0"])
_PASSWORD = "**********"  # noqa: S105 - what is shown instead of one


@endpoint(
    "GET",
    "/nodes/{node}/qemu/{vmid}/config",
    parameters={**GUEST, "current": flag(0), "snapshot": SNAPSHOT_NAME},
    permissions=AUDIT,
)
def config(call: Call) -> Any:
    """Return a machine's configuration: as it will be, as it is, or as a snapshot keeps it."""
    values = call.values
    found = call.node.state.load_guest(values["vmid"], call.node.name, "qemu")
    if name := values.get("snapshot"):
        if values.get("current"):
            raise ParameterError(
                {
                    "snapshot": "cannot use 'snapshot' parameter with 'current'",
                    "current": "cannot use 'snapshot' parameter with 'current'",
                }
            )
        if name not in found.snapshots:
            raise ClusterError(f"snapshot '{name}' does not exist")
        section = found.snapshots[name]
        shown = dict(section.values)
        for key in ("parent", "snapstate", "snaptime"):
            shown.pop(key, None)
        description = section.description
    else:
        shown = dict(found.current.values) if values.get("current") else found.merged()
        description = found.current.description
    answer: dict[str, Any] = {key: status.typed(key, value) for key, value in shown.items()}
    if description is not None:
        answer["description"] = description
    if "cipassword" in answer:
        answer["cipassword"] = _PASSWORD
    answer["digest"] = found.digest
    return answer


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/pending", parameters=GUEST, permissions=AUDIT)
def pending(call: Call) -> Any:
    """Return each setting with its value now and after the next start."""
    found = call.node.state.load_guest(call.values["vmid"], call.node.name, "qemu")
    gone = found.pending_deletes()
    current: dict[str, str] = dict(found.current.values)
    if found.current.description is not None:
        current["description"] = found.current.description
    waiting = {key: value for key, value in found.pending.values.items() if key != "delete"}
    entries = []
    for key in [*sorted(current), *sorted(waiting.keys() - current.keys())]:
        entry: dict[str, Any] = {"key": key}
        if key in current:
            entry["value"] = _PASSWORD if key == "cipassword" else status.typed(key, current[key])
        if key in waiting:
            entry["pending"] = _PASSWORD if key == "cipassword" else status.typed(key, waiting[key])
        if key in gone:
            entry["delete"] = 2 if gone[key] else 1
        entries.append(entry)
    return [*entries, {"key": "digest", "value": found.digest}]


def _wish(call: Call) -> Wish:
    """Read a wish and look whether the caller may have it."""
    values = call.values
    rights.root_only(call, ["skiplock"])
    own = ("node", "vmid", "skiplock", "delete", "revert", "digest", "force", "background_delay")
    asked = rights.text_of({key: value for key, value in values.items() if key not in own})
    if "cipassword" in asked:
        asked["cipassword"] = cloudinit.crypted(asked["cipassword"])
    wish = Wish(
        allocation.normalized(asked),
        changing.words(values.get("delete")),
        changing.words(values.get("revert")),
        values.get("digest"),
        bool(values.get("force")),
        bool(values.get("skiplock")),
    )
    if not (wish.settings or wish.delete or wish.revert):
        raise ClusterError("no options specified")
    wish.delete = ["ide2" if key == "cdrom" else key for key in wish.delete]
    wish.check()
    _check_keys(wish)
    before = call.node.state.load_guest(values["vmid"], call.node.name, "qemu")
    changes: dict[str, str | None] = {**wish.settings, **dict.fromkeys((*wish.delete, *wish.revert))}
    rights.check_settings(call, values["vmid"], changes, before.merged())
    rights.check_storages(
        call, {key: value for key, value in wish.settings.items() if value != before.current.values.get(key)}
    )
    rights.check_bridges(call, wish.settings)
    allocation.assert_storages(call.node, wish.settings)
    return wish


def _check_keys(wish: Wish) -> None:
    for field, keys in (("delete", wish.delete), ("revert", wish.revert)):
        for key in keys:
            if key not in options.VM_OPTIONS:
                raise ParameterError({field: f"unknown option '{key}'"})
    for key, value in wish.settings.items():
        if key.startswith("net") and key[3:].isdigit() and "model" not in parse(value, options.NETWORK_CARD):
            raise ParameterError(
                {key: "invalid format - format error\nmodel: property is missing and it is not optional\n"}
            )


def _said(call: Call, wish: Wish) -> str:
    """Return the wish as the task's log begins with it."""
    said = [f"-{key} {'<hidden>' if key == 'cipassword' else value}" for key, value in sorted(wish.settings.items())]
    if wish.delete:
        said.append(f"-delete {','.join(wish.delete)}")
    if wish.revert:
        said.append(f"-revert {','.join(wish.revert)}")
    return f"update VM {call.values['vmid']}: {' '.join(said)}"


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/config", parameters=options.CHANGE, permissions=CHANGE)
def change(call: Call) -> Any:
    """Change a machine's configuration, and answer when it is done."""
    wish = _wish(call)
    call.node.log(f"<{call.user}> {_said(call, wish)}")
    changing.change(call.node, call.values["vmid"], wish, call.node.log)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/config", parameters=options.CHANGE_LATER, permissions=CHANGE)
def change_later(call: Call) -> Any:
    """Change a machine's configuration in a task."""
    wish = _wish(call)
    node, vmid = call.node, call.values["vmid"]
    found = node.state.load_guest(vmid, node.name, "qemu")
    found.assert_unchanged(wish.digest)
    if not wish.skiplock:
        found.assert_unlocked()

    def work(task: Task) -> None:
        task.log(_said(call, wish))
        try:
            changing.change(node, vmid, wish, task.log)
        except ParameterError as error:
            words = "\n".join(f"{key}: {value}" for key, value in error.errors.items())
            raise ClusterError(f"{error.message}\n{words}") from error

    upid = call.task("qmconfig", vmid, work)
    delay = call.values.get("background_delay")
    if delay and node.tasks.wait(upid, delay):
        done = node.tasks.status(upid)
        if done.get("exitstatus") == "OK":
            return None
    return upid


@endpoint(
    "PUT",
    "/nodes/{node}/qemu/{vmid}/resize",
    parameters={
        **GUEST,
        "skiplock": SKIPLOCK,
        "disk": choice(DISKS, optional=False),
        "size": text(pattern=r"\+?\d+(\.\d+)?[KMGT]?", optional=False),
        "digest": DIGEST,
    },
    permissions=perm("/vms/{vmid}", "VM.Config.Disk"),
)
def resize(call: Call) -> Any:
    """Let a disk grow."""
    values, node = call.values, call.node
    rights.root_only(call, ["skiplock"])
    size = disks.check_resize(node, values)

    def work(task: Task) -> None:
        disks.resize(node, values["vmid"], values["disk"], size, task.log, skiplock=bool(values.get("skiplock")))

    return call.task("resize", values["vmid"], work)


@endpoint(
    "PUT",
    "/nodes/{node}/qemu/{vmid}/unlink",
    parameters={**GUEST, "idlist": text("pve-configid-list", optional=False), "force": flag()},
    permissions=perm("/vms/{vmid}", "VM.Config.Disk"),
)
def unlink(call: Call) -> Any:
    """Take disks away from a machine; with force, remove what they hold."""
    wish = Wish(delete=changing.words(call.values["idlist"]), force=bool(call.values.get("force")))
    for key in wish.delete:
        if not hardware.is_drive_key(key):
            raise ParameterError({"idlist": f"'{key}' is no disk"})
    changing.change(call.node, call.values["vmid"], wish, call.node.log)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/cloudinit", parameters=GUEST, permissions=AUDIT)
def cloud_init(call: Call) -> Any:
    """Return what cloud-init was told, and what it will be told."""
    found = call.node.state.load_guest(call.values["vmid"], call.node.name, "qemu")
    return cloudinit.pending(found)


@endpoint(
    "PUT",
    "/nodes/{node}/qemu/{vmid}/cloudinit",
    parameters=GUEST,
    permissions=perm("/vms/{vmid}", "VM.Config.Cloudinit"),
)
def regenerate(call: Call) -> Any:
    """Write the CD that cloud-init reads anew."""
    node, vmid = call.node, call.values["vmid"]
    with node.state.guest_lock(vmid, node.name, "qemu") as found:
        found.assert_unlocked()
        cloudinit.write(node, vmid, found)


@endpoint(
    "GET",
    "/nodes/{node}/qemu/{vmid}/cloudinit/dump",
    parameters={**GUEST, "type": choice("user network meta", optional=False)},
    permissions=AUDIT,
)
def dump(call: Call) -> Any:
    """Return one of the texts that cloud-init reads."""
    found = call.node.state.load_guest(call.values["vmid"], call.node.name, "qemu")
    return cloudinit.texts(found.merged(), call.values["vmid"])[call.values["type"]]


@endpoint(
    "GET",
    "/nodes/{node}/qemu/{vmid}/feature",
    parameters={**GUEST, "feature": choice("snapshot clone copy", optional=False), "snapname": SNAPSHOT_NAME},
    permissions=AUDIT,
)
def feature(call: Call) -> Any:
    """Say whether a machine can be snapshotted, cloned by links, or copied."""
    node, values = call.node, call.values
    found = node.state.load_guest(values["vmid"], node.name, "qemu")
    name = values.get("snapname")
    if name and name not in found.snapshots:
        raise ClusterError(f"snapshot '{name}' does not exist")
    has = disks.has_feature(node, found, values["feature"], name)
    return {"hasFeature": int(has), "nodes": disks.nodes_with_all(node, found)}
