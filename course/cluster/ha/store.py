"""The files of high availability that all nodes share, below ``ha/``, and each node's ``lrm_status``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...error import ClusterError
from ..config import sections
from ..config.sections import TypedSection
from ..state import State
from .placement import Group
from .states import Resource, Wish

RESOURCES, GROUPS, COMMANDS = "ha/resources.cfg", "ha/groups.cfg", "ha/crm_commands"
MANAGER = "ha/manager_status"
DOMAIN = "domain-ha"
KINDS = {"qemu": "vm", "lxc": "ct"}


def local_status(node: str) -> str:
    """Return where a node's local resource manager writes."""
    return f"nodes/{node}/lrm_status"


def sid_of(text: str, state: State) -> str:
    """Return ``vm:169`` for what may be only a number.

    Raises:
        ClusterError: there is no such guest.
    """
    if not text.isdecimal():
        return text
    place = state.guests().get(int(text))
    if place is None:
        raise ClusterError(f"unable to detect resource type for '{text}'")
    return f"{KINDS[place.kind]}:{text}"


def vmid_of(sid: str) -> int:
    """Return the number of ``vm:169``."""
    return int(sid.partition(":")[2])


class Store:
    """The shared files, read and changed.

    Args:
        state: the cluster's files as this node sees them.
    """

    def __init__(self, state: State) -> None:
        self.state = state

    # Configuration

    def sections(self, relative: str) -> dict[str, TypedSection]:
        """Return a configuration's sections by service or group; for reading only."""
        found = self.state.parsed(relative, sections.parse)
        if relative == GROUPS:
            return found
        return {f"{section.kind}:{section.name}": section for section in found.values()}

    @contextlib.contextmanager
    def changing(self, relative: str) -> Iterator[dict[str, TypedSection]]:
        """Lock, read, and write back what the caller changed; keys are services or groups.

        Raises:
            ClusterError: the lock is not to be had, or there is no quorum.
        """
        with self.state.lock(DOMAIN):
            self.state.assert_quorum()
            parsed = sections.parse(self.state.read(relative), whose=relative)
            entries = dict(parsed) if relative == GROUPS else {f"{s.kind}:{s.name}": s for s in parsed.values()}
            yield entries
            self.state.write(relative, sections.render(entries.values(), flags=()))

    def resources(self) -> dict[str, Resource]:
        """Return the managed guests that exist."""
        guests = self.state.guests()
        found = {}
        for sid, section in self.sections(RESOURCES).items():
            place = guests.get(vmid_of(sid))
            if place is not None:
                found[sid] = _resource(section, place.node)
        return found

    def groups(self) -> dict[str, Group]:
        """Return the groups."""
        return {
            name: Group.parse(
                section.values.get("nodes", ""),
                restricted=section.flag("restricted"),
                nofailback=section.flag("nofailback"),
            )
            for name, section in self.sections(GROUPS).items()
        }

    def wish(self, sid: str, state: Wish) -> None:
        """Say what somebody wants of a service."""
        with self.changing(RESOURCES) as entries:
            if sid in entries:
                entries[sid].values["state"] = str(state)

    def remove(self, sid: str) -> None:
        """Forget a service; none is no error."""
        if sid in self.sections(RESOURCES):
            with self.changing(RESOURCES) as entries:
                entries.pop(sid, None)

    # Commands

    def command(self, line: str) -> None:
        """Ask something of the manager."""
        with self.state.lock(DOMAIN):
            self.state.write(COMMANDS, self.state.read(COMMANDS) + line + "\n")

    def take_commands(self) -> list[str]:
        """Return, and forget, what was asked."""
        if not self.state.read(COMMANDS):
            return []
        with self.state.lock(DOMAIN):
            lines = self.state.read(COMMANDS).splitlines()
            self.state.write(COMMANDS, "")
        return lines

    # Status

    def status(self, relative: str) -> dict[str, Any]:
        """Return a status; an empty one where there is none yet, or where it cannot be read."""
        try:
            found = json.loads(self.state.read(relative) or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def keep_status(self, relative: str, document: Mapping[str, Any], *, fresh_s: int = 10) -> None:
        """Write a status, unless only its time is new, and not by much."""
        old = self.status(relative)
        aged = int(document.get("timestamp", 0)) - int(old.get("timestamp", 0))
        if aged >= fresh_s or {**old, "timestamp": 0} != {**json.loads(json.dumps(document)), "timestamp": 0}:
            self.state.write(relative, json.dumps(document, sort_keys=True) + "\n")

    # Guests

    def move(self, sid: str, target: str) -> None:
        """Give a guest's configuration to another node."""
        self.state.move_guest(vmid_of(sid), target)

    def unlock(self, sid: str, kinds: Collection[str]) -> str | None:
        """Take one of these locks off a guest; return which."""
        place = self.state.guest(vmid_of(sid))
        config = self.state.load_guest(place.vmid)
        lock = config.current.values.get("lock")
        if lock not in kinds:
            return None
        del config.current.values["lock"]
        self.state.save_guest(place.node, place.kind, place.vmid, config)
        return lock


def _resource(section: TypedSection, node: str) -> Resource:
    wish = section.values.get("state", "started")
    return Resource(
        node=node,
        state=Wish.STARTED if wish == "enabled" else Wish(wish),
        group=section.values.get("group", ""),
        max_restart=int(section.values.get("max_restart", 1)),
        max_relocate=int(section.values.get("max_relocate", 1)),
    )
