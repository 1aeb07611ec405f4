"""Which QEMU is here, and what it can do.

Features are read from ``--help`` and ``-option help``, never guessed from a version: distributions patch and
configure QEMU. The one version that matters is the oldest that this package can drive.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from ..error import CapabilityError

MINIMUM = (7, 2)
"""Oldest QEMU that the course was tried with (Debian 12 has it)."""

_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-i386": "qemu-system-x86",
    "qemu-system-riscv32": "qemu-system-misc",
    "qemu-system-riscv64": "qemu-system-misc",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-ppc": "qemu-system-ppc",
    "qemu-system-ppc64": "qemu-system-ppc",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
}
_PROBE_TIMEOUT_S = 20


def find(binary: str | Path = "qemu-system-x86_64") -> Path:
    """Return the full path of a QEMU program that is new enough.

    Args:
        binary: a name looked up on PATH, or a path.

    Raises:
        CapabilityError: when it is missing, does not run, or is older than `MINIMUM`; says what to install.
    """
    path = _locate(str(binary))
    found = version(path)
    if found < MINIMUM:
        raise CapabilityError(
            str(binary),
            f"{path} is version {_dotted(found)}, at least {_dotted(MINIMUM)} is needed",
            f"Install a newer {_package(str(binary))}, or put one earlier on PATH.",
        )
    return path


def version(binary: str | Path = "qemu-system-x86_64") -> tuple[int, ...]:
    """Return the version of a QEMU program as numbers, such as ``(7, 2, 22)``.

    Raises:
        CapabilityError: when it is missing or does not tell its version.
    """
    path = _locate(str(binary))
    said = _ask(path, "--version")
    if match := re.search(r"version (\d+(?:\.\d+)+)", said):
        return tuple(int(part) for part in match[1].split("."))
    first = said.strip().splitlines()[:1]
    raise CapabilityError(
        str(binary),
        f"{path} --version answered {first[0] if first else 'nothing'!r} instead of a version",
        f"Install {_package(str(binary))}, or put the real one earlier on PATH.",
    )


def supports(binary: str | Path, option: str, value: str | None = None) -> bool:
    """Tell whether a QEMU program knows an option, or a value of an option.

    Args:
        binary: a name looked up on PATH, or a path.
        option: such as ``"-sandbox"``; a word of ``--help``.
        value: such as ``"stream"`` for ``"-netdev"``; a word of ``-netdev help``.

    Raises:
        CapabilityError: when the program is missing.
    """
    path = _locate(str(binary))
    text = _ask(path, "--help") if value is None else _ask(path, option, "help")
    return re.search(rf"(?<![\w-]){re.escape(value or option)}(?![\w-])", text) is not None


def _locate(binary: str) -> Path:
    found = shutil.which(binary)
    if found is None:
        why = "there is no such program" if os.sep in binary else "it is not on PATH"
        raise CapabilityError(binary, why, f"Install it: sudo apt-get install {_package(binary)}")
    return Path(found)


def _package(binary: str) -> str:
    return _PACKAGES.get(Path(binary).name, "qemu-system")


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _ask(path: Path, *arguments: str) -> str:
    """Run ``path arguments`` and return all it wrote; asked once per file version."""
    return _ask_once(str(path), path.stat().st_mtime_ns, arguments)


@functools.lru_cache(maxsize=256)
def _ask_once(path: str, _mtime_ns: int, arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CapabilityError(
            path, f"it does not run ({error})", f"Reinstall it: sudo apt-get install --reinstall {_package(path)}"
        ) from error
    return done.stdout + done.stderr
