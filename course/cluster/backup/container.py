"""The backup of one container: a tar archive of its files, with its configuration in ``etc/vzdump/pct.conf``.

A running container stands still while its files are copied aside, in the modes snapshot and suspend; in the mode stop
it is shut down for as long as its archive is written.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...error import ClusterError
from ..config.guest import GuestConfig
from ..ct import lifecycle, settings
from ..storage import trees
from . import packing
from .journal import Journal
from .machine import Wish

if TYPE_CHECKING:
    from ..node import Node

CONFIG = "./etc/vzdump/pct.conf"
FIREWALL = "./etc/vzdump/pct.fw"


def back_up(node: Node, vmid: int, config: GuestConfig, wish: Wish, journal: Journal) -> None:
    """Write the backup of a container.

    Raises:
        ClusterError: it cannot be made; the container is as it was.
    """
    running: Any = node.containers.get(vmid) if node.containers is not None else None
    journal.info(f"status = {'running' if running else 'stopped'}")
    mode = wish.mode if running else "stop"
    journal.info(f"backup mode: {mode}")
    journal.info("ionice priority: 7")
    journal.info(f"CT Name: {config.current.values.get('hostname', f'CT{vmid}')}")
    storage, volume = settings.storage_of_root(node, config.current.values)
    journal.info("including mount point rootfs ('/') in backup")
    with contextlib.ExitStack() as until:
        root = storage.path(volume)
        if running and mode == "stop":
            until.enter_context(_shut_down(node, vmid, wish.stopwait_s, journal))
        elif running:
            journal.info("suspend vm to copy its files")
            root = _copied(running, root, wish.folder)
            journal.info("guest is online again")
        journal.info(f"creating vzdump archive '{wish.shown}'")
        _write(wish.target, wish.ending, root, _texts(node, vmid, config), journal)


def _texts(node: Node, vmid: int, config: GuestConfig) -> dict[str, str]:
    """Return the files about the container that go into its archive."""
    section = config.current.copy()
    for key in ("lock", "parent"):
        section.values.pop(key, None)
    texts = {CONFIG: section.text()}
    firewall = node.state.read(f"firewall/{vmid}.fw")
    return texts | ({FIREWALL: firewall} if firewall else {})


@contextlib.contextmanager
def _shut_down(node: Node, vmid: int, stopwait_s: float, journal: Journal) -> Iterator[None]:
    journal.info("stopping virtual guest")
    running = node.containers.get(vmid)
    running.ask_to_end()
    end = time.monotonic() + stopwait_s
    while not running.ended.wait(0.2):
        journal.task.check_stop()
        if time.monotonic() > end:
            raise ClusterError(f"CT {vmid} did not shut down - got timeout")
    try:
        yield
    finally:
        journal.info("restarting vm")
        lifecycle.start(node, vmid, journal.task.log, skiplock=True)


def _copied(running: Any, root: Path, folder: Path) -> Path:
    """Copy a running container's files while it stands still."""
    running.freeze(True)
    try:
        trees.copy(root, folder / "root")
    finally:
        running.freeze(False)
    return folder / "root"


def _write(target: Path, ending: str, root: Path, texts: dict[str, str], journal: Journal) -> None:
    def take(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        journal.task.check_stop()
        if member.name in (CONFIG, FIREWALL) or member.name.startswith(("./proc/", "./sys/", "./dev/")):
            return None
        member.uid = member.gid = 0  # everything is the lab's user's, who is root inside
        member.uname = member.gname = "root"
        return member

    with (
        packing.writing(target, ending) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, text in texts.items():
            content = text.encode("utf-8", "surrogateescape")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.add(root, ".", filter=take)
        journal.info(f"Total bytes written: {tar.offset} ({tar.offset / (1 << 20):.1f}MiB)")


def read_config(path: Path) -> str:
    """Return the configuration in a container's archive.

    Raises:
        ClusterError: there is none, or it is no archive.
    """
    try:
        with packing.reading(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                if member.name.removeprefix("./") == CONFIG.removeprefix("./") and member.isreg():
                    content = tar.extractfile(member)
                    return content.read().decode("utf-8", "surrogateescape") if content else ""
    except tarfile.TarError as error:
        raise ClusterError(f"unable to read '{path.name}': {error}") from error
    raise ClusterError(f"no configuration found in '{path.name}'")


@contextlib.contextmanager
def plain_archive(path: Path, folder: Path) -> Iterator[Path]:
    """Hand out an archive that Python's tarfile opens by its name: Zstandard is unpacked for it."""
    if not path.name.endswith(".zst"):
        yield path
        return
    with tempfile.TemporaryDirectory(dir=folder) as place:
        plain = Path(place) / path.name.removesuffix(".zst")
        with packing.reading(path) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield plain
