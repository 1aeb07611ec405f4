"""Whole files only: what a killed writer leaves, digests, moves."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys

import pytest

from course.cluster.config import files
from course.error import ClusterError


def names(folder):
    """Return the names in a folder."""
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_in_one_step(tmp_path):
    """Who has the old file open goes on reading the old content; the new one has its mode and digest."""
    path = tmp_path / "nodes" / "michael" / "169.conf"
    files.write(path, "old\n")
    with path.open() as reader:
        new = files.write(path, "new\n", mode=0o600)
        assert reader.read() == "old\n"
    assert path.read_text() == "new\n"
    assert hashlib.sha1(b"new\n").hexdigest() == new
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path.parent) == ["169.conf"]


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, step):
    """A full disk at any step changes nothing and leaves nothing."""
    path = tmp_path / "169.conf"
    files.write(path, "old\n")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new\n")
    assert path.read_text() == "old\n"
    assert names(tmp_path) == ["169.conf"]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    """A child that is killed before the last step leaves the old content and one file that sweep removes."""
    path = tmp_path / "a" / "169.conf"
    files.write(path, "old\n")
    killed = "import os, pathlib, sys; from course.cluster.config import files; os.fsync = lambda _: os._exit(9)"
    writer = [sys.executable, "-c", f"{killed}; files.write(pathlib.Path(sys.argv[1]), 'new')", path]
    assert subprocess.run(writer, check=False).returncode == 9
    assert path.read_text() == "old\n"
    assert len(files.sweep(tmp_path)) == 1
    assert names(path.parent) == ["169.conf"]


def test_a_file_is_created_once(tmp_path):
    """The second creator is refused and changes nothing."""
    path = tmp_path / "169.conf"
    assert files.create(path, "first\n") == files.digest("first\n")
    with pytest.raises(FileExistsError):
        files.create(path, "second\n")
    assert path.read_text() == "first\n"
    assert names(tmp_path) == ["169.conf"]


def test_a_move_never_overwrites(tmp_path):
    """A guest's file moves to a node that has none of that number; else both stay."""
    source, target = tmp_path / "franklin" / "169.conf", tmp_path / "trevor" / "169.conf"
    files.write(source, "cores: 1\n")
    files.move(source, target)
    assert (source.exists(), target.read_text()) == (False, "cores: 1\n")
    files.write(source, "cores: 2\n")
    with pytest.raises(ClusterError, match="exists already"):
        files.move(source, target)
    assert (source.read_text(), target.read_text()) == ("cores: 2\n", "cores: 1\n")


def test_a_clients_digest_is_compared_when_it_sends_one():
    """A digest of an older file is refused; none, or the right one, passes."""
    files.assert_unchanged("aa", None)
    files.assert_unchanged("aa", "aa")
    with pytest.raises(ClusterError, match="file changed by other user"):
        files.assert_unchanged("aa", "bb")


def test_bytes_that_are_no_text_survive(tmp_path):
    """A file in Latin 1 is read and written back as it was."""
    path = tmp_path / "x"
    path.write_bytes(b"#\xe9\n")
    files.write(path, files.read(path))
    assert path.read_bytes() == b"#\xe9\n"
    assert files.read(tmp_path / "nothing") == ""
