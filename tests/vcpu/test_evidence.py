"""What this machine says about hardware virtualization."""

import os
from pathlib import Path

from course.vcpu import evidence, find


def test_the_attempt_agrees_with_the_engine():
    """A guest halts in the attempt exactly where the engine kvm is here."""
    assert ("KVM_EXIT_HLT" in evidence.attempt()) == bool(find("kvm"))


def test_the_texts_are_those_of_this_machine():
    """Processor and device, as the system shows them."""
    seen = evidence.gather()
    assert [line for line in seen.cpuinfo.splitlines() if line.startswith("processor")]
    assert bool(seen.devices) == Path(evidence.DEVICE).exists()


def test_a_missing_device_is_a_line_with_its_errno(monkeypatch, tmp_path):
    """Nothing is raised for what a machine lacks."""
    monkeypatch.setattr(evidence, "DEVICE", str(tmp_path / "kvm"))
    assert "= -1 ENOENT (" + os.strerror(2) in evidence.attempt()
    assert evidence.gather().devices == ""
