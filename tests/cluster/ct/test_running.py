"""Running containers, of namespaces and of guests: the same from outside, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from course.cluster.ct import template, tree
from course.cluster.ct.boxed import Boxed
from course.cluster.ct.guestbox import GuestBox
from course.container import namespaces
from course.error import CapabilityError, ClusterError, GuestError
from course.machine.process import alive, await_end_of
from tests.cluster.patience import until


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A container's disk, unpacked."""
    root = tmp_path_factory.mktemp("ct") / "root"
    root.mkdir()
    try:
        tree.unpack(template.ensure(), root)
    except GuestError as error:
        pytest.skip(str(error))
    return root


def boxed(disk, tmp_path, **options):
    """Start a container of namespaces."""
    try:
        return Boxed(200, disk, hostname="web", run=tmp_path / "run", **options)
    except CapabilityError as error:
        pytest.skip(f"no containers of namespaces here: {error.why}")


@pytest.fixture(params=["namespaces", pytest.param("guest", marks=pytest.mark.qemu)])
def running(request, disk, tmp_path):
    """A running container of each kind."""
    ends: list[int] = []
    if request.param == "guest":
        found = GuestBox(200, disk, hostname="web", on_end=ends.append)
    else:
        found = boxed(disk, tmp_path, on_end=ends.append)
    yield found
    found.kill()
    assert found.ended.wait(60)
    assert len(ends) == 1
    assert found.processes() == []


def test_a_container_is_root_in_a_world_of_its_own(running):
    """It has its own name, its own PID 1 and root; commands end with their status, and unknown ones with 127."""
    assert running.exec(["hostname"]) == (0, b"web\n")
    assert running.exec(["id", "-u"]) == (0, b"0\n")
    assert running.exec(["cat", "/proc/1/comm"]) == (0, b"init\n")
    assert running.exec(["sh", "-c", "exit 3"]) == (3, b"")
    assert running.exec(["nosuch"])[0] == 127
    assert running.exec(["wc", "-c"], stdin=b"hello") == (0, b"5\n")
    assert alive(running.pid)


def test_a_container_keeps_its_files_and_shuts_down_when_asked(running):
    """What it wrote is on its disk after a shutdown; the kernel says how PID 1 ended."""
    assert running.exec(["sh", "-c", "echo kept >/root/file; rm -f /root/missing"]) == (0, b"")
    running.ask_to_end()
    assert running.ended.wait(120)
    assert running.status == -2  # SIGINT: how the kernel ends the first process of a namespace that powers off
    assert (running.root / "root/file").read_text() == "kept\n"


def test_a_copy_of_a_frozen_container_has_its_last_write(running):
    """Freezing brings the disk up to date; afterwards the container goes on."""
    assert running.exec(["sh", "-c", "echo before >/root/state"]) == (0, b"")
    running.freeze(True)
    copied = (running.root / "root/state").read_text()
    running.freeze(False)
    assert copied == "before\n"
    assert running.exec(["cat", "/root/state"]) == (0, b"before\n")


def test_namespaces_are_not_the_nodes(disk, tmp_path):
    """The kernel's own links say that nothing of the node's world is shared, and no path leads to the node's files."""
    found = boxed(disk, tmp_path)
    try:
        ours, theirs = namespaces.of(), namespaces.of(found.pid)
        shared = {kind for kind in ("user", "mnt", "pid", "uts", "ipc", "net") if ours[kind] == theirs[kind]}
        assert shared == set()
        (tmp_path / "secret").write_text("mine")
        assert found.exec(["cat", str(tmp_path / "secret")])[0] == 1
        assert found.exec(["ls", "/"])[1].split() == sorted(path.name.encode() for path in disk.iterdir())
    finally:
        found.kill()


def test_a_program_that_takes_too_long_is_ended(disk, tmp_path):
    """Nothing of it goes on in the container."""
    found = boxed(disk, tmp_path)
    try:
        with pytest.raises(ClusterError, match="got timeout"):
            found.exec(["sleep", "3600"], timeout_s=0.2)
        until("its end", lambda: b"sleep 3600" not in found.exec(["ps"])[1])
    finally:
        found.kill()


def test_a_shell_has_a_terminal(disk, tmp_path):
    """What is typed is executed, and ``exit`` ends it."""
    found = boxed(disk, tmp_path)
    try:
        master, shell = found.shell()
        os.write(master, b"test -t 0 && echo $((6 * 7)); exit\n")
        said = b""
        while not said.count(b"42"):
            said += os.read(master, 4096)
        assert shell.ended.wait(60)
        os.close(master)
    finally:
        found.kill()


def test_a_reboot_from_inside_is_told_from_a_power_off(disk, tmp_path):
    """The status of PID 1 says which of the two it was."""
    found = boxed(disk, tmp_path)
    found.exec(["sh", "-c", "reboot"])
    assert found.ended.wait(120)
    assert found.status == -1


def test_nothing_outlives_the_node(disk, tmp_path):
    """A container whose node is killed is gone, with every process in it."""
    boxed(disk, tmp_path).kill()
    program = (
        "import sys; from pathlib import Path; from course.cluster.ct.boxed import Boxed\n"
        f"ct = Boxed(200, Path({str(disk)!r}), hostname='web', run=Path({str(tmp_path)!r}))\n"
        "ct.exec(['sh', '-c', 'sleep 3600 </dev/null >/dev/null 2>&1 &'])\n"
        "print(*ct.processes(), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as node:
        pids = [int(word) for word in node.stdout.readline().split()]
        assert len(pids) >= 2
        assert all(map(alive, pids))
        node.kill()
        node.wait()
    assert [pid for pid in pids if not await_end_of(pid, 60)] == []


def test_a_program_that_is_no_init_is_refused_with_its_reason(disk, tmp_path):
    """A container whose PID 1 cannot be executed says so."""
    boxed(disk, tmp_path).kill()
    with pytest.raises(ClusterError, match="No such file or directory: /sbin/nothing"):
        Boxed(200, disk, hostname="web", run=tmp_path, init=["/sbin/nothing"])


def test_guests_name_their_container_on_the_command_line(disk):
    """Whoever looks for the processes of container 200 finds its QEMU."""
    found = GuestBox(200, disk, hostname="web")
    try:
        words = Path(f"/proc/{found.pid}/cmdline").read_bytes().split(b"\0")
        assert words[words.index(b"-name") + 1] == b"ct200"
    finally:
        found.kill()
    until("the end of QEMU", lambda: not alive(found.pid) if found.pid else True)
