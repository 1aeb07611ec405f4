"""Descriptors, held files, channels and services, with /proc and the C library as witnesses."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from course.error import UsageError
from course.kernel import descriptors, ipc, services
from course.kernel.holder import Held, Holder


def test_open_descriptors_are_those_of_the_process(tmp_path):
    """An open file is listed under its number until it is closed."""
    with (tmp_path / "note").open("w") as file:
        number = file.fileno()
        assert descriptors.open_descriptors()[number] == str(tmp_path / "note")
    assert descriptors.open_descriptors().get(number) != str(tmp_path / "note")


def test_the_mailbox_tells_content_and_kind():
    """A passed descriptor is read whole, whatever its position."""
    with descriptors.Mailbox() as mailbox, socket.socket(socket.AF_UNIX) as client:
        client.connect(mailbox.path)
        fd = os.memfd_create("gift")
        os.write(fd, b"content")
        socket.send_fds(client, [b"hello"], [fd])
        os.close(fd)
        client.shutdown(socket.SHUT_RDWR)
        (got,) = mailbox.wait(1)
    assert got == descriptors.Delivery(b"hello", (b"content",), ("/memfd:gift (deleted)",))


def test_the_mailbox_tells_bytes_without_descriptors():
    """A number sent as text arrives as text only."""
    with descriptors.Mailbox() as mailbox, socket.socket(socket.AF_UNIX) as client:
        client.connect(mailbox.path)
        client.sendall(b"7")
        client.shutdown(socket.SHUT_RDWR)
        (got,) = mailbox.wait(1)
    assert (got.data, got.contents) == (b"7", ())


def test_the_dispenser_hands_out_one_file_at_its_position():
    """The receiver gets the same open file, position included."""
    with descriptors.Dispenser(b"0123456789", position=4) as dispenser, socket.socket(socket.AF_UNIX) as client:
        client.connect(dispenser.path)
        data, fds, _, _ = socket.recv_fds(client, 100, 4)
        with os.fdopen(fds[0], "rb") as file:
            assert (data, len(fds), file.read()) == (b"parcel", 1, b"456789")


@pytest.mark.parametrize("make", [descriptors.Mailbox, lambda: descriptors.Dispenser(b"x")])
def test_nothing_is_left_open(make):
    """Sockets, files and addresses are gone at the end."""
    before = len(descriptors.open_descriptors())
    with make() as listener:
        path = Path(listener.path)
        assert path.exists()
    assert not path.parent.exists()
    assert len(descriptors.open_descriptors()) == before


def test_the_holder_keeps_what_has_no_name():
    """A deleted file can be read through /proc; a replaced one has another content under its name."""
    files = [Held("gone", b"old", replaced_by=b"new"), Held("here (deleted)", b"alive", deleted=False)]
    with Holder(files) as process:
        links = {v: k for k, v in descriptors.open_descriptors(process.pid).items()}
        gone = links[f"{process.path('gone')} (deleted)"]
        assert Path(f"/proc/{process.pid}/fd/{gone}").read_bytes() == b"old"
        assert process.path("gone").read_bytes() == b"new"
        assert str(process.path("here (deleted)")) in links
        folder = process.folder
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize("channel", ipc.CHANNELS)
@pytest.mark.parametrize("block", [64, 5000, 1 << 20])
def test_every_block_arrives(channel, block):
    """Whole blocks arrive in order, also when they do not fit into a buffer; nothing stays open."""
    before = len(descriptors.open_descriptors())
    seen = ipc.throughput(channel, block, total_bytes=max(block * 3, 20_000))
    assert seen.blocks == max(block * 3, 20_000) // block
    assert seen.mb_per_s > 0
    assert len(descriptors.open_descriptors()) == before


@pytest.mark.parametrize(("channel", "block"), [("carrier pigeon", 1024), ("pipe", 10), ("pipe", 1 << 30)])
def test_a_channel_that_cannot_be_meant_is_refused(channel, block):
    """The message names what was given."""
    with pytest.raises(UsageError, match=str(block) if channel == "pipe" else "carrier pigeon"):
        ipc.throughput(channel, block)


@pytest.mark.parametrize("path", ["/proc/version", "/", "."])
def test_file_systems_are_those_that_stat_names(path):
    """Coreutils' stat gives the same name, for those that both know."""
    theirs = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()
    same = {"ext2/ext3": "ext4", "overlayfs": "overlay", "cgroup2fs": "cgroup2"}
    mine = services.file_system_of(path)
    assert mine.startswith("0x") or mine == same.get(theirs, theirs)


def test_a_path_that_does_not_exist_is_an_os_error():
    """The kernel's own reason is kept."""
    with pytest.raises(FileNotFoundError):
        services.file_system_of("/no/such/path")


def test_services_are_what_the_kernel_lists():
    """Proc is always among the file systems, and never on a disk; sockets of this process are counted."""
    assert services.file_systems()["proc"] is False
    assert services.buses().keys() == {p.name for p in Path("/sys/bus").iterdir()}
    before = services.protocols()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
        assert services.protocols().keys() == before.keys()
