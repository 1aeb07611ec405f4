"""The cluster that a lesson speaks with: a lab of its own, or a real one that the environment names.

::

    LAB_PVE_HOST         address, or address:port; without it a lab cluster is started
    LAB_PVE_USER         such as student@pve
    LAB_PVE_TOKEN_NAME   name of an API token of this user
    LAB_PVE_TOKEN_VALUE  its secret
    LAB_PVE_VMIDS        the numbers that belong to the student, such as 5000-5009
    LAB_PVE_POOL         the pool that their guests belong to
    LAB_PVE_STORAGE      a shared storage for disks, CD images and backups (default: shared)
    LAB_PVE_CA           file with the certificate of the cluster's authority (default: the system's authorities)

On a real cluster only the numbers given are used, and of these only those that were free at the beginning; nothing
else is changed, and what the lesson has made is removed at its end. The secret is never shown.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..error import ClusterError, UsageError
from .lab import Cluster

_NEEDED = ("LAB_PVE_USER", "LAB_PVE_TOKEN_NAME", "LAB_PVE_TOKEN_VALUE", "LAB_PVE_VMIDS", "LAB_PVE_POOL")
_LAB_VMIDS = (169, 170, 171)
_GUESTS = 3
_TASK_S = 120.0
# Short enough for a lesson, long enough for a busy machine.
_SETTINGS: dict[str, Any] = {"auth_delay_s": 0.5, "status_every_s": 1.0, "ha_tick_s": 0.5, "fence_delay_s": 2.0}


class Access(dict[str, Any]):
    """Arguments of ProxmoxAPI; its secret is not shown."""

    def __repr__(self) -> str:
        return repr({key: "<redacted>" if key in ("token_value", "password") else value for key, value in self.items()})

    __str__ = __repr__


class Classroom:
    """A cluster to learn on; `open_classroom` makes one.

    Attributes:
        access: for ``ProxmoxAPI(**access)``.
        real: whether it is a real cluster.
        nodes: names of three nodes (the same ones again where there are fewer).
        vmids: numbers that the lesson may use.
        pool: the pool that guests belong to; empty in the lab.
        storage: a shared storage.
        lab: the lab cluster, or None.
    """

    def __init__(
        self, access: Mapping[str, Any], vmids: Sequence[int], *, pool: str, storage: str, lab: Cluster | None
    ) -> None:
        from proxmoxer import ProxmoxAPI  # noqa: PLC0415 - and requests with it

        self.access, self.lab, self.real = Access(access), lab, lab is None
        self.pool, self.storage = pool, storage
        self.api = ProxmoxAPI(**self.access)
        found = sorted(str(node["node"]) for node in self.api.nodes.get() if node["status"] == "online")
        if lab is not None:
            found = list(lab.nodes)
        self.nodes = [found[at % len(found)] for at in range(3)]
        taken = {int(guest["vmid"]) for guest in self.api.cluster.resources.get(type="vm")}
        self.vmids = [vmid for vmid in vmids if vmid not in taken]
        if len(self.vmids) < _GUESTS:
            raise UsageError(f"of the numbers {list(vmids)} only {self.vmids} are free; the lesson needs {_GUESTS}")

    def __repr__(self) -> str:
        where = "a real cluster" if self.real else "the lab cluster"
        return f"<Classroom: {where}, nodes {', '.join(dict.fromkeys(self.nodes))}>"

    @property
    def iso(self) -> str:
        """The volume of the CD that counts."""
        return f"{self.storage}:iso/counter.iso"

    def place_iso(self) -> str:
        """Upload the CD that counts, unless it is there; returns its volume."""
        from ..guest import bootcounter  # noqa: PLC0415

        storage = self.api.nodes(self.nodes[0]).storage(self.storage)
        if self.iso not in [one["volid"] for one in storage.content.get(content="iso")]:
            with bootcounter.cd().open("rb") as image:
                self._finish(storage.upload.post(content="iso", filename=image))
        return self.iso

    def close(self) -> None:
        """Remove what the lesson has made, and end the lab."""
        lab, self.lab = self.lab, None
        if lab is not None:
            lab.close()
        elif self.real:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self.clear()

    def clear(self) -> None:
        """Stop and destroy the guests with this lesson's numbers; no others."""
        for guest in self.api.cluster.resources.get(type="vm"):
            if int(guest["vmid"]) in self.vmids and (not self.pool or guest.get("pool") == self.pool):
                path = self.api.nodes(guest["node"])(f"{guest['type']}/{guest['vmid']}")
                if guest["status"] == "running":
                    self._finish(path.status.stop.post())
                self._finish(path.delete(purge=1))

    def _finish(self, upid: str) -> None:
        task, end = self.api.nodes(upid.split(":")[1]).tasks(upid), time.monotonic() + _TASK_S
        while (status := task.status.get())["status"] != "stopped":
            if time.monotonic() > end:
                raise ClusterError(f"{upid} has not ended within {_TASK_S:.0f} s")
            time.sleep(0.05)
        if status["exitstatus"] != "OK":
            raise ClusterError(status["exitstatus"])


def open_classroom(environ: Mapping[str, str] = os.environ) -> Classroom:
    """Connect with the cluster that the environment names, or start a lab.

    Raises:
        UsageError: the environment names a cluster, and not all that is needed.
        ClusterError: the lab does not start.
    """
    if environ.get("LAB_PVE_HOST"):
        return _real(environ)
    lab = Cluster(**_SETTINGS).start()
    try:
        made = lab.api().access.users("root@pam").token("lesson").post(privsep=0)
        host, port = lab.address(lab.nodes[2])
        access = {"host": host, "port": port, "verify_ssl": lab.ca, "timeout": 30}
        return Classroom(access | _token("root@pam", "lesson", made["value"]), _LAB_VMIDS, **_lab(lab))
    except BaseException:
        lab.close()
        raise


def _lab(lab: Cluster) -> dict[str, Any]:
    return {"pool": "", "storage": "shared", "lab": lab}


def _token(user: str, name: str, value: str) -> dict[str, str]:
    return {"user": user, "token_name": name, "token_value": value}


def _real(environ: Mapping[str, str]) -> Classroom:
    missing = [name for name in _NEEDED if not environ.get(name)]
    if missing:
        raise UsageError(f"LAB_PVE_HOST names a real cluster; {', '.join(missing)} must be set too")
    user, name, value, vmids, pool = (environ[key] for key in _NEEDED)
    access = {"host": environ["LAB_PVE_HOST"], "verify_ssl": environ.get("LAB_PVE_CA") or True, "timeout": 30}
    storage = environ.get("LAB_PVE_STORAGE", "shared")
    return Classroom(access | _token(user, name, value), numbers(vmids), pool=pool, storage=storage, lab=None)


def numbers(text: str) -> list[int]:
    """Read VMIDs such as ``"5000-5009"`` or ``"5000,5003"``.

    Raises:
        UsageError: it is something else, or a number below 100.
    """
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        found = []
    if not found or min(found) < 100:
        raise UsageError(f"LAB_PVE_VMIDS is {text!r}; expected numbers from 100 on, such as 5000-5009")
    return found
