"""The live CD: boots, installs itself on a disk, and the disk boots."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from course import Machine, guest
from course.error import GuestError
from course.guest import iso, kernel, template
from course.machine import disk as images

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("linux_files")]

RAM = ("-m", str(iso.LIVE_RAM_MIB))


def await_shell(vm: Machine) -> None:
    """Wait for the live system's prompt."""
    vm.console.expect(template.READY, 120)
    vm.console.expect(template.PROMPT)


def virtio_disk(path: Path, bootindex: int = 1) -> tuple[str, ...]:
    """QEMU arguments of a disk after the CD."""
    return (
        *("-blockdev", f"driver=qcow2,node-name=d,file.driver=file,file.filename={path}"),
        *("-device", f"virtio-blk-pci,drive=d,bootindex={bootindex}"),
    )


@pytest.fixture
def live() -> Iterator[Path]:
    """The live image."""
    try:
        yield guest.iso.live()
    except GuestError as error:
        if "cannot fetch" not in str(error):
            raise
        pytest.skip(f"no ISOLINUX here, and none can be fetched: {error}")


def test_live_cd_installs_on_a_disk_that_boots(live: Path, tmp_path: Path) -> None:
    """From the CD to an installed system that keeps what is written, with the CD still in the drive or not."""
    path = images.create(tmp_path / "disk.qcow2", 64)
    with Machine("-M", "q35", *RAM, *guest.iso.drive(live, bootindex=0), *virtio_disk(path)) as vm:
        await_shell(vm)
        assert vm.console.run("hostname; uname -r") == (0, f"live-system\n{kernel.ensure().release}\n")
        status, said = vm.console.run("install-to-disk", 60)
        assert status == 0, said
        assert "boot from the disk" in said
        assert vm.shutdown(30) == 0
    with Machine("-M", "q35", *RAM, *virtio_disk(path)) as vm:
        await_shell(vm)
        assert vm.console.run("hostname; cat /root/installed") == (0, "disk-system\ninstalled from the live CD\n")
        assert vm.console.run("echo mine >/root/note")[0] == 0
        status, said = vm.console.run("install-to-disk", 60)
        assert status == 1
        assert "no CD is seen" in said
        assert vm.shutdown(30) == 0
    with Machine("-M", "q35", *RAM, *guest.iso.drive(live, bootindex=2), *virtio_disk(path)) as vm:
        await_shell(vm)
        assert vm.console.run("hostname; cat /root/note") == (0, "disk-system\nmine\n")
        status, said = vm.console.run("install-to-disk", 60)
        assert status == 1
        assert "is in use" in said


def test_live_cd_boots_from_ide(live: Path, tmp_path: Path) -> None:
    """On a pc machine, -cdrom and -boot d do; a disk that is too small is refused with its size."""
    path = images.create(tmp_path / "disk.qcow2", 16)
    with Machine("-M", "pc", *RAM, "-cdrom", live, "-boot", "d", *virtio_disk(path, 9)) as vm:
        await_shell(vm)
        status, said = vm.console.run("install-to-disk", 60)
        assert status == 1
        assert "/dev/vda has 16 MiB, at least" in said
        status, said = vm.console.run("install-to-disk /dev/vdz", 60)
        assert status == 1
        assert "there is no disk /dev/vdz" in said


def test_live_image_boots_as_a_disk(live: Path) -> None:
    """The image is a hybrid: its first sector is a boot sector."""
    with Machine("-M", "q35", *RAM, "-drive", f"file={live},format=raw,if=virtio,snapshot=on") as vm:
        await_shell(vm)
        assert vm.console.run("hostname") == (0, "live-system\n")


def test_live_image_has_the_kernel_inside(live: Path, tmp_path: Path) -> None:
    """An ISO reader that is not ours finds the same kernel, and a partition table of one Linux partition."""
    import pycdlib

    reader = pycdlib.PyCdlib()
    reader.open(str(live))
    try:
        reader.get_file_from_iso(str(tmp_path / "vmlinuz"), rr_path="/boot/vmlinuz")
    finally:
        reader.close()
    assert (tmp_path / "vmlinuz").read_bytes() == kernel.ensure().image.read_bytes()
    if shutil.which("file"):
        told = subprocess.run(["file", "-b", str(live)], check=True, capture_output=True, text=True).stdout
        assert "bootable" in told
        assert "LIVE" in told


def test_live_names_have_one_length() -> None:
    """The installer writes one name over the other."""
    assert len(iso.LIVE_NAME) == len(iso.INSTALLED_NAME)
    script = (Path(iso.__file__).parent / "rootfs/sbin/install-to-disk").read_text()
    assert f"vm.name={iso.INSTALLED_NAME}'" in script


def test_isolinux_is_fetched_where_the_host_has_none(
    monkeypatch: pytest.MonkeyPatch, fresh_cache: Path, make_deb: object, make_repository: object
) -> None:
    """Without ISOLINUX on the host, its files come from the distribution's packages."""
    inside = {name: path.lstrip("/") for name, path in iso._FILES.items()}
    make_repository(
        make_deb("isolinux", {inside["isolinux.bin"]: b"loader"}),
        make_deb("syslinux-common", {inside["ldlinux.c32"]: b"library"}),
    )
    monkeypatch.setattr(iso, "_FILES", {name: f"/nowhere/{path}" for name, path in inside.items()})
    with pytest.raises(GuestError, match="where Debian puts it"):
        iso._loader()
    monkeypatch.setattr(iso, "_FILES", {name: f"//{path}" for name, path in inside.items()})
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert iso._loader() == {"isolinux.bin": b"loader", "ldlinux.c32": b"library"}
