"""What the tests of guests share: an unprivileged user, tiny packages, a Linux that could be fetched."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from course.error import GuestError
from course.guest import template

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("COURSE_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def linux_files() -> template.Files:
    """Kernel and initramfs in the user's cache, fetched if they are not there."""
    try:
        return template.files()
    except GuestError as error:
        if os.environ.get("CI") or "cannot fetch" not in str(error):
            raise
        pytest.skip(f"no kernel here, and none can be fetched: {error}")


@pytest.fixture(scope="session")
def make_deb(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a package with dpkg-deb."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb, which makes the packages to read, is not on this system")

    def make(name: str, files: dict[str, bytes], *, depends: str = "", compression: str = "xz") -> Path:
        folder = tmp_path_factory.mktemp(name)
        tree = folder / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": name,
            "Version": "1",
            "Architecture": "amd64",
            "Maintainer": "Nobody <nobody@example.org>",
            "Description": "made for a test\n with a second line: not a field",
        }
        if depends:
            fields["Depends"] = depends
        (tree / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)
        made = folder / f"{name}_1_amd64.deb"
        command = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", str(tree), str(made)]
        subprocess.run(command, check=True, capture_output=True)
        return made

    return make


@pytest.fixture
def make_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes packages the only ones that apt knows, through a local repository."""

    def make(*packages: Path) -> Path:
        repository = tmp_path / "repository"
        repository.mkdir()
        index = []
        for package in packages:
            copy = Path(shutil.copy(package, repository))
            fields = subprocess.run(["dpkg-deb", "-f", str(copy)], check=True, capture_output=True, text=True).stdout
            digest = hashlib.sha256(copy.read_bytes()).hexdigest()
            index.append(f"{fields}Filename: ./{copy.name}\nSize: {copy.stat().st_size}\nSHA256: {digest}\n")
        (repository / "Packages").write_text("\n".join(index))
        use_sources(tmp_path, monkeypatch, f"deb [trusted=yes] file:{repository} ./")
        return repository

    return make


def use_sources(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Let `line` be apt's only source."""
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is not on this system")
    (folder / "sources.list").write_text(line + "\n")
    settings = {"Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
    (folder / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))


@functools.cache
def nobodys_python() -> list[str] | None:
    """Return a command that starts this project's Python as nobody, or None if there is no way."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return None
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for python in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run([*drop, python, "-c", same], capture_output=True, check=False, cwd="/")
        if done.returncode == 0:
            return [*drop, python]
    return None


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Return a function that runs a program of Python as an unprivileged user with a home of its own.

    Where the tests already run unprivileged, it runs as that user.
    """
    if os.getuid() != 0:
        python = [sys.executable]
    elif (found := nobodys_python()) is not None:
        python = found
    else:
        pytest.skip("no Python of this version can be run as an unprivileged user here (its folder may be closed)")
    home = tmp_path / "nobody"
    home.mkdir()
    top = Path(tempfile.gettempdir()).resolve()
    for folder in (home, *itertools.takewhile(lambda parent: parent != top, home.resolve().parents)):
        folder.chmod(0o755)
    if os.getuid() == 0:
        os.chown(home, NOBODY, NOBODY)

    def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
        clean = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONPATH": os.pathsep.join(paths),
            "COURSE_CACHE": str(home / "cache"),
            **environment,
        }
        return subprocess.run(
            [*python, "-c", program], env=clean, cwd=home, capture_output=True, text=True, timeout=200, check=False
        )

    yield run
    shutil.rmtree(home, ignore_errors=True)
