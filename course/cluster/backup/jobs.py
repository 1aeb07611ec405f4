"""Backup jobs: ``jobs.cfg``, and the scheduler that runs them at their calendar times.

Every node looks at all jobs and does what concerns its own guests. A job is due when its schedule has a time between
the node's last look and now; a node that was off does not make up for what it missed, unless the job says
``repeat-missed``. Without quorum nothing is begun.

The moment of the last run is the node's own: ``<state>/nodes/<node>/jobs/<id>``.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...error import ClusterError, ParameterError
from .. import formats
from ..calendar import CalendarEvent
from ..config import files, sections
from ..config.sections import TypedSection
from ..config.users import ROOT
from ..declaration import Parameter
from ..options import flag, text
from ..prune import parse_rules
from ..tasks import Task
from . import dump, settings

if TYPE_CHECKING:
    from ..node import Node
    from ..state import State

FILE = "jobs.cfg"
KIND = "vzdump"
TICK_S = 1.0
DAYS = "mon,tue,wed,thu,fri,sat,sun"
JOB: dict[str, Parameter] = {
    **settings.DUMP,
    "comment": text(longest=512),
    "dow": Parameter(format="pve-day-of-week-list", optional=True, requires="starttime", default=DAYS),
    "enabled": Parameter(type="boolean", optional=True, default="1"),
    "id": text("pve-configid"),
    "repeat-missed": flag(0),
    "schedule": text("pve-calendar-event", longest=128),
    "starttime": text(pattern=r"\d{1,2}:\d{1,2}"),
}
CHANGE = {
    **JOB,
    "dow": replace(JOB["dow"], default=None),
    "id": Parameter(max_length=50),
    "delete": text("pve-configid-list"),
}
_NUMBERS = {name for name, declared in JOB.items() if declared.type in ("boolean", "integer")}


def jobs(state: State) -> dict[str, TypedSection]:
    """Return the backup jobs by their ids; for reading only."""
    found = state.parsed(FILE, sections.parse)
    return {name: section for name, section in found.items() if section.kind == KIND}


def job(state: State, name: str) -> TypedSection:
    """Return a job.

    Raises:
        ParameterError: there is none of that name.
    """
    found = jobs(state).get(name)
    if found is None:
        raise ParameterError({"id": f"No such job '{name}'"})
    return found


@contextlib.contextmanager
def changing(state: State) -> Iterator[dict[str, TypedSection]]:
    """Change ``jobs.cfg``: what the block leaves in the sections is written."""
    with state.lock("file-jobs_cfg"):
        found = sections.parse(state.read(FILE), whose=FILE)
        yield found
        state.write(FILE, sections.render(found.values(), flags=()))


def create(state: State, values: Mapping[str, Any]) -> str:
    """Make a job; return its id.

    Raises:
        ParameterError: something is missing or contradictory.
        ClusterError: the id is taken.
    """
    asked = dict(values)
    name = str(asked.pop("id", "") or f"backup-{secrets.token_hex(4)}-{secrets.token_hex(2)}")
    with changing(state) as found:
        if name in found:
            raise ClusterError(f"Job '{name}' already exists")
        section = TypedSection(KIND, name, {"enabled": "1"})
        _take(section, asked)
        if "schedule" not in section.values:
            raise ParameterError({"schedule": "property is missing and it is not optional"})
        _check(section)
        found[name] = section
    return name


def change(state: State, name: str, values: Mapping[str, Any], deleted: str) -> None:
    """Change a job.

    Raises:
        ParameterError: there is none, or the result would make no sense.
    """
    job(state, name)
    with changing(state) as found:
        section = found[name]
        for key in formats.split_list(deleted):
            if key not in JOB:
                raise ParameterError({"delete": f"unknown option '{key}'"})
            section.values.pop(key, None)
        for key in ("all", "vmid", "pool"):
            if values.get(key):
                for other in {"all", "vmid", "pool"} - {key}:
                    section.values.pop(other, None)
        _take(section, values)
        _check(section)


def remove(state: State, name: str) -> None:
    """Remove a job.

    Raises:
        ParameterError: there is none.
    """
    job(state, name)
    with changing(state) as found:
        del found[name]


def _take(section: TypedSection, values: Mapping[str, Any]) -> None:
    asked = dict(values)
    start, days = asked.pop("starttime", None), asked.pop("dow", DAYS)
    if start is not None:
        if "schedule" in asked:
            raise ParameterError({"starttime": "'starttime' and 'schedule' cannot both be set"})
        section.values["schedule"] = start if days == DAYS else f"{days} {start}"
    for key, value in asked.items():
        words = [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
        section.values[key] = ",".join(words)


def _check(section: TypedSection) -> None:
    values = section.values
    if not any(values.get(key, "0") != "0" for key in ("all", "vmid", "pool")):
        raise ParameterError({"vmid": "property is missing and it is not optional"})
    if "prune-backups" in values:
        parse_rules(values["prune-backups"])


def record(section: TypedSection, now: float) -> dict[str, Any]:
    """Return a job as the API answers it."""
    entry: dict[str, Any] = {"id": section.name, "type": KIND}
    for key, value in section.values.items():
        entry[key] = int(value) if key in _NUMBERS and value.isdigit() else value
    if "prune-backups" in section.values:
        entry["prune-backups"] = dict(part.partition("=")[::2] for part in section.values["prune-backups"].split(","))
    if section.flag("enabled", default=True):
        following = CalendarEvent.parse(section.values["schedule"]).next_run(int(now), zone())
        if following is not None:
            entry["next-run"] = following
    return entry


def zone() -> datetime.tzinfo:
    """Return the node's time zone."""
    found = datetime.datetime.now().astimezone().tzinfo
    assert found is not None
    return found


def asked_of(section: TypedSection) -> dict[str, Any]:
    """Return a job's values as ``vzdump`` takes them."""
    own = ("schedule", "enabled", "comment", "repeat-missed", "id")
    return {
        key: int(value) if key in _NUMBERS and re.fullmatch(r"\d+", value) else value
        for key, value in section.values.items()
        if key not in own
    }


class Scheduler:
    """Runs the jobs of one node.

    Args:
        node: whose guests they concern.
        clock: says how late it is, in seconds since 1970.
    """

    def __init__(self, node: Node, clock: Callable[[], float] = time.time) -> None:
        self._node = node
        self._clock = clock
        self._seen: dict[str, tuple[str, int]] = {}

    def tick(self) -> list[str]:
        """Begin what is due; return the UPIDs."""
        now = int(self._clock())
        if not self._node.members.quorate():
            return []
        begun = []
        for section in jobs(self._node.state).values():
            if section.flag("enabled", default=True) and self._due(section, now):
                upid = self._begin(section)
                if upid:
                    begun.append(upid)
        return begun

    def _due(self, section: TypedSection, now: int) -> bool:
        """Say whether a job's time has come since the last look; a changed schedule counts from now."""
        schedule = section.values["schedule"]
        known = self._seen.get(section.name)
        if known is None or known[0] != schedule:
            before = self._last_run(section.name) if known is None and section.flag("repeat-missed") else None
            known = (schedule, now if before is None else before)
            self._seen[section.name] = known
        following = CalendarEvent.parse(schedule).next_run(known[1], zone())
        if following is None or following > now:
            return False
        self._seen[section.name] = (schedule, now)
        self._remember(section.name, now)
        return True

    def _begin(self, section: TypedSection) -> str | None:
        node, values = self._node, asked_of(section)
        if values.get("node") not in (None, node.name):
            return None
        try:
            vmids = settings.guests(node, values)
            if not vmids:
                return None
            plan = settings.plan(node, values, vmids)
        except ClusterError as error:
            node.log(f"ERROR: job '{section.name}': {error}", "err", "pvescheduler")
            return None

        def work(task: Task) -> None:
            dump.run(node, task, vmids, plan)

        return node.tasks.start("vzdump", str(vmids[0]) if len(vmids) == 1 else "", ROOT, work)

    def _last_run(self, name: str) -> int | None:
        text = files.read(self._node.disk / "jobs" / name)
        return int(text) if text.strip().isdigit() else None

    def _remember(self, name: str, moment: int) -> None:
        files.write(self._node.disk / "jobs" / name, f"{moment}\n")
