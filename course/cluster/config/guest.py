"""The configuration of one guest: ``nodes/michael/qemu-server/169.conf`` or ``.../lxc/200.conf``.

A file has sections, in this order: the guest as it is, changes that wait for its next start (``[PENDING]``), what
cloud-init was last told (``[special:cloudinit]``), and one per snapshot, by name. A section is its description, as
comment lines, then its keys in order, then raw ``lxc.`` lines in the order in which they came.

Reading is forgiving: what a section cannot be or what a check does not like is left out and named in `warnings`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ...error import ClusterError
from . import files, lines

PENDING = "PENDING"
SPECIAL = ("special:cloudinit", "special:fleecing")
SNAPSHOT = re.compile(r"[a-z][a-z0-9_-]+", re.IGNORECASE)

Check = Callable[[str, str], "str | None"]


@dataclass(slots=True)
class Section:
    """One section.

    Attributes:
        values: its keys and their values, as text.
        description: the comment, each line with its end; None for none.
        raw: ``lxc.`` lines as key and value, in the order of the file.
    """

    values: dict[str, str] = field(default_factory=dict)
    description: str | None = None
    raw: list[tuple[str, str]] = field(default_factory=list)

    def text(self) -> str:
        """Write the section as Proxmox VE does, without its header.

        Raises:
            ClusterError: a value would begin another line, and with it another setting.
        """
        for key, value in (*self.values.items(), *self.raw):
            if "\n" in value or "\r" in value:
                raise ClusterError(f"value of '{key}' contains a line break")
        # Only the ends of lines that a file has: other separators are escaped like all control characters.
        comment = self.description.removesuffix("\n").split("\n") if self.description else []
        out = [f"#{lines.escape(line)}\n" for line in comment]
        out += [f"{key}: {self.values[key]}\n" for key in sorted(self.values)]
        out += [f"{key}: {value}\n" for key, value in self.raw]
        return "".join(out)

    def copy(self) -> Section:
        """Return a section of its own with the same content."""
        return copy.deepcopy(self)


@dataclass(slots=True)
class GuestConfig:
    """All sections of a guest's file.

    Attributes:
        current: the guest as it is.
        pending: changes that wait for its next start; ``delete`` there lists keys that will go.
        special: what belongs to a purpose, by the name in its header, such as ``special:cloudinit``.
        snapshots: by name.
        digest: of the file that this was read from, empty for a new guest.
        warnings: what was left out when reading, in Proxmox VE's words.
    """

    current: Section = field(default_factory=Section)
    pending: Section = field(default_factory=Section)
    special: dict[str, Section] = field(default_factory=dict)
    snapshots: dict[str, Section] = field(default_factory=dict)
    digest: str = ""
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str, *, check: Check | None = None, strict: bool = False, whose: str = "") -> GuestConfig:
        """Read a file.

        Args:
            text: the whole file.
            check: says what is wrong with a key's value, or None; without it any value is taken.
            strict: refuse what would otherwise be left out with a warning.
            whose: begins each warning, such as ``"vm 169 - "``.

        Raises:
            ClusterError: strict, and something would have to be left out.
        """
        config = cls(digest=files.digest(text.encode("utf-8", "surrogateescape")))
        reader = _Reader(config, check, whose)
        for line in lines.parse(text):
            reader.take(line)
        if strict and config.warnings:
            raise ClusterError(config.warnings[0])
        return config

    def text(self) -> str:
        """Write the file as Proxmox VE does."""
        parts = [self.current.text()]
        if self.pending.values or self.pending.description:
            parts.append(f"[{PENDING}]\n{self.pending.text()}")
        parts += [f"[{name}]\n{self.special[name].text()}" for name in sorted(self.special)]
        parts += [f"[{name}]\n{self.snapshots[name].text()}" for name in sorted(self.snapshots)]
        return "\n".join(parts)

    def assert_unlocked(self, *, unless: str | None = None) -> None:
        """Refuse while something works on the guest.

        Args:
            unless: the kind of lock that does not matter.

        Raises:
            ClusterError: the guest is locked.
        """
        lock = self.current.values.get("lock")
        if lock and lock != unless:
            raise ClusterError(f"VM is locked ({lock})")

    def assert_unchanged(self, seen: str | None) -> None:
        """Refuse when a client saw another file.

        Args:
            seen: the digest that the client sent, if it sent one.

        Raises:
            ClusterError: the file changed meanwhile.
        """
        if seen and seen != self.digest:
            raise ClusterError("checksum mismatch (file change by other user?)")

    def pending_deletes(self) -> dict[str, bool]:
        """Return the keys that go at the next start, each with whether it goes by force (``!unused0``)."""
        words = re.split(r"[,;\s]+", self.pending.values.get("delete", ""))
        return {word.removeprefix("!"): word.startswith("!") for word in words if word}

    def merged(self) -> dict[str, str]:
        """Return the values that the guest will have after its next start."""
        gone = self.pending_deletes()
        merged = {key: value for key, value in self.current.values.items() if key not in gone}
        merged.update((key, value) for key, value in self.pending.values.items() if key != "delete")
        return merged

    def apply_pending(self) -> None:
        """Let the pending changes come into force."""
        self.current.values = self.merged()
        if self.pending.description is not None:
            self.current.description = self.pending.description
        self.pending = Section()


class _Reader:
    """Puts one line after another where it belongs."""

    def __init__(self, config: GuestConfig, check: Check | None, whose: str) -> None:
        self.config = config
        self.check = check
        self.whose = whose
        self.section: Section | None = config.current
        self.seen: set[str] = set()

    def take(self, line: lines.Line) -> None:
        """Take one line."""
        match line:
            case lines.Header(name=name):
                self.section = self.begin(name)
            case lines.Comment(escaped=escaped) if self.section is not None:
                self.section.description = (self.section.description or "") + lines.unescape(escaped.rstrip()) + "\n"
            case lines.Setting(key=key, value=value) if self.section is not None:
                self.setting(self.section, key, value)
            case lines.Unknown(text=text) if self.section is not None:
                self.warn(f"unable to parse config: {text}")

    def begin(self, name: str) -> Section | None:
        """Begin a section; None for one that is left out."""
        plain = "pending" if name.upper() == PENDING else name
        if plain != "pending" and plain not in SPECIAL and not SNAPSHOT.fullmatch(plain):
            self.warn(f"skipping unknown section: '{name}'")
            return None
        if plain in self.seen:
            self.warn(f"duplicate section: {plain}")
        self.seen.add(plain)
        section = Section()
        if plain == "pending":
            self.config.pending = section
        else:
            (self.config.special if plain in SPECIAL else self.config.snapshots)[plain] = section
        return section

    def setting(self, section: Section, key: str, value: str) -> None:
        """Take a key and its value."""
        if key.startswith("lxc."):
            section.raw.append((key, value))
        elif key == "description":
            section.description = lines.unescape(value) + "\n"
        elif wrong := self.check(key, value) if self.check else None:
            self.warn(f"unable to parse value of '{key}' - {wrong.rstrip()}")
        else:
            section.values[key] = value

    def warn(self, words: str) -> None:
        """Remember what was left out."""
        self.config.warnings.append(self.whose + words)


def keys_of(config: GuestConfig, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the guest's keys that are a prefix and a number, such as net0, in the order of their numbers."""
    found = [(key, value) for key, value in config.current.values.items() if re.fullmatch(rf"{prefix}\d+", key)]
    yield from sorted(found, key=lambda item: int(item[0].removeprefix(prefix)))
