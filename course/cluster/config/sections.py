"""Files of typed sections: ``storage.cfg``, ``ha/resources.cfg``, ``ha/groups.cfg``, ``jobs.cfg``, ``domains.cfg``.

::

    dir: local
        path /var/lib/vz
        content iso,vztmpl,backup
        shared

A header is a kind and a name; below it, indented, a key and its value, or a key alone for a boolean that is set.
Sections keep the order of the file, and keys the order in which they were set.

Source: storage.cfg as documented in the Proxmox VE administration guide; HA files in pve-ha-manager's test vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...error import ClusterError

_HEADER = re.compile(r"(?P<kind>[a-z0-9][a-z0-9-]*):\s*(?P<name>\S+)\s*", re.IGNORECASE)
_ENTRY = re.compile(r"\s+(?P<key>\S+)(?:\s+(?P<value>.*?))?\s*")


@dataclass(slots=True)
class TypedSection:
    """One section.

    Attributes:
        kind: such as ``dir`` or ``group``.
        name: such as ``local``.
        values: keys and values as text; ``"1"`` for a key that stands alone.
    """

    kind: str
    name: str
    values: dict[str, str] = field(default_factory=dict)

    def words(self, key: str) -> list[str]:
        """Return a value that is a list, such as ``content``."""
        return [word for word in re.split(r"[,;\s]+", self.values.get(key, "")) if word]

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a value that is a boolean."""
        return self.values.get(key, str(int(default))).lower() in ("1", "on", "yes", "true")


def parse(text: str, *, whose: str = "file") -> dict[str, TypedSection]:
    """Read a file.

    Args:
        text: the whole file.
        whose: names the file in errors.

    Returns:
        The sections by name, in the order of the file. A name that comes again replaces the earlier section.

    Raises:
        ClusterError: a line is neither a header nor an entry of a section.
    """
    sections: dict[str, TypedSection] = {}
    section: TypedSection | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if found := _HEADER.fullmatch(line):
            section = TypedSection(found["kind"], found["name"])
            sections.pop(section.name, None)
            sections[section.name] = section
        elif section is not None and (found := _ENTRY.fullmatch(line)):
            section.values[found["key"]] = found["value"] if found["value"] is not None else "1"
        else:
            raise ClusterError(f"{whose}: line {number}: unable to parse '{line}'")
    return sections


def render(sections: Iterable[TypedSection], *, flags: Iterable[str] = ("shared", "disable", "restricted")) -> str:
    """Write a file.

    Args:
        sections: in the order in which they are to stand.
        flags: keys that stand alone when they are set; ``nofailback 1`` and others keep their number.
    """
    alone = set(flags)
    parts = []
    for section in sections:
        lines = [f"{section.kind}: {section.name}\n"]
        for key, value in section.values.items():
            lines.append(f"\t{key}\n" if key in alone and value == "1" else f"\t{key} {_one_line(value)}\n")
        parts.append("".join(lines))
    return "\n".join(parts)


def _one_line(value: str) -> str:
    """Refuse what would begin another line, and with it another entry.

    Raises:
        ClusterError: the value holds the end of a line.
    """
    if "\n" in value or "\r" in value:
        raise ClusterError(f"value {value!r} contains a line break")
    return value
