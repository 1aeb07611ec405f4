"""Decompress Zstandard through the host's libzstd, for .deb members and kernel modules of Ubuntu and newer Debian.

Python has its own module only since 3.14. The shared library is on practically every Linux (dpkg, systemd and QEMU
need it); where it is not, the `zstd` program is asked.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import io
import shutil
import subprocess
from collections.abc import Iterator
from typing import IO, Any

from ..error import GuestError

_CHUNK_BYTES = 1 << 17


class _Buffer(ctypes.Structure):
    """``ZSTD_inBuffer`` and ``ZSTD_outBuffer``: the same three words.

    Source: zstd.h, "Streaming".
    """

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def available() -> bool:
    """Tell whether this host can decompress Zstandard at all."""
    return _library() is not None or shutil.which("zstd") is not None


def chunks(source: IO[bytes]) -> Iterator[bytes]:
    """Yield what `source` decompresses to, piece by piece.

    Raises:
        GuestError: the data is not Zstandard, is cut short, or this host can decompress none.
    """
    library = _library()
    if library is None:
        yield _by_program(source.read())
        return
    stream = library.ZSTD_createDStream()
    try:
        yield from _streamed(library, stream, source)
    finally:
        library.ZSTD_freeDStream(stream)


def decompress(data: bytes) -> bytes:
    """Return what `data`, whole Zstandard frames, decompresses to; raises as `chunks` does."""
    return b"".join(chunks(io.BytesIO(data)))


def _streamed(library: Any, stream: int, source: IO[bytes]) -> Iterator[bytes]:
    room = ctypes.create_string_buffer(_CHUNK_BYTES)
    hint = 1  # 0 when a frame has just ended
    while piece := source.read(_CHUNK_BYTES):
        given = ctypes.create_string_buffer(piece, len(piece))
        taken = _Buffer(ctypes.addressof(given), len(piece), 0)
        full = True
        while taken.pos < taken.size or full:
            made = _Buffer(ctypes.addressof(room), _CHUNK_BYTES, 0)
            hint = library.ZSTD_decompressStream(stream, ctypes.byref(made), ctypes.byref(taken))
            if library.ZSTD_isError(hint):
                raise GuestError(f"damaged Zstandard data: {library.ZSTD_getErrorName(hint).decode()}")
            full = made.pos == _CHUNK_BYTES
            if made.pos:
                yield room.raw[: made.pos]
            if hint == 0 and taken.pos == taken.size:
                break
    if hint != 0:
        raise GuestError("Zstandard data ends in the middle of a frame: the file is cut short")


def _library() -> Any:
    name = ctypes.util.find_library("zstd") or "libzstd.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_createDStream.argtypes = []
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


def _by_program(data: bytes) -> bytes:
    try:
        done = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True)
    except FileNotFoundError:
        raise GuestError(
            "the file is compressed with Zstandard, and neither libzstd nor the zstd program is here; "
            "install one: apt install zstd"
        ) from None
    except subprocess.CalledProcessError as failed:
        raise GuestError(f"zstd -dc failed: {failed.stderr.decode(errors='replace').strip()}") from None
    return done.stdout
