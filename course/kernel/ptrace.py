"""Record system calls with ptrace: what strace does, in Python.

::

    tracer                                   tracee (a child)
    ──────                                   ────────────────
    fork ──────────────────────────────────▶ PTRACE_TRACEME, stop itself
    set options, PTRACE_CONT ──────────────▶ execve(program)
    ◀─── PTRACE_EVENT_EXEC ───────────────── stopped inside execve
    PTRACE_SYSCALL ────────────────────────▶
    ◀─── stop ────────────────────────────── execve returns          (first stop: an exit)
    PTRACE_SYSCALL ────────────────────────▶
    ◀─── stop ────────────────────────────── a call begins           (entry: rax = -ENOSYS)
    PTRACE_SYSCALL ────────────────────────▶ the kernel works
    ◀─── stop ────────────────────────────── the call returns        (exit: rax = result)
    …                                        exit_group: an entry without an exit

The tracee dies with its tracer (a parent-death signal, then `PTRACE_O_EXITKILL`) and at its deadline. Only its first
thread is watched.

Source: ptrace(2); Linux, arch/x86/entry/calling.h (orig_rax).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import resource
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence

from ..error import CapabilityError, UsageError
from .tracer import Call, Trace, withheld

_TRACEME, _PEEKTEXT, _CONT, _GETREGS, _SYSCALL, _SETOPTIONS = 0, 1, 7, 12, 24, 0x4200
_O_TRACESYSGOOD, _O_TRACEEXEC, _O_EXITKILL = 0x1, 0x10, 0x100000
_EVENT_EXEC = 4
_PR_SET_PDEATHSIG = 1
_SYSCALL_STOP = signal.SIGTRAP | 0x80
# Offsets, in 64-bit words, into struct user_regs_struct (x86-64).
_RAX, _ORIG_RAX, _RIP, _REGISTERS = 10, 15, 16, 27
_INT80 = 0x80CD  # the bytes cd 80, read as a little-endian number
OUTPUT_LIMIT_BYTES = 1 << 20


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    libc.ptrace.restype = ctypes.c_long
    return libc


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result = int(_libc().ptrace(request, pid, address, data))
    if result == -1 and (error := ctypes.get_errno()):
        raise OSError(error, f"ptrace request {request:#x} for process {pid}: {os.strerror(error)}")
    return result


def available() -> bool:
    """Return True when a child of this process can really be traced (x86-64 Linux only)."""
    return not withheld("ptrace") and _probe()


@functools.cache
def _probe() -> bool:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    from .program import asking  # noqa: PLC0415

    fd = os.memfd_create("probe")
    try:
        os.write(fd, asking([39]))
        return [c.number for c in trace([f"/proc/self/fd/{fd}"], deadline_s=5).calls] == [39, 60]
    except (OSError, CapabilityError, UsageError):
        return False
    finally:
        os.close(fd)


def trace(argv: Sequence[str], *, deadline_s: float = 20.0, max_calls: int = 100_000) -> Trace:
    """Run `argv` under ptrace; see `course.kernel.tracer.trace`.

    Raises:
        CapabilityError: when tracing is refused.
        UsageError: when the program cannot be started.
    """
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0])
    if program is None:
        raise UsageError(f"there is no program {argv[0]!r} in PATH")
    output, errors = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        pid = _start(program, argv, output, errors)
        with _killed_after(pid, deadline_s) as late:
            calls, status, cut = _follow(pid, program, max_calls)
        ended = cut or (f"it was still running after {deadline_s:g} s" if late.is_set() else "")
        return Trace(tuple(calls), status, _content(output), _content(errors), "ptrace", ended)
    finally:
        os.close(output)
        os.close(errors)


def _content(fd: int) -> bytes:
    return os.pread(fd, OUTPUT_LIMIT_BYTES, 0)


def _start(program: str, argv: Sequence[str], output: int, errors: int) -> int:
    """Fork a child that asks to be traced and becomes `program`."""
    _libc()
    arguments = [os.fspath(a) for a in argv]
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python >= 3.12 warns about fork in a threaded process; this child makes five system calls and is replaced.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        # Until the tracer has set its options, this signal is what keeps a stopped child from outliving it.
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(255)
        _ptrace(_TRACEME, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (errors, 2)):
            os.dup2(source, target)
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_LIMIT_BYTES, OUTPUT_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.execv(program, arguments)  # noqa: S606 - there must be no shell between the tracer and the program
    except OSError as error:
        os._exit(error.errno or 255)
    finally:
        os._exit(255)


@contextlib.contextmanager
def _killed_after(pid: int, deadline_s: float) -> Iterator[threading.Event]:
    """Kill the child at its deadline, and in any case when leaving; the event tells whether the deadline came."""
    late = threading.Event()
    pidfd = os.pidfd_open(pid)

    def kill() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    timer = threading.Timer(deadline_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(pidfd)


def _follow(pid: int, program: str, max_calls: int) -> tuple[list[Call], int, str]:
    """Drive the tracee from stop to stop; returns its calls, its exit code, and why it was stopped early."""
    _until_exec(pid, program)
    calls: list[Call] = []
    inside = True  # of execve
    entered: tuple[int, str] = (0, "")
    registers = (ctypes.c_uint64 * _REGISTERS)()
    deliver = 0
    while len(calls) <= max_calls:
        status = _resume(pid, _SYSCALL, deliver)
        deliver = 0
        if not os.WIFSTOPPED(status):
            if inside and entered[1]:
                calls.append(Call(entered[0], None, entered[1]))  # a call that never returned: exit
            return calls, os.waitstatus_to_exitcode(status), ""
        if os.WSTOPSIG(status) != _SYSCALL_STOP:
            if not status >> 16:
                deliver = os.WSTOPSIG(status)  # a signal on its way to the program: let it through
            continue
        _ptrace(_GETREGS, pid, 0, ctypes.addressof(registers))
        if inside:
            if entered[1]:
                calls.append(Call(entered[0], ctypes.c_int64(registers[_RAX]).value, entered[1]))
        else:
            instruction = _ptrace(_PEEKTEXT, pid, registers[_RIP] - 2) & 0xFFFF
            entered = (ctypes.c_int64(registers[_ORIG_RAX]).value, "i386" if instruction == _INT80 else "x86_64")
        inside = not inside
    return calls[:max_calls], -signal.SIGKILL, f"it had made more than {max_calls} system calls"


def _resume(pid: int, request: int, deliver: int = 0) -> int:
    with contextlib.suppress(ProcessLookupError):  # killed at its deadline: waitpid tells
        _ptrace(request, pid, 0, deliver)
    return os.waitpid(pid, 0)[1]


def _until_exec(pid: int, program: str) -> None:
    """Bring the child from its own stop to the event inside execve."""
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSTOPPED(status):
        raise CapabilityError(
            "ptrace",
            f"the child could not ask to be traced (exit status {os.waitstatus_to_exitcode(status)})",
            "Containers often forbid it; the QEMU engine gives the same record.",
        )
    _ptrace(_SETOPTIONS, pid, 0, _O_TRACESYSGOOD | _O_TRACEEXEC | _O_EXITKILL)
    status = _resume(pid, _CONT)
    if os.WIFSTOPPED(status) and status >> 16 == _EVENT_EXEC:
        return
    if os.WIFEXITED(status):
        reason = os.strerror(os.WEXITSTATUS(status))
    elif os.WIFSIGNALED(status):
        reason = f"{signal.Signals(os.WTERMSIG(status)).name} while its segments were being mapped"
    else:
        reason = f"status {status:#x}"
    raise UsageError(f"the kernel did not start {program}: {reason}")
