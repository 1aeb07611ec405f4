"""Programs for other systems, made of bytes, to see what a kernel says to them."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
from pathlib import Path

AMD64 = 0x8664


def windows_program() -> bytes:
    """Return the headers of a Windows program for x86-64, enough for any loader to know what it is.

    Source: Microsoft, PE Format, "MS-DOS Stub" and "COFF File Header".
    """
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)  # at 60: where the PE header begins
    coff = struct.pack("<HHIIIHH", AMD64, 1, 0, 0, 0, 240, 0x22)
    return dos + b"PE\0\0" + coff + bytes(400)


def try_to_run(program: bytes, *, timeout_s: float = 10.0) -> str:
    """Ask this machine's kernel to run a program; return what it said or what the program wrote."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program")
        path.write_bytes(program)
        path.chmod(0o755)
        try:
            done = subprocess.run([path], capture_output=True, timeout=timeout_s, check=False)
        except OSError as error:
            return f"{errno.errorcode.get(error.errno or 0, '?')}: {os.strerror(error.errno or 0)}"
        return done.stdout.decode(errors="replace").strip() or f"exit code {done.returncode}"
