"""Fetching packages with apt's own programs, from repositories made here: no network is needed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from course.error import GuestError
from course.guest import apt, cache, kernel
from course.guest.deb import Deb
from tests.guest.conftest import use_sources

MODULES = {f"lib/modules/9.9/kernel/{name}.ko": b"\0depends=\0" for name in ("virtio_pci", "virtio_blk", "evdev")}


def ubuntu(make_deb: Callable[..., Path]) -> list[Path]:
    """A kernel in Ubuntu's manner: a metapackage, the image, and its modules apart."""
    return [
        make_deb("linux-image-virtual", {}, depends="linux-image-9.9-generic, linux-firmware"),
        make_deb("linux-image-9.9-generic", {"boot/vmlinuz-9.9": b"kernel"}, depends="kmod, linux-modules-9.9-generic"),
        make_deb("linux-modules-9.9-generic", MODULES),
    ]


def test_fetch_follows_a_metapackage_to_the_kernel(
    fresh_cache: Path, make_deb: Callable[..., Path], make_repository: Callable[..., Path]
) -> None:
    """The concrete image and its modules are fetched, not the metapackage, and nothing else is left."""
    make_repository(*ubuntu(make_deb))
    found = apt.fetch("kernel", kernel.CANDIDATES, kernel._CONCRETE, kernel._COMPANIONS)
    assert sorted(found.digests) == ["linux-image-9.9-generic_1_amd64.deb", "linux-modules-9.9-generic_1_amd64.deb"]
    assert sorted(path.name for path in found.path.iterdir()) == [*sorted(found.digests), "manifest.json"]
    assert Deb(found.path / "linux-image-9.9-generic_1_amd64.deb").fields()["Package"] == "linux-image-9.9-generic"


def test_fetch_prefers_the_cloud_kernel(
    fresh_cache: Path, make_deb: Callable[..., Path], make_repository: Callable[..., Path]
) -> None:
    """Debian's cloud kernel is taken where both are known."""
    cloud = make_deb("linux-image-9.9-cloud-amd64", {"boot/vmlinuz-9.9-cloud-amd64": b"kernel"})
    meta = make_deb("linux-image-cloud-amd64", {}, depends="linux-image-9.9-cloud-amd64")
    make_repository(cloud, meta, *ubuntu(make_deb))
    found = apt.fetch("kernel", kernel.CANDIDATES, kernel._CONCRETE, kernel._COMPANIONS)
    assert list(found.digests) == ["linux-image-9.9-cloud-amd64_1_amd64.deb"]


def test_fetched_package_is_not_fetched_again(
    fresh_cache: Path,
    make_deb: Callable[..., Path],
    make_repository: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is there and readable serves, even when apt is gone."""
    make_repository(make_deb("busybox-static", {"bin/busybox": b"x"}))
    first = apt.fetch("busybox-static", ("busybox-static",), "")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert apt.fetch("busybox-static", ("busybox-static",), "") == first


def test_damaged_package_is_fetched_again(
    fresh_cache: Path, make_deb: Callable[..., Path], make_repository: Callable[..., Path]
) -> None:
    """A file that is not what was fetched is thrown away."""
    make_repository(make_deb("busybox-static", {"bin/busybox": b"x"}))
    first = apt.fetch("busybox-static", ("busybox-static",), "")
    package = first.path / next(iter(first.digests))
    package.write_bytes(package.read_bytes()[:100])
    second = apt.fetch("busybox-static", ("busybox-static",), "")
    assert second == first
    assert Deb(package).fields()["Package"] == "busybox-static"


def test_no_network_is_a_sentence_with_evidence(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the package, the command, what apt said and what to do, and leaves nothing behind."""
    use_sources(tmp_path, monkeypatch, "deb http://127.0.0.1:9/debian stable main")
    with pytest.raises(GuestError) as caught:
        kernel.ensure()
    said = str(caught.value)
    assert "linux-image-cloud-amd64" in said
    assert "apt-get -q update" in said
    assert "127.0.0.1:9" in said
    assert "COURSE_KERNEL_DEB" in said
    assert [path for path in fresh_cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_no_apt_is_a_sentence(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without apt, the way by hand is named."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(GuestError, match=r"not found on this system[\s\S]*COURSE_KERNEL_DEB"):
        kernel.ensure()


def test_kernel_package_by_hand_needs_no_apt(
    fresh_cache: Path, make_deb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """COURSE_KERNEL_DEB names packages; they are unpacked and nothing is fetched."""
    wanted = [name.rstrip("?") for name in (*kernel.BOOT_MODULES, *kernel.LATER_MODULES)]
    files = {f"lib/modules/9.9/kernel/{name}.ko": f"\0depends=\0name={name}\0".encode() for name in wanted}
    given = [make_deb("linux-image-9.9", {"boot/vmlinuz-9.9": b"kernel"}), make_deb("linux-modules-9.9", files)]
    monkeypatch.setenv("COURSE_KERNEL_DEB", ":".join(map(str, given)))
    monkeypatch.setenv("PATH", "/nonexistent")
    found = kernel.ensure()
    assert found.release == "9.9"
    assert found.image.read_bytes() == b"kernel"
    assert (found.modules / "overlay.ko").exists()
    assert not (fresh_cache / "packages").exists()


def test_kernel_package_by_hand_that_is_none_is_refused(
    fresh_cache: Path, make_deb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A metapackage or a wrong path says what was expected."""
    monkeypatch.setenv("COURSE_KERNEL_DEB", str(make_deb("linux-image-cloud-amd64", {})))
    with pytest.raises(GuestError, match="not the metapackage"):
        kernel.ensure()
    monkeypatch.setenv("COURSE_KERNEL_DEB", str(tmp_path / "missing.deb"))
    with pytest.raises(GuestError, match="is no file"):
        kernel.ensure()


def test_fetch_works_for_an_unprivileged_user(
    make_deb: Callable[..., Path],
    make_repository: Callable[..., Path],
    as_nobody: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Neither root nor apt's own folders are needed."""
    make_repository(make_deb("busybox-static", {"bin/busybox": b"x"}))
    done = as_nobody(
        "import os; from course.guest import apt\n"
        "print(os.getuid(), *apt.fetch('busybox-static', ('busybox-static',), '').digests)",
        APT_CONFIG=str(tmp_path / "apt.conf"),
    )
    assert done.stdout.split()[1:] == ["busybox-static_1_amd64.deb"], done.stderr
    assert done.stdout.split()[0] != "0"


def test_system_lists_stay_as_they_are(
    fresh_cache: Path, make_deb: Callable[..., Path], make_repository: Callable[..., Path]
) -> None:
    """The apt state of the system is read, never written."""
    lists = Path("/var/lib/apt/lists")
    if not lists.is_dir():
        pytest.skip("this system has no apt lists")
    before = {path: path.stat().st_mtime_ns for path in lists.iterdir()}
    make_repository(make_deb("busybox-static", {"bin/busybox": b"x"}))
    apt.fetch("busybox-static", ("busybox-static",), "")
    assert {path: path.stat().st_mtime_ns for path in lists.iterdir()} == before


def test_busybox_of_the_host_must_fit_the_guest(tmp_path: Path) -> None:
    """Only a static x86-64 program can be the guest's userland."""
    from course.guest.initramfs import is_static_x86
    from course.guest.ramcounter import program

    static = tmp_path / "static"
    static.write_bytes(program())
    assert is_static_x86(static)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n" + "#" * 80)
    assert not is_static_x86(script)
    arm = bytearray(program())
    arm[18] = 183
    static.write_bytes(arm)
    assert not is_static_x86(static)
    if Path("/bin/ls").exists() and shutil.which("file"):
        assert not is_static_x86(Path("/bin/ls"))


def test_busybox_is_fetched_where_the_host_has_none(
    fresh_cache: Path,
    make_deb: Callable[..., Path],
    make_repository: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a static busybox on the host, the package's is unpacked and can be run."""
    from course.guest import initramfs

    make_repository(make_deb("busybox-static", {"usr/bin/busybox": b"the program"}))
    monkeypatch.setattr(initramfs, "is_static_x86", lambda _: False)
    path = initramfs.busybox_path()
    assert path.read_bytes() == b"the program"
    assert path.is_relative_to(cache.cache_dir())
    assert path.stat().st_mode & 0o111
