"""Containers and foreign programs on this machine."""

from __future__ import annotations

import errno

import pytest

from course.container import foreign, host
from course.error import CapabilityError


def test_a_container_here_has_a_world_of_its_own():
    """Process 1, root, the given name, only lo, an own /proc; the exit code comes back."""
    script = (
        "echo $$; id -u; cat /proc/sys/kernel/hostname; grep -c : /proc/net/dev; ls -d /proc/[0-9]* | wc -l; exit 7"
    )
    try:
        done = host.run(["sh", "-c", script], hostname="mine")
    except CapabilityError as error:
        pytest.skip(str(error))
    pid, uid, name, interfaces, processes = done.stdout.split()
    assert (pid, uid, name, done.returncode) == ("1", "0", "mine", 7)
    assert int(interfaces) >= 1
    assert int(processes) < 5


def test_where_it_is_refused_the_error_says_so(monkeypatch):
    """A refusal is a CapabilityError with a remedy, and `available` is False."""
    monkeypatch.setattr(host, "sys", type("Other", (), {"executable": "/bin/false"}))
    monkeypatch.setattr(host, "__name__", "nothing")

    class Refused:
        returncode, stdout, stderr = 125, "", "refused: Operation not permitted\n"

    monkeypatch.setattr(host.subprocess, "run", lambda *_, **__: Refused)
    with pytest.raises(CapabilityError, match="Use the guest"):
        host.run(["true"])
    assert not host.available()


def test_a_windows_program_is_refused_by_linux():
    """The kernel answers ENOEXEC to a PE file; the bytes say what they are to who knows them."""
    program = foreign.windows_program()
    assert program[:2] == b"MZ"
    offset = int.from_bytes(program[60:64], "little")
    assert program[offset : offset + 6] == b"PE\0\0" + (0x8664).to_bytes(2, "little")
    assert foreign.try_to_run(program).startswith(errno.errorcode[errno.ENOEXEC])
