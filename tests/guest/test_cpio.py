"""Our archives against cpio(1)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from course.guest.cpio import Archive

needs_cpio = pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio(1), the judge, is not on this system")


def archive() -> bytes:
    """One of each kind of entry."""
    made = Archive()
    made.directory("tmp", 0o1777)
    made.file("etc/deep/er/file", b"12345", 0o640)
    made.file("odd", b"7 bytes")
    made.file("/bin/tool", b"#!/bin/sh\n", 0o755)
    made.symlink("bin/sh", "/bin/busybox")
    made.character_device("dev/console", 5, 1)
    made.directory("etc")
    return made.to_bytes()


@needs_cpio
def test_archive_is_listed_by_cpio() -> None:
    """Modes, sizes, links and devices are read back as they were meant, owned by root."""
    done = subprocess.run(["cpio", "-itvn", "--quiet"], input=archive(), capture_output=True, check=True)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    told = {row[-1] if "->" not in row else row[-3]: (row[0], row[2], row[3]) for row in rows}
    assert told["tmp"] == ("drwxrwxrwt", "0", "0")
    assert told["etc/deep/er/file"] == ("-rw-r-----", "0", "0")
    assert told["bin/tool"][0] == "-rwxr-xr-x"
    assert told["bin/sh"][0] == "lrwxrwxrwx"
    assert told["dev/console"][0] == "crw-------"
    assert " 5,   1 " in done.stdout.decode()
    names = [row[-1] if "->" not in row else row[-3] for row in rows]
    assert names.count("etc") == 1
    assert names.index("etc") < names.index("etc/deep") < names.index("etc/deep/er/file")


@needs_cpio
def test_archive_is_unpacked_by_cpio(tmp_path: Path) -> None:
    """Contents of all lengths come out whole: the padding between entries is right."""
    made = Archive()
    contents = {f"length-{size}": bytes([size % 251]) * size for size in (0, 1, 2, 3, 4, 5, 511, 512, 513)}
    for name, content in contents.items():
        made.file(name, content)
    subprocess.run(["cpio", "-id", "--quiet"], input=made.to_bytes(), cwd=tmp_path, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents


def test_archive_is_the_same_every_time() -> None:
    """The same entries make the same bytes: the cache depends on it."""
    assert archive() == archive()
    assert len(archive()) % 512 == 0
