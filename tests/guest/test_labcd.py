"""What the lab cluster's guest has of its own; that it boots and answers is tried in tests/cluster/vm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from course.error import GuestError
from course.guest import initramfs, labcd

SCRIPTS = sorted(Path(labcd.__file__).with_name("lab").rglob("*"))


def test_the_archive_holds_the_scripts_and_the_drivers_in_order() -> None:
    """Same bytes each time; drivers are numbered as they are loaded."""
    archive = labcd.overlay({"first": b"1", "second": b"2"})
    assert archive == labcd.overlay({"first": b"1", "second": b"2"})
    for name in (b"sbin/guest-agent\0", b"etc/rc\0", b"lib/drivers/0-first.ko\0", b"lib/drivers/1-second.ko\0"):
        assert name in archive


def test_an_address_is_the_end_of_a_mac() -> None:
    """BC:24:11:aa:0a:01 is 10.69.10.1."""
    assert labcd.address_of("BC:24:11:AA:0A:01") == "10.69.10.1"


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.is_file() and path.read_bytes()[:2] == b"#!"])
def test_each_script_is_one_for_busybox(script: Path) -> None:
    """Its shell reads it to the end without complaint."""
    try:
        busybox = initramfs.busybox_path()
    except GuestError as missing:
        pytest.skip(str(missing))
    done = subprocess.run([str(busybox), "sh", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
