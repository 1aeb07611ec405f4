"""Where built things are kept: made once, found again by what they were made of, never half-written.

::

    <cache>/<kind>/<key>/            an entry: its files, and manifest.json written last
    <cache>/<kind>/.building-<key>-…  being built; becomes the entry by one rename
    <cache>/locks/<kind>-<key>.lock   held (flock) by the one process that builds; the others wait for it

An entry is used only if its files are those of its manifest (size and time of change; where only the time differs, as
after a copy, the SHA-256 decides). Anything else is thrown away and built again. A key is a hash of all that goes in,
so an entry is never changed, only superseded; the superseded are removed when a newer one of their kind is made.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..error import GuestError

Progress = Callable[[str], None]

_LOG = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_APPLICATION = "virtualization-course"
_KEPT = {"templates": 8, "kernels": 3}
_KEPT_OF_OTHERS = 100
_MIN_AGE_S = 24 * 3600
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_progress: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("progress", default=None)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something built.

    Attributes:
        path: its folder.
        digests: SHA-256 of each file, by its name inside the folder.
    """

    path: Path
    digests: Mapping[str, str]

    @property
    def key(self) -> str:
        """What identifies the content: a hash of all digests."""
        return key_of(self.digests)


def cache_dir() -> Path:
    """Return the folder of all that is built: ``$COURSE_CACHE``, or ``virtualization-course`` in the user's cache."""
    if chosen := os.environ.get("COURSE_CACHE"):
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / _APPLICATION


def key_of(*parts: Any) -> str:
    """Return a short hash of plain values (numbers, strings, bytes, lists, dicts)."""
    text = json.dumps(parts, sort_keys=True, default=lambda value: hashlib.sha256(value).hexdigest())
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextlib.contextmanager
def watched(progress: Progress | None) -> Iterator[None]:
    """Let `progress` hear what is being built, one short sentence at a time; None changes nothing."""
    token = _progress.set(progress or _progress.get())
    try:
        yield
    finally:
        _progress.reset(token)


def tell(message: str) -> None:
    """Say what is being done, to the log and to whoever watches."""
    _LOG.info(message)
    if watcher := _progress.get():
        watcher(message)


def image(content: bytes, name: str) -> Path:
    """Return a file `name` that holds `content`."""

    def write(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return entry("images", key_of(name, content), write).path / name


def entry(kind: str, key: str, build: Callable[[Path], None], *, needs_mib: int = 1) -> Entry:
    """Return the entry `key`, building it first if it is not there or not whole.

    Args:
        kind: folder of entries of one sort, such as ``"templates"``.
        key: hash of all that goes in, see `key_of`.
        build: makes the entry's files in the folder it is given.
        needs_mib: disk space that building takes, in MiB; refused early when it is not there.

    Raises:
        GuestError: no space, no permission; whatever `build` raises passes through. Nothing half-written stays.
    """
    final = cache_dir() / kind / key
    found = _check(final)
    if found is None:
        with _disk_errors(final), _locked(f"{kind}-{key}"):
            found = _check(final) or _build(final, build, needs_mib)
    with contextlib.suppress(OSError):
        os.utime(final)  # when it was last used
    return found


def forget(found: Entry) -> None:
    """Remove an entry that turned out to be useless; the next `entry` builds it again."""
    shutil.rmtree(found.path, ignore_errors=True)


def _check(final: Path) -> Entry | None:
    """Return the entry if it is there and whole."""
    try:
        manifest = json.loads((final / _MANIFEST).read_bytes())
        stale = False
        for name, known in manifest.items():
            state = (final / name).stat()
            if state.st_size != known["size"]:
                raise ValueError(f"{name} has {state.st_size} bytes, expected {known['size']}")
            if state.st_mtime_ns != known["mtime_ns"]:
                stale = True
                if _digest(final / name) != known["sha256"]:
                    raise ValueError(f"{name} was changed")
        if stale:
            with contextlib.suppress(OSError):
                _write_manifest(final)
        return Entry(final, {name: known["sha256"] for name, known in manifest.items()})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as why:
        _LOG.warning("%s is damaged (%s); it is built again", final, why)
        return None
    except OSError as cause:
        raise GuestError(f"cannot read {final}: {cause.strerror}. Give yourself access, or set COURSE_CACHE") from None


def _build(final: Path, build: Callable[[Path], None], needs_mib: int) -> Entry:
    """Build in a folder beside the final one; the lock is held."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(f".building-{final.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # by a process that was killed: we hold its lock
    free_mib = shutil.disk_usage(final.parent).free >> 20
    if free_mib < needs_mib:
        raise GuestError(_no_room(final, f"{free_mib} MiB are free, {needs_mib} MiB are needed"))
    work = Path(tempfile.mkdtemp(prefix=f".building-{final.name}-", dir=final.parent))
    try:
        build(work)
        manifest = _write_manifest(work)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _prune(final)
    return Entry(final, {name: known["sha256"] for name, known in manifest.items()})


def _write_manifest(directory: Path) -> dict[str, dict[str, Any]]:
    manifest = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            with path.open("rb") as file:
                os.fsync(file.fileno())  # a power cut must not leave a manifest of files that are not there
            state = path.stat()
            manifest[str(path.relative_to(directory))] = {
                "size": state.st_size,
                "mtime_ns": state.st_mtime_ns,
                "sha256": _digest(path),
            }
    with tempfile.NamedTemporaryFile("w", dir=directory, prefix=".manifest-", delete=False) as fresh:
        json.dump(manifest, fresh, indent=1)
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(fresh.name).replace(directory / _MANIFEST)
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prune(newest: Path) -> None:
    """Remove the least recently used entries of the same kind; an open file of theirs stays usable."""
    with contextlib.suppress(OSError):
        others = [path for path in newest.parent.iterdir() if path != newest and not path.name.startswith(".")]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for old in others[_KEPT.get(newest.parent.name, _KEPT_OF_OTHERS) - 1 :]:
            if time.time() - old.stat().st_mtime > _MIN_AGE_S:
                shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process is building the same; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _disk_errors(final: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as cause:
        if cause.errno in _NO_ROOM:
            raise GuestError(_no_room(final, cause.strerror or "no space")) from cause
        raise GuestError(
            f"cannot write {cause.filename or final.parent}: {cause.strerror}. Give yourself access to "
            f"{cache_dir()}, or set COURSE_CACHE to a folder of your own"
        ) from cause


def _no_room(final: Path, why: str) -> str:
    return (
        f"no room to build {final.parent.name}/{final.name} in {cache_dir()}: {why}; nothing was left behind. "
        "Free some space, or set COURSE_CACHE to a folder on a larger disk"
    )
