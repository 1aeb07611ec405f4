"""Control groups: found in what the kernel says, made where we may, and felt inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autograder.sandbox import Limits, cgroup

V2 = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope\n"
HYBRID = "5:pids:/\n4:memory:/jobs\n3:cpu:/\n0::/\n"


def test_places_are_read_from_the_kernels_words():
    """v2: beside our group, then in it; v1: in our groups of memory and pids."""
    app = Path("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice")
    assert list(cgroup.parents(V2, "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")) == [
        (app, ""),
        (app / "term.scope", ""),
    ]
    mounts = (
        "cgroup /cg/memory cgroup rw,memory 0 0\ncgroup /cg/pids cgroup rw,pids 0 0\ncgroup2 /cg/u cgroup2 rw 0 0\n"
    )
    assert list(cgroup.parents(HYBRID, mounts)) == [
        (Path("/cg/pids"), "pids"),
        (Path("/cg/memory/jobs"), "memory"),
        (Path("/cg/u"), ""),
    ]


def test_a_group_of_version_two_gets_its_limits(tmp_path, monkeypatch):
    """Made beside our own, where the parent hands the memory controller on; groups of dead keepers go."""
    own = tmp_path / "slice" / "own"
    own.mkdir(parents=True)
    (own.parent / "cgroup.subtree_control").write_text("memory pids")
    (own.parent / "course-box-999999999").mkdir()
    words = {"/proc/self/cgroup": "0::/slice/own\n", "/proc/self/mounts": f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"}
    monkeypatch.setattr(cgroup, "_read", words.__getitem__)
    (entrance,) = cgroup.make(os.getpid(), 1 << 20, 7)
    group = entrance.parent
    assert group == own.parent / f"course-box-{os.getpid()}"
    assert ((group / "memory.max").read_text(), (group / "pids.max").read_text()) == (str(1 << 20), "7")
    assert not (own.parent / "course-box-999999999").exists()


def test_no_group_is_no_error(tmp_path, monkeypatch):
    """A parent that hands nothing on, or a system without groups: the box goes without."""
    (tmp_path / "cgroup.subtree_control").write_text("")
    words = {"/proc/self/cgroup": "0::/\n", "/proc/self/mounts": f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"}
    monkeypatch.setattr(cgroup, "_read", words.__getitem__)
    assert cgroup.make(os.getpid(), 1 << 20, 7) == []
    monkeypatch.setattr(cgroup, "_read", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    assert cgroup.make(os.getpid(), 1 << 20, 7) == []


def test_a_box_is_in_its_group_and_the_group_goes_with_it(enter):
    """Seen from the host, where this machine has groups to give."""
    groups = cgroup.make(os.getpid(), 1 << 30, 100)
    cgroup.remove(groups)
    if not groups:
        pytest.skip("this machine has no control group for us")
    box = enter(limits=Limits(memory_mib=300)).box
    name = next(
        word for word in Path(f"/proc/{box.pid}/cgroup").read_text().split("/") if "course-box-" in word
    ).split()[0]
    places = [entrance.parents[1] / name for entrance in groups]
    assert all(place.is_dir() for place in places)
    box.kill()
    assert not any(place.exists() for place in places)


def test_memory_that_nobody_maps_is_bounded(enter):
    """Files in memory are counted as memory."""
    student = enter(limits=Limits(memory_mib=250))
    student.send(
        "import os, time\n"
        "for number in range(6):\n"
        "    fd = os.memfd_create('x')\n"
        "    for _ in range(100): os.write(fd, bytes(1 << 20))\n"
        "time.sleep(1000)"
    )
    assert student.box.wait(120)
