"""Files that come from outside: uploads and downloads, checked before they get a name.

A file is written under a hidden name on the storage itself, compared with the checksum that the client expects, and
named in one step. Whatever fails on the way leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO, Any

from ...error import ClusterError
from ..config import files
from ..tasks import Task
from . import images
from .directory import DirectoryStorage

CHUNK = 1 << 20
TIMEOUT_S = 20
ALGORITHMS = "md5 sha1 sha224 sha256 sha384 sha512"
_FOREIGN_NAME = re.compile(r"[^-a-zA-Z0-9_.]")


def human(size: float) -> str:
    """Write a number of bytes as task logs do: ``14.00 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.2f} {unit}" if unit != "B" else f"{int(size)} B"


def place_of(storage: DirectoryStorage, content: str, filename: str) -> Path:
    """Return where a file of a kind of content is kept."""
    return storage.place(storage.parse(f"{content}/{filename}"))


def import_upload(
    storage: DirectoryStorage, content: str, filename: str, uploaded: Path, task: Task, *, algorithm: str, checksum: str
) -> None:
    """Give an uploaded file its name on a storage.

    Args:
        storage: where it goes.
        content: iso or vztmpl.
        filename: its name, checked.
        uploaded: the file; it is gone afterwards, whatever happens.
        task: gets the log.
        algorithm: of the checksum, empty for none.
        checksum: that the file must have.

    Raises:
        ClusterError: the checksum differs, or there is no room.
    """
    target = place_of(storage, content, filename)
    try:
        task.log(f"starting file import from: {uploaded}")
        task.log(f"target node: {storage.owner}")
        task.log(f"target file: {target}")
        task.log(f"file size is: {human(uploaded.stat().st_size)}")
        if algorithm:
            verify(uploaded, algorithm, checksum, task)
        task.log(f"command: cp -- {uploaded} {target}")
        with _named(storage, target) as hidden:
            _move(storage, uploaded, hidden, task)
        task.log("finished file import successfully")
    finally:
        uploaded.unlink(missing_ok=True)


def verify(path: Path, algorithm: str, checksum: str, task: Task) -> None:
    """Compare a file with the checksum that is expected.

    Raises:
        ClusterError: it differs.
    """
    task.log("calculating checksum...")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            task.check_stop()
            digest.update(piece)
    if digest.hexdigest() != checksum.strip().lower():
        raise ClusterError(f"checksum mismatch: got '{digest.hexdigest()}' != expect '{checksum}'")
    task.log("OK, checksum verified")


def _move(storage: DirectoryStorage, source: Path, target: Path, task: Task) -> None:
    _check_room(storage, source.stat().st_size)
    with contextlib.suppress(OSError):
        source.rename(target)
        return
    with source.open("rb") as reader, target.open("wb") as writer:  # another file system
        while piece := reader.read(CHUNK):
            task.check_stop()
            writer.write(piece)


def _check_room(storage: DirectoryStorage, size: int) -> None:
    if size > storage.status().avail:
        raise ClusterError("import failed: No space left on device")


@contextlib.contextmanager
def _named(storage: DirectoryStorage, target: Path) -> Iterator[Path]:
    """Hand out a hidden name beside a file's; what the block made there takes the file's place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.parent / f"{files.UNFINISHED}{storage.owner}-{secrets.token_hex(6)}"
    try:
        yield hidden
        images.bring_to_disk(hidden)
        hidden.chmod(0o644)
        hidden.replace(target)
        files.sync_directory(target.parent)
    finally:
        hidden.unlink(missing_ok=True)


def download(
    storage: DirectoryStorage,
    content: str,
    filename: str,
    url: str,
    task: Task,
    *,
    algorithm: str = "",
    checksum: str = "",
    verify_certificates: bool = True,
) -> None:
    """Fetch a file and give it its name on a storage.

    Raises:
        ClusterError: it cannot be fetched, differs from its checksum, or exists already as another file.
    """
    target = place_of(storage, content, filename)
    if target.exists():
        raise ClusterError(f"refusing to override existing file '{target}'")
    task.log(f"downloading {url} to {target}")
    with _named(storage, target) as hidden:
        with _opened(url, verify_certificates) as answer, hidden.open("wb") as file:
            _receive(storage, answer, file, task)
        if algorithm:
            verify(hidden, algorithm, checksum, task)
    task.log(f"download of '{url}' to '{target}' finished")


def _receive(storage: DirectoryStorage, answer: Any, file: IO[bytes], task: Task) -> None:
    expected = int(answer.headers.get("Content-Length") or 0)
    _check_room(storage, expected)
    room, received, told = storage.status().avail, 0, 0
    while piece := answer.read(CHUNK):
        task.check_stop()
        received += len(piece)
        if received > room:
            raise ClusterError("download failed: No space left on device")
        file.write(piece)
        if received - told >= 16 * CHUNK:
            told = received
            task.log(f"{human(received)} of {human(expected) if expected else 'unknown size'}")
    if expected and received != expected:
        raise ClusterError(f"download failed: got {received} of {expected} bytes")


def metadata(url: str, *, verify_certificates: bool = True) -> dict[str, Any]:
    """Ask for a file's name, size and kind without fetching it.

    Raises:
        ClusterError: nobody answers, or not with success.
    """
    with _opened(url, verify_certificates, method="HEAD") as answer:
        found: dict[str, Any] = {}
        name = _filename(url, answer.headers)
        if name:
            found["filename"] = name
        if answer.headers.get("Content-Length", "").isdigit():
            found["size"] = int(answer.headers["Content-Length"])
        if answer.headers.get("Content-Type"):
            found["mimetype"] = answer.headers["Content-Type"].partition(";")[0].strip()
        return found


def _filename(url: str, headers: Message) -> str:
    """Return the name that a file would be kept under: the server's, else the last part of the address."""
    message = Message()
    message["content-disposition"] = headers.get("Content-Disposition", "")
    name = message.get_filename() or urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return _FOREIGN_NAME.sub("_", os.path.basename(name))  # noqa: PTH119 - a name, no path


@contextlib.contextmanager
def _opened(url: str, verify_certificates: bool, method: str = "GET") -> Iterator[Any]:
    """Open an address of the web.

    Raises:
        ClusterError: it is none, or nobody answers there.
    """
    split = urllib.parse.urlsplit(url)
    if split.scheme not in ("http", "https"):
        raise ClusterError(f"unsupported url scheme '{split.scheme}'")
    context = ssl.create_default_context()
    if not verify_certificates:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.OpenerDirector()  # the default one would also open files and FTP
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    headers = {"User-Agent": "course-lab"}
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - http and https alone
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        raise ClusterError(_refused(method, f"{error.code} {error.reason}")) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        words = getattr(reason, "strerror", None) or str(reason)
        port = split.port or (443 if split.scheme == "https" else 80)
        raise ClusterError(_refused(method, f"500 Can't connect to {split.hostname}:{port} ({words})")) from error


def _refused(method: str, words: str) -> str:
    return f"invalid server response: '{words}'" if method == "HEAD" else f"download failed: {words}"
