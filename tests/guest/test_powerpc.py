"""The PowerPC guests: another processor, another byte order, the same machine under them."""

from __future__ import annotations

import base64
import gzip

import pytest

from course import isa
from course.error import GuestError
from course.guest import powerpc
from course.guest.cpio import Archive

pytestmark = pytest.mark.qemu


def _ready() -> bool:
    try:
        powerpc.ensure()
    except GuestError:
        return False
    return True


def test_the_firmware_of_a_macintosh_runs_forth():
    """Without any operating system, Open Firmware computes and prints."""
    with powerpc.macintosh('." answer:" 6 7 * . cr') as vm:
        found = vm.console.expect(r"answer:\s*(\w+)\s", timeout_s=60)
    assert int(found[1], 16) == 42


def test_a_linux_for_power_runs_programs_for_power():
    """It boots to a shell, is ppc64le, and runs the program that this host refuses."""
    if not _ready():
        pytest.skip("Debian's installer for ppc64el cannot be fetched here")
    text = base64.b64encode(isa.hello("ppc64le", "at home\n", 7)).decode()
    with powerpc.linux() as vm:
        vm.console.expect("guest-ready", timeout_s=120)
        assert vm.console.run("uname -m") == (0, "ppc64le\n")
        vm.console.run(f"echo {text} | base64 -d > hello; chmod +x hello")
        assert vm.console.run("./hello") == (7, "at home\n")


def test_the_small_root_keeps_what_a_shell_needs():
    """Busybox, its applets and the C library stay; the installer goes."""
    archive = Archive()
    archive.file("bin/busybox", b"\x7fELF", 0o755)
    archive.symlink("bin/ls", "busybox")
    archive.file("lib/powerpc64le-linux-gnu/libc.so.6", b"\x7fELF", 0o755)
    archive.file("usr/share/installer", b"x" * 1000)
    kept = {name for name, _, _ in powerpc._entries(powerpc._small_root(gzip.compress(archive.to_bytes())))}
    assert {"bin/busybox", "bin/ls", "lib/powerpc64le-linux-gnu/libc.so.6", "init", "dev/console"} <= kept
    assert "usr/share/installer" not in kept


@pytest.mark.parametrize(
    "damaged", [b"", b"no gzip", gzip.compress(b"no cpio", mtime=0)], ids=["empty", "text", "no cpio"]
)
def test_a_damaged_root_is_refused(damaged):
    """What is no archive gets a sentence."""
    with pytest.raises(GuestError, match=r"damaged|no newc archive"):
        powerpc._small_root(damaged)
