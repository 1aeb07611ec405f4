"""Guests shared by the tests of machines; and a look at what they leave behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.machine import programs


@pytest.fixture(scope="session")
def boot_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk whose boot sector counts and echoes."""
    return programs.disk(tmp_path_factory.mktemp("boot"))


@pytest.fixture(scope="session")
def writing_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk whose boot sector keeps writing to RAM."""
    return programs.writing_disk(tmp_path_factory.mktemp("write"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Each test must leave no child process and no private directory of this process."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    directories = _directories()
    yield
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert _directories() <= directories


def _directories() -> set[str]:
    """Private directories whose sockets belong to this process's machines."""
    mine = {c.laddr for c in psutil.Process().net_connections("unix") if c.laddr}
    made = Path(tempfile.gettempdir()).glob("course-vm-*")
    return {path.name for path in made if any(f"/{path.name}/" in address for address in mine)}
