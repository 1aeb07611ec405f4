"""Finding QEMU and asking what it can do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from course.error import CapabilityError
from course.machine import qemu


def _fake(directory: Path, script: str, name: str = "qemu-system-x86_64") -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.qemu
def test_find_returns_the_path_of_a_usable_qemu() -> None:
    """What the shell would start is found, with the version that it tells."""
    path = qemu.find()
    assert str(path) == shutil.which("qemu-system-x86_64")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    assert ".".join(map(str, qemu.version())) in said


def test_find_of_a_missing_program_names_its_package() -> None:
    """The remedy is a command."""
    with pytest.raises(CapabilityError) as caught:
        qemu.find("/nowhere/qemu-img")
    assert caught.value.remedy == "Install it: sudo apt-get install qemu-utils"
    assert caught.value.capability == "/nowhere/qemu-img"


def test_find_refuses_a_qemu_that_is_too_old(tmp_path: Path) -> None:
    """Both versions are in the message."""
    old = _fake(tmp_path, "echo QEMU emulator version 5.2.0")
    with pytest.raises(CapabilityError, match=r"is version 5\.2\.0, at least 7\.2 is needed"):
        qemu.find(old)


def test_find_refuses_what_is_no_qemu(tmp_path: Path) -> None:
    """A program that says something else is shown with what it said."""
    with pytest.raises(CapabilityError, match="answered 'hello' instead of a version"):
        qemu.find(_fake(tmp_path, "echo hello"))
    broken = _fake(tmp_path, "", name="qemu-img")
    broken.write_bytes(b"\x7fELFbroken")
    with pytest.raises(CapabilityError, match="does not run"):
        qemu.find(broken)


def test_version_is_asked_again_after_an_upgrade(tmp_path: Path) -> None:
    """The answer is kept per file version, not per path."""
    path = _fake(tmp_path, "echo QEMU emulator version 7.2.0")
    assert qemu.version(path) == (7, 2, 0)
    path.unlink()
    path = _fake(tmp_path, "echo QEMU emulator version 8.2.2")
    assert qemu.version(path) == (8, 2, 2)


@pytest.mark.qemu
def test_supports_knows_options_and_their_values() -> None:
    """Whole words only: -netdev user, not -netdev use."""
    assert qemu.supports("qemu-system-x86_64", "-netdev")
    assert not qemu.supports("qemu-system-x86_64", "-no-such-option")
    assert qemu.supports("qemu-system-x86_64", "-netdev", "socket")
    assert not qemu.supports("qemu-system-x86_64", "-netdev", "socke")
    assert qemu.supports("qemu-system-x86_64", "-accel", "tcg")
