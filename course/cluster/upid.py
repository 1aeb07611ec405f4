r"""UPIDs, the names of tasks: which node, which worker process, when, what, on what, for whom.

::

    UPID:michael:00000A3F:000122B1:65F0A1C2:qmstart:169:alice@pve:
         node    pid      pstart   start    type    id  user or user!token

Numbers are hexadecimal with at least eight digits: the worker's process id, the tick at which that process started
(field 22 of ``/proc/pid/stat``, which tells it from a later process of the same id), and seconds since 1970. A task
without an object has an empty id; characters that a file name or the format itself cannot carry are escaped as
``\\xHH``, as systemd does.

Source: recorded UPIDs of Proxmox VE 6.2 and 7.4; the schema's ``pve-task`` descriptions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..error import ClusterError

PATTERN = re.compile(
    r"UPID:(?P<node>[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?):(?P<pid>[0-9A-Fa-f]{8}):(?P<pstart>[0-9A-Fa-f]{8,9}):"
    r"(?P<starttime>[0-9A-Fa-f]{8}):(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)
PLAIN = re.compile(r"[a-zA-Z0-9_.@/!-]")
SUBFOLDERS = 16


@dataclass(frozen=True, slots=True)
class Upid:
    """A task's name, taken apart.

    Attributes:
        node: where the worker runs.
        pid: its process id.
        pstart: when that process started, in clock ticks since boot.
        starttime: when the task started, in seconds since 1970.
        type: such as ``qmstart``.
        id: what it is about, such as ``"169"``; empty for none.
        user: ``user@realm`` or, for a token, ``user@realm!token``.
    """

    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str

    @classmethod
    def parse(cls, text: str) -> Upid:
        """Take a UPID apart.

        Raises:
            ClusterError: it is not one; the words are Proxmox VE's.
        """
        found = PATTERN.fullmatch(text)
        if found is None:
            raise ClusterError(f"unable to parse worker upid '{text}'")
        return cls(
            node=found["node"],
            pid=int(found["pid"], 16),
            pstart=int(found["pstart"], 16),
            starttime=int(found["starttime"], 16),
            type=found["type"],
            id=unescape(found["id"]),
            user=found["user"],
        )

    def __str__(self) -> str:
        return (
            f"UPID:{self.node}:{self.pid:08X}:{self.pstart:08X}:{self.starttime:08X}:"
            f"{self.type}:{escape(self.id)}:{self.user}:"
        )

    @property
    def userid(self) -> str:
        """The user without the token."""
        return self.user.partition("!")[0]

    @property
    def tokenid(self) -> str | None:
        """The token's name, or None when the user came with a ticket."""
        return self.user.partition("!")[2] or None

    @property
    def subfolder(self) -> str:
        """The folder of the task's log, one of sixteen: the last hexadecimal digit of the start."""
        return f"{self.starttime % SUBFOLDERS:X}"

    def record(self) -> dict[str, str | int]:
        """Return the fields that each answer about a task begins with."""
        fields: dict[str, str | int] = {
            "upid": str(self),
            "node": self.node,
            "pid": self.pid,
            "pstart": self.pstart,
            "starttime": self.starttime,
            "type": self.type,
            "id": self.id,
            "user": self.userid,
        }
        if self.tokenid:
            fields["tokenid"] = self.tokenid
        return fields


def escape(text: str) -> str:
    r"""Write each byte that a UPID cannot carry as ``\xHH``."""
    return "".join(c if PLAIN.match(c) else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())
    return raw.decode(errors="replace")
