"""The probe: what it says where things are refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autograder.sandbox import Isolation, Level, Limits, probe, probing
from autograder.sandbox.level import worse


def test_the_probe_agrees_with_its_own_steps():
    """The level is the first way that is not refused, and asking twice costs nothing."""
    level = probe()
    assert probe() is level
    if level.level is not Isolation.NONE:
        assert probing.attempt(level) == ""


def test_what_is_refused_is_told(monkeypatch):
    """Each way that fails before the one that works is a reason."""
    answers = {Isolation.NAMESPACES: "EPERM", Isolation.BUBBLEWRAP: "no bwrap", Isolation.LANDLOCK: ""}
    monkeypatch.setattr(probing, "attempt", lambda level: answers[level.level])
    found = probing.measure()
    assert found.level is Isolation.LANDLOCK
    assert "bubblewrap refused: no bwrap" in found.reasons
    assert any("namespaces" in reason and "EPERM" in reason for reason in found.reasons)
    answers[Isolation.LANDLOCK] = "too old"
    assert probing.measure().level is Isolation.NONE


def test_a_probe_that_crashes_is_no_isolation(monkeypatch):
    """Nothing is taken for granted: what could not be tried does not work."""
    monkeypatch.setattr(probing.sys, "executable", "/bin/false")
    found = probing._probe.__wrapped__(0)
    assert found.level is Isolation.NONE
    assert "the probe failed" in found.reasons[0]


def test_other_systems_have_no_boxes(monkeypatch):
    """macOS: none, and the reason."""
    monkeypatch.setattr(probing.sys, "platform", "darwin")
    found = probing._probe.__wrapped__(0)
    assert (found.level, found.reasons) == (Isolation.NONE, ("darwin is not Linux",))


def test_without_user_namespaces_it_falls_back():
    """As in a container whose filter refuses unshare and mount: the way down is Landlock, and it says why."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _AS_IN_A_CONTAINER],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    level, *reasons = done.stdout.splitlines()
    assert level in ("landlock", "none")
    assert any("unshare" in reason for reason in reasons)


_AS_IN_A_CONTAINER = """
from autograder.sandbox import linux, probing, seccomp
linux.no_new_privileges()
seccomp.install()
level = probing.measure()
print(level.level, *level.reasons, sep="\\n")
"""


def test_levels_of_several_graders_are_summed_up():
    """The weakest counts; the reasons of all are kept."""
    levels = [Level(Isolation.NAMESPACES), Level(Isolation.LANDLOCK, ("a",)), Level(Isolation.BUBBLEWRAP, ("b", "a"))]
    assert worse(levels) == Level(Isolation.LANDLOCK, ("a", "b"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are POSIX's")
def test_limits_name_what_the_kernel_counts():
    """Sizes are in bytes there."""
    import resource

    limits = dict(Limits(address_space_mib=1, processes=5, cpu_s=9).by_process(others=2))
    assert limits[resource.RLIMIT_AS] == 1 << 20
    assert limits[resource.RLIMIT_NPROC] == 7
    assert limits[resource.RLIMIT_CPU] == 9
