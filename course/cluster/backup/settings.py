"""What can be said about a backup: the parameters of ``vzdump``, which backup jobs keep in ``jobs.cfg`` too."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, ParameterError
from .. import formats
from ..declaration import Parameter
from ..options import choice, flag, number, text
from ..prune import parse_rules
from ..storage import DirectoryStorage, storage_of
from . import packing

if TYPE_CHECKING:
    from ..node import Node

ENDINGS = {"qemu": "vma", "lxc": "tar"}
DUMP: dict[str, Parameter] = {
    "all": flag(0),
    "bwlimit": number(0, default=0),
    "compress": choice("0 1 gzip lzo zstd", "0"),
    "dumpdir": text(),
    "exclude": text("pve-vmid-list"),
    "exclude-path": Parameter(type="array", optional=True, items=Parameter()),
    "ionice": number(0, 8, 7),
    "lockwait": number(0, default=180),
    "mailnotification": choice("always failure", "always"),
    "mailto": text("email-or-username-list"),
    "maxfiles": number(1),
    "mode": choice("snapshot suspend stop", "snapshot"),
    "node": text("pve-node"),
    "notes-template": replace(text(longest=1024), requires="storage"),
    "notification-policy": choice("always failure never", "always"),
    "notification-target": text("pve-configid"),
    "performance": text("backup-performance"),
    "pigz": number(default=0),
    "pool": text(),
    "protected": Parameter(type="boolean", optional=True, requires="storage"),
    "prune-backups": text("prune-backups", default="keep-all=1"),
    "quiet": flag(0),
    "remove": flag(1),
    "script": text(),
    "stdexcludes": flag(1),
    "stop": flag(0),
    "stopwait": number(0, default=10),
    "storage": text("pve-storage-id"),
    "tmpdir": text(),
    "vmid": text("pve-vmid-list"),
    "zstd": number(default=1),
}
ROOT_ONLY = ("tmpdir", "dumpdir", "script")
_NOT_HERE = ("dumpdir", "tmpdir", "script")


@dataclass(frozen=True, slots=True)
class Plan:
    """A backup job.

    Attributes:
        storage: where archives go.
        mode: snapshot, suspend or stop.
        packing: ending of the compression.
        rules: retention; None to keep all.
        notes: template of the archives' notes.
        protected: whether archives are protected from the beginning.
        stopwait_s: how long a guest may take to shut down.
        lockwait_s: how long to wait for another job of the node.
        words: the command that this would be.
    """

    storage: DirectoryStorage
    mode: str
    packing: str
    rules: dict[str, int] | None
    notes: str
    protected: bool
    stopwait_s: float
    lockwait_s: float
    words: str


def plan(node: Node, values: Mapping[str, Any], vmids: list[int]) -> Plan:
    """Return the job that parameters describe.

    Raises:
        ParameterError: a value cannot be meant.
        ClusterError: the storage takes no backups, or this lab cannot do what is asked for.
    """
    for key in _NOT_HERE:
        if values.get(key):
            raise ParameterError({key: "not supported by this lab"})
    storage = storage_of(node, str(values.get("storage") or "local"))
    if "backup" not in storage.content or not isinstance(storage, DirectoryStorage):
        raise ClusterError(f"can't use storage '{storage.name}' for backups - wrong content type")
    rules = None
    if values.get("remove", 1):
        asked = values.get("prune-backups") or storage.section.values.get("prune-backups")
        if not asked and values.get("maxfiles"):
            asked = f"keep-last={values['maxfiles']}"
        found = parse_rules(str(asked)) if asked else {}
        rules = found if found and not found.get("keep-all") else None
    return Plan(
        storage,
        str(values.get("mode", "snapshot")),
        packing.assert_available(str(values.get("compress", "0"))),
        rules,
        str(values.get("notes-template", "")),
        bool(values.get("protected")),
        60.0 * int(values.get("stopwait", 10)),
        60.0 * int(values.get("lockwait", 180)),
        command(values, vmids),
    )


def command(values: Mapping[str, Any], vmids: list[int]) -> str:
    """Return what would be typed for the same job: ``vzdump 169 --mode snapshot --storage local``."""
    words = ["vzdump", *(map(str, vmids) if not values.get("all") else ())]
    for key in sorted(set(values) - {"vmid", "stdout"}):
        words += [f"--{key}", shlex.quote(str(values[key]))]
    return " ".join(words)


def guests(node: Node, values: Mapping[str, Any]) -> list[int]:
    """Return the guests of this node that a job means.

    Raises:
        ParameterError: it names none, or in two ways.
        ClusterError: a pool does not exist.
    """
    chosen = [key for key in ("all", "vmid", "pool") if values.get(key)]
    if values.get("exclude") and "all" not in chosen and "pool" not in chosen:
        chosen.append("all")
    if not chosen:
        raise ParameterError({"vmid": "property is missing and it is not optional"})
    if len(chosen) > 1:
        raise ParameterError({"all": "option conflicts with option 'vmid'"})
    everybody = node.state.guests()
    excluded = {int(word) for word in formats.split_list(str(values.get("exclude", "")))}
    if chosen[0] == "vmid":
        found = {int(word) for word in formats.split_list(str(values["vmid"]))}
        missing = found - everybody.keys()
        elsewhere = {vmid for vmid in found - missing if everybody[vmid].node != node.name}
        return sorted(found - elsewhere)
    if chosen[0] == "pool":
        pools = node.state.users().pools
        if values["pool"] not in pools:
            raise ClusterError(f"pool '{values['pool']}' does not exist")
        found = set(pools[values["pool"]].vms) & everybody.keys()
    else:
        found = set(everybody)
    return sorted(vmid for vmid in found - excluded if everybody[vmid].node == node.name)


def notes_of(template: str, *, cluster: str, guest: str, node: str, vmid: int) -> str:
    r"""Return an archive's notes: the variables of a template replaced, ``\n`` as the end of a line.

    Raises:
        ClusterError: the template has a variable that nobody knows.
    """
    values = {"cluster": cluster, "guestname": guest, "node": node, "vmid": str(vmid)}
    found = template.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
    for name, value in values.items():
        found = found.replace("{{" + name + "}}", value)
    if "{{" in found and "}}" in found:
        unknown = found.partition("{{")[2].partition("}}")[0]
        raise ClusterError(f"unexpected variable name '{unknown}' in notes-template")
    return found
