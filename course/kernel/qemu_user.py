"""Record system calls with QEMU's user mode: the same record where ptrace is refused or the CPU is another.

``qemu-x86_64 -strace -D FILE program`` translates the program and writes one line per call::

    8762 write(1,0x1b000,1) = 1
    8762 openat(AT_FDCWD,"/x",O_RDONLY) = -1 errno=2 (No such file or directory)
    8762 Unknown syscall 1000
    8762 exit_group(0)

Source: QEMU, linux-user/strace.c.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..error import CapabilityError, UsageError
from . import names
from .ptrace import OUTPUT_LIMIT_BYTES
from .tracer import ENOSYS, Call, Trace, withheld

BINARY = "qemu-x86_64"
# e_machine of the ELF header; the calls of every ISA are recorded under the x86-64 number of their name.
_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}
_LOG_LIMIT_BYTES = 16 << 20
_LINE = re.compile(r"^\d+ (?:Unknown syscall (?P<unknown>-?\d+)|(?P<name>\w+)\(.*)$")
_RESULT = re.compile(r"\) = (?P<value>-?(?:0x[0-9a-f]+|\d+))(?: errno=(?P<errno>\d+))?")
_NEVER_RETURN = {"exit", "exit_group", "rt_sigreturn"}


def _binary(program: str | None = None) -> str | None:
    """Find the emulator for a program, by the machine in its ELF header; without a program, the one for x86-64."""
    name = BINARY
    if program is not None:
        with contextlib.suppress(OSError), Path(program).open("rb") as file:
            name = "qemu-" + _MACHINES.get(int.from_bytes(file.read(20)[18:20], "little"), "x86_64")
    return shutil.which(name) or shutil.which(name + "-static")


def available() -> bool:
    """Return True when ``qemu-x86_64`` is installed and runs a program."""
    return not withheld("qemu-user") and _probe()


@functools.cache
def _probe() -> bool:
    from .program import asking  # noqa: PLC0415

    if _binary() is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe")
        path.write_bytes(asking([39]))
        path.chmod(0o755)
        try:
            return [c.number for c in trace([str(path)], deadline_s=10).calls] == [39, 60]
        except (OSError, UsageError, CapabilityError):
            return False


def trace(argv: Sequence[str], *, deadline_s: float = 20.0, max_calls: int = 100_000) -> Trace:
    """Run `argv` under ``qemu-x86_64 -strace``; see `course.kernel.tracer.trace`."""
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0])
    if program is None:
        raise UsageError(f"there is no program {argv[0]!r} in PATH")
    binary = _binary(program)
    if binary is None:
        raise CapabilityError(BINARY, "it is not installed", "Install the package qemu-user.")
    inherited = [int(fd) for fd in re.findall(r"^/proc/self/fd/(\d+)$", program)]
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(folder, "out").open("w+b") as out,
        Path(folder, "err").open("w+b") as err,
    ):
        log = Path(folder, "strace")
        process = subprocess.Popen(
            [binary, "-strace", "-D", str(log), program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=inherited,
        )
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LOG_LIMIT_BYTES, _LOG_LIMIT_BYTES))
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        ended = ""
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            ended = f"it was still running after {deadline_s:g} s"
        finally:
            process.kill()
            process.wait()
        calls = parse(log.read_text(errors="replace") if log.exists() else "")
        output, errors = (os.pread(f.fileno(), OUTPUT_LIMIT_BYTES, 0) for f in (out, err))
    if not calls and process.returncode not in (0, -signal.SIGSEGV, -signal.SIGILL) and not ended:
        raise UsageError(f"{BINARY} did not start {program}: {errors.decode(errors='replace').strip()[:300]}")
    if len(calls) > max_calls or process.returncode == -signal.SIGXFSZ:
        ended = f"it had made more than {min(len(calls), max_calls)} system calls"
    return Trace(tuple(calls[:max_calls]), process.returncode, output, _without_qemu(errors), "qemu", ended)


def parse(log: str) -> list[Call]:
    """Read the lines of ``-strace``; lines that are no calls (signals, messages) are left out."""
    calls = []
    for line in log.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        if found["unknown"] is not None:
            calls.append(Call(int(found["unknown"]), -ENOSYS))
            continue
        number = names.NUMBERS.get(found["name"])
        if number is not None:
            calls.append(Call(number, _result(found["name"], line)))
    return calls


def _result(name: str, line: str) -> int | None:
    if name in _NEVER_RETURN:
        return None
    found = _RESULT.search(line)
    if found is None:
        return None
    return -int(found["errno"]) if found["errno"] else int(found["value"], 0)


def _without_qemu(errors: bytes) -> bytes:
    """Leave out what QEMU itself says when the program dies of a signal."""
    return b"\n".join(line for line in errors.split(b"\n") if not line.startswith(b"qemu: uncaught target signal"))
