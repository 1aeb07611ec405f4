"""Compression of archives: none, gzip, Zstandard, by the ending of the archive's name.

Zstandard is written and read through the host's libzstd; where that is missing, `assert_available` says so before
anything is begun. LZO, which Proxmox VE knows too, has no library that the course depends on.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ...error import ClusterError, GuestError
from ...guest import zstd

ENDINGS = {"0": "", "1": ".gz", "gzip": ".gz", "zstd": ".zst", "lzo": ".lzo"}
"""The ending for each value of the parameter ``compress``."""

_LEVELS = {".gz": 1, ".zst": 1}
_ROOM = 1 << 17


class _Buffer(ctypes.Structure):
    """``ZSTD_inBuffer`` and ``ZSTD_outBuffer``.

    Source: zstd.h, "Streaming".
    """

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def assert_available(compress: str) -> str:
    """Return the ending for a kind of compression.

    Raises:
        ClusterError: this host cannot write it.
    """
    ending = ENDINGS[compress]
    if ending == ".lzo":
        raise ClusterError("compression 'lzo' is not available: 'lzop' is not part of this lab, use gzip or zstd")
    if ending == ".zst" and _library() is None:
        raise ClusterError("compression 'zstd' is not available: libzstd is not installed here, use gzip")
    return ending


@contextlib.contextmanager
def writing(path: Path, ending: str) -> Iterator[IO[bytes]]:
    """Open a file that compresses what is written to it.

    Args:
        path: the file to make.
        ending: ``""``, ``.gz`` or ``.zst``.
    """
    with path.open("wb") as file:
        if ending == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVELS[".gz"], filename="") as packed:
                yield packed  # type: ignore[misc]
        elif ending == ".zst":
            with _ZstdWriter(file) as stream:
                yield stream  # type: ignore[misc]
        else:
            yield file


@contextlib.contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file whose ending says how it is compressed.

    Raises:
        ClusterError: this host cannot read it, or its data is damaged (while it is read).
    """
    with path.open("rb") as file:
        try:
            if path.name.endswith((".gz", ".tgz")):
                with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                    yield unpacked  # type: ignore[misc]
            elif path.name.endswith(".zst"):
                yield io.BufferedReader(_ZstdReader(file), _ROOM)
            elif path.name.endswith((".lzo", ".bz2")):
                raise ClusterError(f"unable to read '{path.name}': this lab has no program for its compression")
            else:
                yield file
        except (OSError, EOFError, GuestError) as error:
            raise ClusterError(f"unable to read '{path.name}': {error}") from error


class _ZstdReader(io.RawIOBase):
    """What a compressed file decompresses to."""

    def __init__(self, file: IO[bytes]) -> None:
        self._chunks = zstd.chunks(file)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        length = min(len(buffer), len(self._left))
        buffer[:length] = self._left[:length]
        self._left = self._left[length:]
        return length


class _ZstdWriter(io.RawIOBase):
    """Compresses into a file, which it does not close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._library = _library()
        self._file = file
        self._stream = self._library.ZSTD_createCStream()
        self._room = ctypes.create_string_buffer(_ROOM)
        self._checked(self._library.ZSTD_initCStream(self._stream, _LEVELS[".zst"]))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        given = _Buffer(ctypes.cast(ctypes.c_char_p(piece), ctypes.c_void_p), len(piece), 0)
        while given.pos < given.size:
            made = self._buffer()
            self._checked(self._library.ZSTD_compressStream(self._stream, ctypes.byref(made), ctypes.byref(given)))
            self._file.write(self._room.raw[: made.pos])
        return len(piece)

    def close(self) -> None:
        if self._stream is None:
            return
        try:
            left = 1
            while left:
                made = self._buffer()
                left = self._checked(self._library.ZSTD_endStream(self._stream, ctypes.byref(made)))
                self._file.write(self._room.raw[: made.pos])
        finally:
            self._library.ZSTD_freeCStream(self._stream)
            self._stream = None
            super().close()

    def _buffer(self) -> _Buffer:
        return _Buffer(ctypes.addressof(self._room), _ROOM, 0)

    def _checked(self, result: int) -> int:
        if self._library.ZSTD_isError(result):
            raise ClusterError(f"zstd: {self._library.ZSTD_getErrorName(result).decode()}")
        return result


def _library() -> Any:
    try:
        library = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    except OSError:
        return None
    pointer = ctypes.c_void_p
    library.ZSTD_createCStream.restype = pointer
    library.ZSTD_createCStream.argtypes = []
    library.ZSTD_freeCStream.argtypes = [pointer]
    library.ZSTD_initCStream.restype = ctypes.c_size_t
    library.ZSTD_initCStream.argtypes = [pointer, ctypes.c_int]
    library.ZSTD_compressStream.restype = ctypes.c_size_t
    library.ZSTD_compressStream.argtypes = [pointer, pointer, pointer]
    library.ZSTD_endStream.restype = ctypes.c_size_t
    library.ZSTD_endStream.argtypes = [pointer, pointer]
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library
