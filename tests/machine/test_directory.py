"""Private directories do not pile up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from course.error import UsageError
from course.machine.directory import PrivateDirectory, checked_socket_path

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory of its own, with a short name."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_directory_is_private_and_removed(base: Path) -> None:
    """Mode 0700, and gone after remove(), which is safe twice."""
    directory = PrivateDirectory()
    assert directory.path.stat().st_mode & 0o777 == 0o700
    (directory.path / "file").touch()
    directory.remove()
    directory.remove()
    assert list(base.iterdir()) == []


def test_directory_of_a_killed_process_is_swept(base: Path) -> None:
    """The next one removes it; that of a living process stays."""
    program = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from course.machine.directory import PrivateDirectory\n"
        "print(PrivateDirectory().path, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(base)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        mine = PrivateDirectory()
        assert theirs.exists()
        other.kill()
    assert theirs.exists()
    PrivateDirectory().remove()
    assert not theirs.exists()
    assert mine.path.exists()
    mine.remove()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_directory_is_not_removed_by_a_forked_copy(base: Path) -> None:
    """Only its owner removes it."""
    directory = PrivateDirectory()
    pid = os.fork()
    if pid == 0:
        directory.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert directory.path.exists()
    directory.remove()


def test_socket_path_is_as_long_as_the_kernel_allows(tmp_path: Path) -> None:
    """107 bytes can be bound, 108 are refused here as by the kernel; bytes count, not characters."""
    import socket

    room = 107 - len(str(tmp_path)) - 1
    longest = str(tmp_path / ("x" * room))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(checked_socket_path(longest))
    with pytest.raises(UsageError, match="is 108 bytes long"):
        checked_socket_path(longest + "x")
    with pytest.raises(UsageError):
        checked_socket_path("/tmp/" + "é" * 60)


@pytest.mark.parametrize("prefix", ["", "c", "course-", "lab-", "/tmp/course-vm-", "course-*-"])
def test_prefixes_of_others_are_refused(prefix: str, base: Path) -> None:
    """A directory whose prefix could match somebody else's is refused, and nothing is removed."""
    other = base / "course-work"
    other.mkdir()
    with pytest.raises(UsageError, match="not ours"):
        PrivateDirectory(prefix)
    assert other.exists()
