"""Our reader of packages against dpkg-deb, which wrote them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from course.error import GuestError
from course.guest import zstd
from course.guest.deb import Deb

FILES = {"boot/vmlinuz-9.9": bytes(range(256)) * 4000, "usr/share/empty": b"", "usr/lib/a file": b"with a space"}


@pytest.mark.parametrize("compression", ["xz", "gzip", "none", "zstd"])
def test_deb_reads_what_dpkg_deb_writes(make_deb: Callable[..., Path], compression: str) -> None:
    """Names, contents and fields are the same under every compression that packages use."""
    deb = Deb(make_deb("one", FILES, depends="two", compression=compression))
    assert dict(deb.files(lambda _: True)) == FILES
    assert sorted(deb.names()) == sorted(FILES)
    assert deb.fields()["Depends"] == "two"
    assert deb.fields()["Package"] == "one"
    assert "with a second line" not in deb.fields()


def test_deb_reads_only_what_is_wanted(make_deb: Callable[..., Path]) -> None:
    """A wish is a predicate of the path without its leading dot."""
    deb = Deb(make_deb("one", FILES))
    assert [name for name, _ in deb.files(lambda path: path.startswith("boot/"))] == ["boot/vmlinuz-9.9"]


def test_deb_without_libzstd_asks_dpkg_deb(make_deb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing here decompresses Zstandard, dpkg-deb does."""
    monkeypatch.setattr(zstd, "available", lambda: False)
    deb = Deb(make_deb("one", FILES, compression="zstd"))
    assert dict(deb.files(lambda _: True)) == FILES
    assert deb.fields()["Package"] == "one"


@pytest.mark.parametrize("compression", ["xz", "gzip", "none", "zstd"])
def test_deb_that_is_cut_short_is_refused(make_deb: Callable[..., Path], tmp_path: Path, compression: str) -> None:
    """A half download says that it is one, whatever its compression."""
    whole = make_deb("one", FILES, compression=compression).read_bytes()
    cut = tmp_path / "cut.deb"
    cut.write_bytes(whole[:-300])
    with pytest.raises(GuestError, match=r"bytes, .* are there"):
        Deb(cut)


@pytest.mark.parametrize("compression", ["xz", "gzip", "zstd"])
def test_deb_that_is_damaged_is_refused(make_deb: Callable[..., Path], tmp_path: Path, compression: str) -> None:
    """Wrong bytes inside the data are noticed while reading."""
    damaged = bytearray(make_deb("one", FILES, compression=compression).read_bytes())
    damaged[-200:-100] = bytes(100)
    path = tmp_path / "damaged.deb"
    path.write_bytes(damaged)
    with pytest.raises(GuestError):
        list(Deb(path).files(lambda _: True))


def test_deb_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """A page of an unfriendly proxy is no package."""
    path = tmp_path / "page.deb"
    path.write_text("<html>log in first</html>")
    with pytest.raises(GuestError, match="does not begin with"):
        Deb(path)
    with pytest.raises(GuestError, match="cannot read"):
        Deb(tmp_path / "missing.deb")


def test_deb_lists_the_kernel_package_as_dpkg_deb_does(linux_files: object) -> None:
    """The real package that the guests come from has the same files for both readers."""
    from course.guest import cache

    packages = sorted((cache.cache_dir() / "packages/kernel").glob("linux-image-*.deb"))
    if not packages:
        pytest.skip("the kernel was named by hand")
    listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(packages[0])], check=True, capture_output=True).stdout
    told = subprocess.run(["tar", "-t"], input=listing, check=True, capture_output=True).stdout.decode().split("\n")
    assert sorted(Deb(packages[0]).names()) == sorted(
        name.removeprefix("./") for name in told if name and not name.endswith("/")
    )


def test_zstd_data_cut_short_is_refused(make_deb: Callable[..., Path]) -> None:
    """The end of a frame is awaited, not assumed."""
    deb = make_deb("one", FILES, compression="zstd").read_bytes()
    frames = deb[deb.rindex(b"\x28\xb5\x2f\xfd") :]
    with pytest.raises(GuestError, match="cut short"):
        zstd.decompress(frames[: len(frames) // 2])
    with pytest.raises(GuestError, match="damaged"):
        zstd.decompress(b"this is not it")
