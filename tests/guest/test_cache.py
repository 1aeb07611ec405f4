"""What is built once, by one, and never half."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course.error import GuestError
from course.guest import cache
from tests.guest.conftest import ROOT


class Builder:
    """Builds a file `data`, and counts how often."""

    def __init__(self, content: bytes = b"content") -> None:
        self.content = content
        self.built = 0

    def __call__(self, directory: Path) -> None:
        """Build."""
        self.built += 1
        (directory / "data").write_bytes(self.content)


def leftovers(folder: Path) -> list[Path]:
    """Files of the cache but locks."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_entry_is_built_once(fresh_cache: Path) -> None:
    """The second time it is found, with the digests of its files."""
    build = Builder()
    first = cache.entry("images", "k", build)
    assert cache.entry("images", "k", build) == first
    assert build.built == 1
    assert first.path == fresh_cache / "images/k"
    assert first.digests == {"data": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "data").write_bytes(b"cont"),
        lambda entry: (entry / "data").write_bytes(b"CONTENT"),
        lambda entry: (entry / "data").unlink(),
        lambda entry: (entry / "manifest.json").write_text('{"data": {"size"'),
        lambda entry: (entry / "manifest.json").write_text('{"data": 3}'),
        lambda entry: (entry / "manifest.json").unlink(),
        lambda entry: os.truncate(entry / "manifest.json", 0),
    ],
    ids=["cut", "changed", "missing", "manifest cut", "manifest odd", "no manifest", "manifest empty"],
)
def test_damaged_entry_is_built_again(fresh_cache: Path, damage: object) -> None:
    """Whatever is wrong with an entry is noticed and repaired."""
    build = Builder()
    found = cache.entry("images", "k", build)
    damage(found.path)
    again = cache.entry("images", "k", build)
    assert build.built == 2
    assert (again.path / "data").read_bytes() == b"content"
    assert cache.entry("images", "k", build) == again
    assert build.built == 2


def test_copied_entry_is_still_good(fresh_cache: Path) -> None:
    """Where only the times differ (a copied cache), the content decides."""
    build = Builder()
    found = cache.entry("images", "k", build)
    os.utime(found.path / "data", (1, 1))
    assert cache.entry("images", "k", build).digests == found.digests
    assert build.built == 1


def test_failed_build_leaves_nothing(fresh_cache: Path) -> None:
    """An exception passes through, even a Ctrl-C; the next call starts anew."""

    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.entry("images", "k", fail)
    assert leftovers(fresh_cache) == []
    assert cache.entry("images", "k", Builder()).digests


def test_killed_build_is_swept_away(fresh_cache: Path) -> None:
    """What a killed process left is removed by whoever builds the same next."""
    program = (
        "import os, signal; from course.guest import cache\n"
        "def build(directory):\n"
        "    (directory / 'half').write_bytes(b'ha'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache.entry('images', 'k', build)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len(leftovers(fresh_cache)) == 1
    found = cache.entry("images", "k", Builder())
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["k"]


def test_full_disk_is_a_sentence(fresh_cache: Path) -> None:
    """ENOSPC says where, what is needed and what to do; nothing is left."""

    def fill(directory: Path) -> None:
        (directory / "half").write_bytes(b"ha")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(GuestError, match=r"no room.*No space left.*nothing was left.*COURSE_CACHE"):
        cache.entry("images", "k", fill)
    assert leftovers(fresh_cache) == []


def test_space_is_asked_for_before_building(fresh_cache: Path) -> None:
    """A build that cannot fit is not begun."""
    build = Builder()
    with pytest.raises(GuestError, match=r"MiB are free, \d+ MiB are needed"):
        cache.entry("images", "k", build, needs_mib=1 << 40)
    assert build.built == 0


def test_really_full_file_system_is_a_sentence(tmp_path: Path) -> None:
    """On a file system of 2 MiB, an image of 8 MiB fails with a sentence and leaves it empty."""
    enter = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-Urm"]
    if not shutil.which("unshare") or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be had here to mount a small file system in")
    program = (
        "import os; from pathlib import Path; from course.guest import cache\n"
        "def build(directory): (directory / 'big').write_bytes(bytes(8 << 20))\n"
        "try: cache.entry('images', 'k', build)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print('left:', *[p.name for p in Path(os.environ['COURSE_CACHE']).rglob('*') if p.is_file()])"
    )
    script = f'mount -t tmpfs -o size=2m none {tmp_path} && exec "$0" -c "$1"'
    done = subprocess.run(
        [*enter, "sh", "-c", script, sys.executable, program],
        env={**os.environ, "COURSE_CACHE": str(tmp_path / "cache")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr and not done.stdout:
        pytest.skip("a small file system cannot be mounted here")
    assert "GuestError no room" in done.stdout, done.stderr
    assert "left: images-k.lock" in done.stdout


def test_closed_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is in the way, or not ours, names the remedy."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(GuestError, match="COURSE_CACHE"):
        cache.entry("images", "k", Builder())


def _build_in_child(folder: str, barrier: object) -> None:
    os.environ["COURSE_CACHE"] = folder
    barrier.wait()

    def build(directory: Path) -> None:
        with (Path(folder) / "builds").open("a") as file:
            file.write("built\n")
        (directory / "data").write_bytes(bytes(1 << 20))

    cache.entry("images", "k", build)


def test_two_processes_build_once(fresh_cache: Path) -> None:
    """Whoever comes second waits, and finds what the first has built."""
    fresh_cache.mkdir()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    children = [context.Process(target=_build_in_child, args=(str(fresh_cache), barrier)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (fresh_cache / "builds").read_text() == "built\n"


def test_old_entries_are_pruned(fresh_cache: Path) -> None:
    """Of each kind the least recently used go, unless they were used in the last day."""
    keys = [f"k{number:02}" for number in range(14)]
    for number, key in enumerate(keys):
        cache.entry("templates", key, Builder())
        os.utime(fresh_cache / "templates" / key, (number, number))
    cache.entry("templates", "new", Builder())
    kept = sorted(path.name for path in (fresh_cache / "templates").iterdir())
    assert kept == [*keys[-7:], "new"]
    for key in keys:
        cache.entry("templates", key, Builder())
    assert len(list((fresh_cache / "templates").iterdir())) == 15


def test_progress_hears_what_is_said() -> None:
    """Who watches hears it, who does not watch is left in peace."""
    heard: list[str] = []
    with cache.watched(heard.append):
        cache.tell("one")
        with cache.watched(None):
            cache.tell("two")
    cache.tell("three")
    assert heard == ["one", "two"]


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """COURSE_CACHE first, then XDG's, then ~/.cache."""
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("COURSE_CACHE", raising=False)
    assert cache.cache_dir() == Path("/h/.cache/virtualization-course")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_dir() == Path("/x/virtualization-course")
    monkeypatch.setenv("COURSE_CACHE", "~/c")
    assert cache.cache_dir() == Path("/h/c")


def test_key_tells_contents_apart() -> None:
    """Equal parts make equal keys, others others."""
    assert cache.key_of("a", b"b", [1]) == cache.key_of("a", b"b", [1])
    assert len({cache.key_of("a", b"b"), cache.key_of("a", b"c"), cache.key_of("ab"), cache.key_of("a", "b")}) == 4
    assert re.fullmatch("[0-9a-f]{20}", cache.key_of())
