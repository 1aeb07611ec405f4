r"""Read a Debian package without dpkg, without installing it and without root.

::

    !<arch>\n
    debian-binary      "2.0\n"
    control.tar.xz     name, version, dependencies
    data.tar.xz        the files, from /

A .deb is an `ar` archive of these three members; each header is 60 bytes of text.

Source: deb(5); ar(5).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from ..error import GuestError
from . import zstd

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_CHUNK_BYTES = 1 << 17


class Deb:
    """One package file, checked to be one when the object is made.

    Attributes:
        path: where the file lies.

    Raises:
        GuestError: the file cannot be read, is no package, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._members = self._read_members()
        except OSError as cause:
            raise GuestError(f"cannot read the package {path}: {cause.strerror}") from None
        if "debian-binary" not in self._members:
            raise self._damaged("it has no member debian-binary")

    def fields(self) -> Mapping[str, str]:
        """Return the control fields, such as ``Package``, ``Version`` and ``Architecture``; only first lines."""
        for _, content in self._tar("control", lambda name: name == "control"):
            lines = content.decode(errors="replace").splitlines()
            pairs = (line.partition(":") for line in lines if line[:1] not in (" ", "\t"))
            return {key: value.strip() for key, _, value in pairs}
        raise self._damaged("its control archive has no file control")

    def names(self) -> list[str]:
        """List the paths of the files inside, without the leading ``./``, in the package's order."""
        return [name for name, _ in self._tar("data", lambda _: True)]

    def files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """Yield path (without leading ``./``) and content of the regular files whose path is `wanted`.

        Raises:
            GuestError: the package is damaged, or its compression cannot be read here.
        """
        return self._tar("data", wanted)

    def _read_members(self) -> dict[str, tuple[int, int]]:
        members = {}
        with self.path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if file.read(len(_MAGIC)) != _MAGIC:
                raise self._damaged("it does not begin with '!<arch>'")
            while header := file.read(_HEADER_BYTES):
                name, length = self._parse(header)
                start = file.tell()
                if start + length > size:
                    raise self._damaged(f"member {name} says {length} bytes, {size - start} are there")
                members[name] = (start, length)
                file.seek(start + length + length % 2)
        return members

    def _parse(self, header: bytes) -> tuple[str, int]:
        if len(header) != _HEADER_BYTES or header[58:60] != b"`\n":
            raise self._damaged("a member header is not as ar(5) says")
        try:
            return header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        except ValueError:
            raise self._damaged("a member header is not as ar(5) says") from None

    def _tar(self, part: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        member_name = next((name for name in self._members if name.startswith(f"{part}.tar")), None)
        if member_name is None:
            raise self._damaged(f"it has no member {part}.tar")
        try:
            with self._opened(member_name) as plain:
                with tarfile.open(fileobj=plain, mode="r|") as tar:
                    for member in tar:
                        name = member.name.removeprefix("./")
                        if member.isfile() and wanted(name):
                            yield name, _content(tar, member)
                while plain.read(_CHUNK_BYTES):  # to the end, where the checksum is
                    pass
        except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as cause:
            raise self._damaged(f"{member_name}: {cause}") from cause

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member decompressed, as a stream that is read forwards."""
        start, length = self._members[name]
        with self.path.open("rb") as file:
            raw = cast("IO[bytes]", io.BufferedReader(_Slice(file, start, length), _CHUNK_BYTES))
            match name.rpartition(".")[2]:
                case "tar":
                    yield raw
                case "xz" | "lzma":
                    with lzma.open(raw) as plain:
                        yield cast("IO[bytes]", plain)
                case "gz":
                    with gzip.open(raw) as plain:
                        yield cast("IO[bytes]", plain)
                case "bz2":
                    with bz2.open(raw) as plain:
                        yield cast("IO[bytes]", plain)
                case "zst" if zstd.available():
                    yield cast("IO[bytes]", io.BufferedReader(_Pieces(zstd.chunks(raw)), _CHUNK_BYTES))
                case "zst":
                    yield io.BytesIO(self._by_dpkg("--fsys-tarfile" if name.startswith("data") else "--ctrl-tarfile"))
                case other:
                    raise self._damaged(f"{name} is compressed by {other!r}, expected xz, gz, bz2 or zst")

    def _by_dpkg(self, option: str) -> bytes:
        """Return a member's plain tar from dpkg-deb, which has Zstandard built in where packages use it."""
        try:
            return subprocess.run(["dpkg-deb", option, str(self.path)], capture_output=True, check=True).stdout
        except (FileNotFoundError, subprocess.CalledProcessError):
            raise GuestError(
                f"the package {self.path} is compressed with Zstandard, which this host cannot read "
                "(no libzstd, no zstd program, no dpkg-deb that knows it). Install one: apt install zstd"
            ) from None

    def _damaged(self, why: str) -> GuestError:
        return GuestError(
            f"{self.path} is not a whole Debian package: {why}. Delete it and fetch it again (course guest build)"
        )


class _Slice(io.RawIOBase):
    """A part of a file, read forwards."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        super().__init__()
        self._file, self._left = file, length
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _Pieces(io.RawIOBase):
    """A file made of an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._rest = self._rest or next(self._pieces, b"")
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "only regular files are asked for"
    return file.read()
