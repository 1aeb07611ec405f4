"""The cluster's files: where they are, how they are read quickly and written safely.

::

    <root>/pve/                      /etc/pve of all nodes
        nodes/michael/qemu-server/169.conf, nodes/trevor/lxc/200.conf
        storage.cfg user.cfg datacenter.cfg ha/ firewall/ priv/ ...
    <root>/nodes/michael/            the node's own disk: vz/ lvm/ tasks/ log/
    <root>/shared/                   the storage that all share
    <root>/locks/                    files that are locked, never read
    <run>/michael/                   the node's sockets; a short path, for a socket's is limited to 107 bytes

Three node processes and their threads write here. Whoever changes a file holds the lock for it; a file is replaced in
one step and is on the disk before anybody is told. What is read is kept until the file changes; a file that changed
just now is read again, for two changes may bear the same time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..error import ClusterError, ParameterError, PermissionRefused
from .config import files, sections
from .config.guest import GuestConfig
from .config.sections import TypedSection
from .config.users import UserConfig
from .settings import NODES

Kind = Literal["qemu", "lxc"]
FOLDERS: dict[Kind, str] = {"qemu": "qemu-server", "lxc": "lxc"}
NO_QUORUM = "cluster not ready - no quorum?"
GUEST_LOCK = re.compile(r"lock-(\d+)\.conf")

_SETTLED_NS = 100_000_000  # a time stamp younger than this may stand for a second change as well
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class GuestPlace:
    """Where a guest is.

    Attributes:
        vmid: its number.
        kind: a virtual machine or a container.
        node: that has it.
        path: of its file, below ``pve``.
    """

    vmid: int
    kind: Kind
    node: str
    path: str


class State:
    """The files of one cluster.

    Args:
        root: the state directory.
        run: the folder of sockets.
        node: whose view this is; its guests' locks are its own.
        quorate: says whether the node may write; without it, it always may.
        nodes: the names of all nodes.
    """

    def __init__(
        self,
        root: Path,
        run: Path | None = None,
        *,
        node: str = "",
        quorate: Callable[[], bool] = lambda: True,
        nodes: tuple[str, ...] = NODES,
    ) -> None:
        self.root = Path(root)
        self.pve = self.root / "pve"
        self.shared = self.root / "shared"
        self.run = Path(run) if run is not None else self.root / "run"
        self.node = node
        self.nodes = nodes
        self.quorate = quorate
        self._cache: dict[str, tuple[tuple[int, ...], Any]] = {}
        self._names: dict[str, str] = {}
        self._held = threading.local()

    def of(self, node: str) -> Path:
        """Return the folder that is a node's own disk."""
        return self.root / "nodes" / node

    # Reading and writing

    def path(self, relative: str) -> Path:
        """Return a path below ``pve``.

        Raises:
            ClusterError: it would lead out of there.
        """
        path = self.pve / relative
        if ".." in Path(relative).parts or Path(relative).is_absolute():
            raise ClusterError(f"invalid path '{relative}'")
        return path

    def assert_quorum(self) -> None:
        """Refuse to write while too few nodes are there.

        Raises:
            ClusterError: there is no quorum.
        """
        if not self.quorate():
            raise ClusterError(NO_QUORUM)

    def read(self, relative: str) -> str:
        """Return a file's text; empty when it is missing."""
        return files.read(self.path(relative))

    def write(self, relative: str, text: str) -> str:
        """Replace a file; it is on the disk when this returns. Secrets (``priv/``) are their owner's alone.

        Returns:
            The new digest.

        Raises:
            ClusterError: there is no quorum.
        """
        self.assert_quorum()
        return files.write(self.path(relative), text, mode=0o600 if relative.startswith("priv/") else 0o640)

    def delete(self, relative: str) -> None:
        """Remove a file; none is no error.

        Raises:
            ClusterError: there is no quorum.
        """
        self.assert_quorum()
        with contextlib.suppress(FileNotFoundError):
            self.path(relative).unlink()
            files.sync_directory(self.path(relative).parent)

    def move(self, source: str, target: str) -> None:
        """Move a file in one step.

        Raises:
            ClusterError: there is no quorum, or the target exists.
        """
        self.assert_quorum()
        files.move(self.path(source), self.path(target))

    def parsed(self, relative: str, parse: Callable[[str], _Parsed]) -> _Parsed:
        """Return what a file says; it is read again only when it changed. Do not change what this returns.

        Args:
            relative: the file.
            parse: reads its text; a function or a method with a name of its own.
        """
        seen = _stamp(self._name(relative))
        key = f"{relative} {getattr(parse, '__module__', '')} {parse.__qualname__}"
        kept = self._cache.get(key)
        if kept is not None and kept[0] == seen and _settled(seen):
            found: _Parsed = kept[1]
            return found
        found = parse(self.read(relative))
        self._cache[key] = (seen, found)
        return found

    def _name(self, relative: str) -> str:
        """Return a path as text, made once: each read of the API looks at several files."""
        name = self._names.get(relative)
        if name is None:
            name = self._names[relative] = str(self.path(relative))
        return name

    # Locks

    @contextlib.contextmanager
    def lock(self, name: str, timeout_s: float = 10) -> Iterator[None]:
        """Hold a lock; whoever holds it already may take it again.

        Args:
            name: a domain of the whole cluster such as ``file-user_cfg`` or ``file-storage_cfg``, or a guest's on this
                node, ``lock-169.conf``.
            timeout_s: how long to wait for it.

        Raises:
            ClusterError: it was not to be had; or, for a domain, what the work under it raised, with Proxmox VE's
                words about the lock before it.
        """
        held: dict[str, int] = self._held.__dict__.setdefault("names", {})
        guest = GUEST_LOCK.fullmatch(name)
        domain = None if guest else name
        if held.get(name):
            held[name] += 1
            try:
                yield
            finally:
                held[name] -= 1
            return
        handle = self._flock(name, guest, timeout_s)
        held[name] = 1
        try:
            yield
        except (ParameterError, PermissionRefused):
            raise
        except ClusterError as error:
            if domain is None or type(error) is not ClusterError:
                raise
            raise ClusterError(f"error during cfs-locked '{domain}' operation: {error.message}") from error
        finally:
            held[name] = 0
            os.close(handle)

    def _flock(self, name: str, guest: re.Match[str] | None, timeout_s: float) -> int:
        """Return the open file whose closing ends the lock."""
        folder = self.root / "locks" / (self.node or "cluster") if guest else self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end, pause = time.monotonic() + timeout_s, 0.002
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except OSError as error:
                late = time.monotonic() >= end
                if late or error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                    os.close(handle)
                    if not late:
                        raise
                    raise ClusterError(_no_lock(name, guest)) from None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    # Guests

    def guests(self) -> dict[int, GuestPlace]:
        """Return all guests by number, from the names of their files."""
        found: dict[int, GuestPlace] = {}
        for node in self.nodes:
            for kind, folder in FOLDERS.items():
                for vmid in self._numbers(f"nodes/{node}/{folder}"):
                    found[vmid] = GuestPlace(vmid, kind, node, f"nodes/{node}/{folder}/{vmid}.conf")
        return dict(sorted(found.items()))

    def _numbers(self, relative: str) -> list[int]:
        """Return the numbers of the guests in a folder."""
        seen, kept = _stamp(self._name(relative)), self._cache.get(relative)
        if kept is not None and kept[0] == seen and _settled(seen):
            return list(kept[1])
        try:
            names = os.listdir(self._name(relative))  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []
        numbers = [int(name[:-5]) for name in names if name.endswith(".conf") and name[:-5].isdecimal()]
        self._cache[relative] = (seen, numbers)
        return numbers

    def guest(self, vmid: int, node: str | None = None, kind: Kind | None = None) -> GuestPlace:
        """Return where a guest is.

        Args:
            vmid: its number.
            node: that it has to be on; None for any.
            kind: that it has to be; None for any.

        Raises:
            ClusterError: it is not there.
        """
        place = self.guests().get(vmid)
        if place is None or node not in (None, place.node) or kind not in (None, place.kind):
            where = node or self.node or (place.node if place else self.nodes[0])
            folder = FOLDERS[kind or (place.kind if place else "qemu")]
            raise ClusterError(f"Configuration file 'nodes/{where}/{folder}/{vmid}.conf' does not exist")
        return place

    def load_guest(self, vmid: int, node: str | None = None, kind: Kind | None = None) -> GuestConfig:
        """Return a guest's configuration, the caller's own to change.

        Raises:
            ClusterError: it is not there.
        """
        place = self.guest(vmid, node, kind)
        text = self.read(place.path)
        if not text and not self.path(place.path).exists():
            raise ClusterError(f"Configuration file '{place.path}' does not exist")
        return GuestConfig.parse(text)

    def view_guest(self, place: GuestPlace) -> GuestConfig:
        """Return a guest's configuration for reading only: quick, for lists of many."""
        return self.parsed(place.path, GuestConfig.parse)

    def save_guest(self, node: str, kind: Kind, vmid: int, config: GuestConfig) -> None:
        """Write a guest's configuration and update its digest."""
        config.digest = self.write(f"nodes/{node}/{FOLDERS[kind]}/{vmid}.conf", config.text())

    def create_guest(self, node: str, kind: Kind, vmid: int, config: GuestConfig) -> None:
        """Write the configuration of a guest that must not exist yet anywhere.

        Raises:
            ClusterError: it exists.
        """
        with self.lock("vmlist"), self._bare():
            place = self.guests().get(vmid)
            if place is not None:
                words = f"{'CT' if place.kind == 'lxc' else 'VM'} {vmid} already exists on node '{place.node}'"
                raise ClusterError(words if kind == "lxc" else f"unable to create VM {vmid} - {words}")
            self.save_guest(node, kind, vmid, config)

    def move_guest(self, vmid: int, target: str) -> None:
        """Give a guest's file to another node, in one step."""
        place = self.guest(vmid)
        self.move(place.path, f"nodes/{target}/{FOLDERS[place.kind]}/{vmid}.conf")

    def delete_guest(self, vmid: int) -> None:
        """Remove a guest's file."""
        self.delete(self.guest(vmid).path)

    @contextlib.contextmanager
    def _bare(self) -> Iterator[None]:
        """Keep a guest's error without words about the cluster's lock."""
        try:
            yield
        except ClusterError as error:
            raise _BareError(error.message, status=error.status) from error

    @contextlib.contextmanager
    def guest_lock(
        self, vmid: int, node: str | None = None, kind: Kind | None = None, timeout_s: float = 10
    ) -> Iterator[GuestConfig]:
        """Lock a guest, read its configuration, and write it back when the work is done and changed it.

        An error writes nothing. Work that removes or moves the file itself is left alone.

        Raises:
            ClusterError: the lock was not to be had, or there is no such guest.
        """
        with self.lock(f"lock-{vmid}.conf", timeout_s):
            config = self.load_guest(vmid, node, kind)
            before = config.text()
            yield config
            place = self.guests().get(vmid)
            if place is not None and config.text() != before:
                self.save_guest(place.node, place.kind, vmid, config)

    # Whole files

    def storages(self) -> dict[str, TypedSection]:
        """Return ``storage.cfg``; for reading only."""
        return self.parsed("storage.cfg", sections.parse)

    def users(self) -> UserConfig:
        """Return ``user.cfg``; for reading only."""
        return self.parsed("user.cfg", UserConfig.parse)

    def datacenter(self) -> dict[str, str]:
        """Return ``datacenter.cfg``; for reading only."""
        return self.parsed("datacenter.cfg", parse_options)


class _BareError(ClusterError):
    """An error that keeps its words below a lock."""


def parse_options(text: str) -> dict[str, str]:
    """Read a file of lines ``key: value``."""
    pairs = (line.partition(":") for line in text.split("\n") if line.strip() and not line.startswith("#"))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def render_options(values: dict[str, str]) -> str:
    """Write a file of lines ``key: value``.

    Raises:
        ClusterError: a value holds the end of a line.
    """
    for key, value in values.items():
        if "\n" in value or "\r" in value:
            raise ClusterError(f"value of '{key}' contains a line break")
    return "".join(f"{key}: {value}\n" for key, value in values.items())


def _stamp(path: str) -> tuple[int, ...]:
    """Return what changes with a file or folder."""
    try:
        found = os.stat(path)  # noqa: PTH116 - on the way of each answer
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _settled(stamp: tuple[int, ...]) -> bool:
    """Say whether the next change of what has this stamp will show."""
    return not stamp or time.time_ns() - stamp[0] > _SETTLED_NS


def _no_lock(name: str, guest: re.Match[str] | None) -> str:
    """Return Proxmox VE's words about a lock that was not to be had."""
    if guest is None:
        return f"error during cfs-locked '{name}' operation: got lock request timeout"
    return f"can't lock file '/var/lock/qemu-server/{name}' - got timeout"
