"""Storages on directories of their own, without a node around them."""

from __future__ import annotations

import os

import pytest

from course.cluster.config.sections import TypedSection
from course.cluster.storage import DirectoryStorage, ThinStorage, set_capacity
from course.error import GuestError
from course.guest import template

MIB = 1 << 20
ALL_CONTENT = "images,rootdir,iso,vztmpl,backup,snippets"


@pytest.fixture
def local(tmp_path):
    """A directory storage with room for 256 MiB."""
    section = TypedSection("dir", "local", {"path": "/var/lib/vz", "content": ALL_CONTENT})
    set_capacity(tmp_path / "vz", 256 * MIB)
    return DirectoryStorage(section, tmp_path / "vz", "franklin")


@pytest.fixture
def thin(tmp_path):
    """A thin pool with room for 256 MiB."""
    section = TypedSection("lvmthin", "local-lvm", {"vgname": "pve", "thinpool": "data", "content": "images,rootdir"})
    set_capacity(tmp_path / "lvm", 256 * MIB)
    return ThinStorage(section, tmp_path / "lvm", "franklin")


@pytest.fixture(params=["local", "thin"])
def storage(request):
    """Each kind of storage."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def kernel():
    """The guest's kernel and initramfs are in the user's cache."""
    try:
        template.files()
    except GuestError as error:
        if os.environ.get("CI") or "cannot fetch" not in str(error):
            raise
        pytest.skip(f"no kernel here, and none can be fetched: {error}")
