"""The ISO image that each node finds in its storage: the lab's own Linux, which `course.guest.labcd` makes."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ...error import CourseError
from ...guest import labcd
from ..state import State

FOLDER = "template/iso"


def provide(state: State) -> str:
    """Put the image into ``local`` of each node and into the shared storage, where it is not there yet.

    Args:
        state: the cluster's files.

    Returns:
        Empty, or why there is none: a computer without a network and without a kernel cannot make it.
    """
    places = [*(state.of(node) / "vz" / FOLDER for node in state.nodes), state.shared / FOLDER]
    missing = [folder / labcd.NAME for folder in places if not (folder / labcd.NAME).exists()]
    if not missing:
        return ""
    try:
        image = labcd.cd()
        for path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            _place(image, path)
    except (CourseError, OSError) as error:
        return str(error)
    return ""


def _place(image: Path, path: Path) -> None:
    """Give a file a second name, or copy it to another file system; it appears in one step."""
    with contextlib.suppress(OSError):
        os.link(image, path)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.copyfile(image, fresh)
    fresh.rename(path)
