"""Which backups a retention keeps.

Backups are taken group by group (kind of guest and VMID), from the newest to the oldest, once per rule. ``keep-last``
keeps that many; each other rule divides time into hours, days, weeks, months or years of the calendar and keeps the
newest backup of that many periods. A period in which an earlier rule has kept a backup already is passed over and costs
nothing, so that the rules reach further back together; its other backups may still be kept by a later rule. Those that
lose to a newer one of the same period under the same rule are out for good.

The time of a backup is the one in its file name, which is the node's local time: no time zone is needed, and a copied
file keeps its place. A file that has another name is never removed.

Source: the retention chapter of Proxmox VE's documentation; pve-storage's regression vectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..error import ParameterError

Mark = Literal["keep", "remove", "protected", "renamed"]

STANDARD = re.compile(
    r"vzdump-(?P<type>lxc|openvz|qemu)-(?P<vmid>\d+)-(?P<time>\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d)\.(?:tgz|(?:tar|vma)(?:\.\w+)?)"
)
KIND = re.compile(r"vzdump-(lxc|openvz|qemu)-")

PERIODS: dict[str, Callable[[datetime], object]] = {
    "keep-last": lambda time: time,
    "keep-hourly": lambda time: (time.date(), time.hour),
    "keep-daily": lambda time: time.date(),
    "keep-weekly": lambda time: time.isocalendar()[:2],
    "keep-monthly": lambda time: (time.year, time.month),
    "keep-yearly": lambda time: time.year,
}
"""The rules in the order in which they are applied, and what they tell two backups apart by."""


@dataclass(slots=True)
class Backup:
    """One archive and what is to become of it.

    Attributes:
        volid: its volume id.
        ctime: when it was made, in seconds since 1970, as the storage says.
        vmid: whose it is, if anybody's.
        type: qemu, lxc, openvz or unknown.
        time: the local time in its name; None for another name.
        mark: the verdict.
    """

    volid: str
    ctime: int
    vmid: int | None
    type: str
    time: datetime | None
    mark: Mark

    def record(self) -> dict[str, Any]:
        """Return the entry of the API's answer."""
        entry: dict[str, Any] = {"volid": self.volid, "ctime": self.ctime, "type": self.type, "mark": self.mark}
        if self.vmid is not None:
            entry["vmid"] = self.vmid
        return entry


def parse_rules(text: str) -> dict[str, int]:
    """Read ``keep-last=3,keep-weekly=2``.

    Raises:
        ParameterError: a rule is unknown or its number is none.
    """
    rules: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        if (name == "keep-all" and number in ("0", "1")) or (name in PERIODS and re.fullmatch(r"\d+", number)):
            rules[name] = int(number)
        else:
            raise ParameterError({"prune-backups": f"invalid format - format error\n{part}: invalid retention\n"})
    return rules


def prune(
    volumes: Iterable[Mapping[str, Any]], rules: Mapping[str, int], *, vmid: int | None = None, type: str | None = None
) -> list[Backup]:
    """Say what becomes of each backup.

    Args:
        volumes: entries of a storage's list: volid, ctime, and where they are known vmid and protected.
        rules: how many to keep, by rule; without any number above zero all are kept.
        vmid: look at this guest's backups only.
        type: look at backups of this kind only.

    Returns:
        The backups that were looked at, by volume id.
    """
    found = sorted((_backup(volume) for volume in volumes), key=lambda backup: backup.volid)
    found = [b for b in found if (vmid is None or b.vmid == vmid) and (type is None or b.type == type)]
    numbers = {name: rules.get(name, 0) for name in PERIODS}
    if rules.get("keep-all") or not any(numbers.values()):
        numbers = {"keep-last": len(found)}
    groups: dict[tuple[str, int | None], list[Backup]] = {}
    for backup in found:
        if backup.mark == "remove":
            groups.setdefault((backup.type, backup.vmid), []).append(backup)
    for members in groups.values():
        group = sorted(members, key=lambda backup: backup.time or datetime.min, reverse=True)
        for name, number in numbers.items():
            group = _keep(group, PERIODS[name], number)
    return found


def _keep(group: list[Backup], period_of: Callable[[datetime], object], number: int) -> list[Backup]:
    """Apply one rule to a group, the newest first, and return what the next rule has to look at."""
    covered = {period_of(backup.time) for backup in group if backup.mark == "keep" and backup.time}
    mine: set[object] = set()
    dropped: set[str] = set()
    for backup in group:
        period = period_of(backup.time) if backup.time else None
        if backup.mark == "keep" or period in covered:
            continue
        if period in mine:
            dropped.add(backup.volid)
        elif len(mine) < number:
            mine.add(period)
            backup.mark = "keep"
        else:
            break
    return [backup for backup in group if backup.volid not in dropped]


def _backup(volume: Mapping[str, Any]) -> Backup:
    """Read an entry of a storage's list; what may go is marked so, until a rule keeps it."""
    name = str(volume["volid"]).rpartition("/")[2]
    standard, kind = STANDARD.fullmatch(name), KIND.match(name)
    vmid = int(volume["vmid"]) if "vmid" in volume else None
    time = None
    if standard:
        vmid = int(standard["vmid"])
        time = _time(standard["time"])
    mark: Mark = "protected" if volume.get("protected") else "remove" if time else "renamed"
    return Backup(str(volume["volid"]), int(volume["ctime"]), vmid, kind[1] if kind else "unknown", time, mark)


def _time(text: str) -> datetime | None:
    """Read the time in a file name; None for the 31st of February."""
    try:
        return datetime.strptime(text, "%Y_%m_%d-%H_%M_%S")
    except ValueError:
        return None
