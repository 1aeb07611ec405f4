"""Start JupyterLab on the course: which folder, which port, which settings."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .error import UsageError

DEFAULT_PORT = 8888
PORTS_TRIED = 50
LESSONS = Path("release") / "en"
SETTINGS = Path(__file__).parent / "jupyter"


def course_root(start: Path | None = None) -> Path:
    """Return the folder that holds the lessons: a checkout, or what a student was given.

    Args:
        start: where to look first, then upwards; by default the working directory. A checkout that this package
            is part of is the last resort.

    Raises:
        UsageError: neither has a folder ``release/en``.
    """
    begin = (start or Path.cwd()).resolve()
    for folder in (begin, *begin.parents, Path(__file__).resolve().parents[1]):
        if (folder / LESSONS).is_dir():
            return folder
    raise UsageError(
        f"no lessons found: {begin} and the folders above it have no {LESSONS}/. "
        "Change to the course's folder first; in a fresh checkout `make build` makes the lessons."
    )


def free_port(wanted: int | None = None) -> int:
    """Return `wanted` (or 8888), or the next free port of the loopback address above it.

    Raises:
        UsageError: `wanted` is no port, or no port near it is free.
    """
    first = DEFAULT_PORT if wanted is None else wanted
    if not 0 < first < 65536:
        raise UsageError(f"{first} is no TCP port: expected 1 to 65535, such as --port {DEFAULT_PORT}")
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        if _is_free(port):
            return port
    raise UsageError(f"ports {first} to {first + PORTS_TRIED - 1} are all taken: choose another one with --port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def command(root: Path, *, port: int, browser: bool = True, arguments: tuple[str, ...] = ()) -> list[str]:
    """Return the command line of JupyterLab for the course in `root`."""
    return [sys.executable, "-m", "jupyterlab", *_options(root, port, browser), *arguments]


def _options(root: Path, port: int, browser: bool) -> Iterator[str]:
    yield f"--ServerApp.root_dir={root}"
    yield f"--port={port}"
    yield "--ServerApp.port_retries=0"
    yield f"--LabApp.default_url=/lab/tree/{LESSONS.as_posix()}"
    if not browser:
        yield "--no-browser"
    if os.geteuid() == 0:
        yield "--allow-root"


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment JupyterLab runs in: the given one (or ours), with the course's settings added.

    The user's own settings win over the course's.
    """
    result = dict(os.environ if base is None else base)
    theirs = [result["JUPYTER_CONFIG_PATH"]] if result.get("JUPYTER_CONFIG_PATH") else []
    result["JUPYTER_CONFIG_PATH"] = os.pathsep.join([*theirs, str(SETTINGS)])
    bin_folder = str(Path(sys.executable).parent)
    result["PATH"] = os.pathsep.join([bin_folder, result.get("PATH", os.defpath)])
    return result
