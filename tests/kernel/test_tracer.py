"""Recording system calls: three engines that have to agree, with strace and the kernel's headers as oracles."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from course.error import CapabilityError, UsageError
from course.kernel import names, program, tracer
from course.kernel.descriptors import open_descriptors
from course.kernel.qemu_user import parse
from tests.children import children

ENGINES = tracer.engines()
WITH_KERNEL = [e for e in ENGINES if e != "unicorn"]
# write(1, "hi", 2) and exit(5) through the 32-bit door.
_INT80 = bytes.fromhex("b804000000 bb01000000 b99a004000 ba02000000 cd80 b801000000 bb05000000 cd80") + b"hi"


def test_some_engine_works_here():
    """Tier T1 promises at least one."""
    assert ENGINES


@pytest.mark.parametrize("engine", ENGINES)
def test_unknown_calls_are_recorded_with_their_error(engine):
    """A number that no kernel knows is answered with ENOSYS, and is a call."""
    seen = tracer.run(program.asking([1234]), engine=engine)
    assert [(c.number, c.result) for c in seen.calls] == [(1234, -38), (60, None)]


@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "qemu"])
def test_int_0x80_is_the_other_table(engine):
    """Number 4 is write when it comes through int 0x80; QEMU's user mode is never asked."""
    seen = tracer.run(program.elf(_INT80), engine=engine)
    assert ([c.name for c in seen.calls], seen.output, seen.exitcode) == (["write", "exit"], b"hi", 5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("code", "end"), [("f4", "a privileged instruction"), ("31c0 8b00", "a read of address 0")])
def test_a_crash_is_a_negative_exit_code(engine, code, end):
    """A program that is killed by SIGSEGV says so in every engine."""
    assert tracer.run(program.elf(bytes.fromhex(code)), engine=engine).exitcode == -signal.SIGSEGV, end


@pytest.mark.parametrize("engine", ENGINES)
def test_an_endless_program_is_stopped(engine):
    """The record says why, and no process stays."""
    seen = tracer.run(program.elf(b"\xeb\xfe"), engine=engine, deadline_s=0.5)
    assert (seen.exitcode, seen.ended) == (-signal.SIGKILL, "it was still running after 0.5 s")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flood_of_calls_is_stopped(engine):
    """Getpid in a loop ends at the limit of calls."""
    seen = tracer.run(program.elf(bytes.fromhex("b827000000 0f05 ebf7")), engine=engine, max_calls=50, deadline_s=2)
    assert len(seen.calls) <= 51
    assert seen.ended


def test_a_flood_of_output_is_cut():
    """A program that writes without end cannot fill the memory."""
    # again: write(1, BASE, 100); jmp again
    loop = "b801000000 bf01000000 be00004000 ba64000000 0f05 ebe8"
    seen = tracer.run(program.elf(bytes.fromhex(loop)), deadline_s=5, max_calls=100_000)
    assert len(seen.output) <= 1 << 20
    assert seen.exitcode < 0


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_no_program_is_refused_with_a_reason(engine):
    """The system's own reason is in the message."""
    with pytest.raises(UsageError):
        tracer.run(b"not a program", engine=engine)


def test_a_missing_command_is_refused():
    """The name is in the message."""
    with pytest.raises(UsageError, match="no program 'no-such-command-here'"):
        tracer.trace(["no-such-command-here"])


def test_stops_begin_inside_execve_and_end_with_an_entry():
    """The record is what a tracer sees: two stops per call, but one for execve and one for exit."""
    seen = tracer.run(program.asking([39, 39]))
    assert seen.stops[0] == {"orig_rax": 59, "rax": 0}
    assert seen.stops[-1] == {"orig_rax": 60, "rax": -38}
    assert [s["orig_rax"] for s in seen.stops] == [59, 39, 39, 39, 39, 60]


@pytest.mark.skipif(len(WITH_KERNEL) < 2, reason="only one engine that runs whole commands works here")
def test_ptrace_and_qemu_agree_on_a_real_command():
    """Dd makes the same reads and writes under both."""
    argv = ["dd", "if=/dev/zero", "of=/dev/null", "bs=10", "count=50", "status=none"]
    seen = [Counter(c.name for c in tracer.trace(argv, engine=e).calls) for e in ("ptrace", "qemu")]
    assert seen[0]["read"] == seen[1]["read"]
    assert seen[0]["write"] == seen[1]["write"] == 50


@pytest.mark.skipif(shutil.which("strace") is None or "ptrace" not in ENGINES, reason="needs strace and ptrace")
def test_strace_counts_the_same(tmp_path):
    """The tool that everybody uses sees the same calls as our tracer."""
    log = tmp_path / "log"
    subprocess.run(["strace", "-o", log, "true"], check=True)
    theirs = Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)) - Counter(["execve"])
    assert theirs == Counter(c.name for c in tracer.trace(["true"], engine="ptrace").calls)


def test_qemu_lines_are_understood():
    """Results, errors, unknown calls, signals: each kind of line in a log of QEMU 7.2."""
    log = (
        "8 write(1,0x1b000,1) = 1\n"
        '8 openat(AT_FDCWD,"/x = 5",O_RDONLY) = -1 errno=2 (No such file or directory)\n'
        "8 brk(NULL) = 0x0000000000402000\n"
        "8 Unknown syscall 1000\n"
        "--- SIGSEGV {si_signo=SIGSEGV, si_code=1, si_addr=0xf7} ---\n"
        "8 exit_group(0)\n"
    )
    seen = [(c.name, c.result) for c in parse(log)]
    assert seen == [
        ("write", 1),
        ("openat", -2),
        ("brk", 0x402000),
        ("unknown_1000", -38),
        ("exit_group", None),
    ]


def test_no_process_and_no_descriptor_is_left():
    """After runs that ended well, crashed and were killed, all is as before."""
    tracer.run(program.asking([39]))
    before, others = len(open_descriptors()), children()
    for body in (b"\xf4", b"\xeb\xfe"):
        tracer.run(program.elf(body), deadline_s=0.2)
    assert len(open_descriptors()) == before
    assert children() <= others


def test_engines_can_be_taken_away(monkeypatch):
    """COURSE_WITHOUT hides an engine; without any, the message says what to install."""
    monkeypatch.setenv("COURSE_WITHOUT", "ptrace, qemu-user")
    assert set(tracer.engines()) <= {"unicorn"}
    with pytest.raises(CapabilityError, match="qemu-user"):
        tracer.trace(["true"])


def test_names_are_those_of_the_kernel_headers():
    """Every number that the headers of this machine know has the same name in our table."""
    places = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h")
    header = next((Path(p) for p in places if Path(p).exists()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    known = {int(n): name for name, n in re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text())}
    assert {n: names.X86_64.get(n) for n in known if n <= max(names.X86_64) and not 334 < n < 424} == {
        n: name for n, name in known.items() if n <= max(names.X86_64) and not 334 < n < 424
    }


def test_the_tracee_dies_with_its_tracer():
    """When the process that traces is killed, no traced program goes on."""
    if "ptrace" not in ENGINES:
        pytest.skip("ptrace is refused here")
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.set_inheritable(write_fd, True)  # the traced program keeps the pipe open as long as it lives
        try:
            tracer.run(program.elf(b"\xeb\xfe"), engine="ptrace", deadline_s=30)
        finally:
            os._exit(0)
    os.close(write_fd)
    end = time.monotonic() + 10  # as soon as there is a child, in whatever state, its tracer is killed
    while time.monotonic() < end and not Path(f"/proc/{pid}/task/{pid}/children").read_text().strip():
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(read_fd, "rb") as pipe:
        assert select.select([pipe], [], [], 10)[0], "something still holds the other end"
        assert pipe.read() == b""
