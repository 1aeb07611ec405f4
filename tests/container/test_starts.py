"""Starting things behind an address: the log is a witness that can be trusted."""

from __future__ import annotations

import os

import pytest

from course.container import Starts, ask, read_line, start, stop
from course.container.starts import StartsError


def ready(address, number):
    """Read the console to its READY and return the nonce."""
    while line := read_line(address, number):
        if line.startswith("READY "):
            return line.split()[1]
    raise AssertionError("it never was ready")


def test_the_log_tells_when_each_was_ready():
    """A nonce leads to its entry; entries rise with the kind; only a machine has a kernel of its own."""
    with Starts.simulated(seed=5) as lab:
        for kind in ("process", "container", "vm"):
            number = start(lab.address, kind)
            nonce = ready(lab.address, number)
            assert (kind, nonce) == (lab.log[-1].kind, lab.log[-1].nonce)
            assert ask(lab.address, number, "boot_id") == lab.log[-1].boot_id
            assert read_line(lab.address, number) == ""
            stop(lab.address, number)
        process, box, vm = lab.log
    assert process.ms < box.ms < vm.ms
    assert process.boot_id == box.boot_id != vm.boot_id
    assert all(entry.stopped for entry in lab.log)
    assert not os.path.exists(lab.address)  # noqa: PTH110


def test_what_cannot_be_meant_is_refused():
    """Unknown kinds, numbers and questions, and questions that come too early, are named."""
    with Starts.simulated() as lab:
        with pytest.raises(StartsError, match="expected one of process, container, vm"):
            start(lab.address, "pod")
        with pytest.raises(StartsError, match="expected what start"):
            read_line(lab.address, 7)
        number = start(lab.address, "vm")
        with pytest.raises(StartsError, match="not ready"):
            ask(lab.address, number, "boot_id")
        ready(lab.address, number)
        with pytest.raises(StartsError, match="cannot be asked"):
            ask(lab.address, number, "colour")


@pytest.mark.qemu
def test_real_starts_have_real_kernels():
    """In the real laboratory a container has its host's kernel and a machine its own; machines end when stopped."""
    with Starts.real() as lab:
        numbers = {kind: start(lab.address, kind) for kind in ("process", "container", "vm")}
        for number in numbers.values():
            ready(lab.address, number)
        ids = {kind: ask(lab.address, number, "boot_id") for kind, number in numbers.items()}
        memory = {kind: int(ask(lab.address, number, "memory_kib")) for kind, number in numbers.items()}
    assert ids["process"] == ids["container"] != ids["vm"]
    assert 0 < memory["process"] < memory["vm"]
    assert all(entry.stopped for entry in lab.log)
