"""The engine ``ptrace``: the guest's code runs natively in ring 3, and the host's kernel reports its traps.

::

    VMM (this thread)                    a process whose address space is the guest's
    ─────────────────                    ─────────────────────────────────────────────
    registers, PTRACE_SYSEMU ──────────▶ guest code, natively
    ◀── SIGSEGV, SIGILL, SIGFPE … ────── a trap: hlt, out, mov cr3, a page that is not there …
    ◀── system call stop ─────────────── syscall or int 0x80: never executed by the host's kernel
    ◀── SIGALRM every 20 ms ──────────── so that an endless loop comes back: the time limit is looked at
    registers + "syscall", one step ───▶ mmap of the memory file: how pages are mapped and unmapped

The process begins as a program of a few bytes; everything but its one page is unmapped before the guest runs, and no
system call of the guest ever reaches the kernel. It dies with the thread that made it.

Source: ptrace(2); Linux, arch/x86/entry/common.c; sigaction(2) for si_code.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import signal
import struct
import sys
import threading
import time
from typing import NoReturn

from ..error import CapabilityError, UsageError
from ..isa.elf import code_address, write_elf
from .memory import PAGE, Memory
from .process import end, fork_child, keep_only
from .registers import NAMES, user_flags
from .stepping import hide_trap_flag
from .trap import (
    COUNT,
    DEBUG,
    GONE,
    INT3,
    PAGE_FAULT,
    PROTECTION,
    SYSCALL,
    TIME,
    UNDEFINED,
    Engine,
    Trap,
)  # fmt: skip

_TRACEME, _SINGLESTEP, _GETREGS, _SETREGS, _SYSEMU, _SYSEMU_STEP = 0, 9, 12, 13, 31, 32
_SETOPTIONS, _GETSIGINFO = 0x4200, 0x4202
_O_TRACESYSGOOD, _O_EXITKILL = 0x1, 0x100000
# struct user_regs_struct, in 64-bit words.
_WORDS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_PLACES = [_WORDS.index(name) for name in NAMES]
_ORIG_RAX, _RAX, _RIP, _FLAGS = (_WORDS.index(name) for name in ("orig_rax", "rax", "rip", "rflags"))
_ARGUMENTS = [_WORDS.index(name) for name in ("rdi", "rsi", "rdx", "r10", "r8", "r9")]
_CS, _CODE64 = _WORDS.index("cs"), 0x33
_NO_CALL = (1 << 64) - 1
_MMAP, _MUNMAP, _SETITIMER, _GETPID = 9, 11, 38, 39
_MAP_SHARED_FIXED, _MAP_NOTHING = 0x11, 0x32 | 0x4000  # NOTHING: private, fixed, anonymous, no reserve
_PROT = {"r": 1, "w": 2, "x": 4}
_BASE = 0x7FFE00000000
_STUB = code_address("x86_64", _BASE)
_TIMER = _STUB + 8
_TICK_US = 20_000
_GUEST_FD = 3
_SI_KERNEL, _SEGV_MAPERR, _SEGV_ACCERR = 0x80, 1, 2


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    return libc


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc().ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace request {request:#x} for process {pid}: {os.strerror(number)}")


@functools.cache
def _program() -> int:
    """The file of the program that the process begins as: syscall, and an interval timer's setting."""
    code = bytes.fromhex("0f05 cc 90 90 90 90 90") + struct.pack("<4Q", 0, _TICK_US, 0, _TICK_US)
    fd = os.memfd_create("vcpu")
    os.write(fd, write_elf(code, "x86_64", base=_BASE))
    return fd


class PtraceEngine(Engine):
    """Runs the guest in a traced process."""

    name = "ptrace"

    def __init__(self, memory: Memory) -> None:
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
            why = f"this is {platform.system()} on {platform.machine()}"
            raise CapabilityError("the engine ptrace", why, "The engine unicorn works here too.")
        self._memory = memory
        self._words = (ctypes.c_uint64 * len(_WORDS))()
        self._at = ctypes.addressof(self._words)
        self._info = ctypes.create_string_buffer(128)
        self._thread = threading.get_ident()
        self._pid = self._start(memory)
        try:
            self._require_emulated_system_calls()
            self._empty()
            for address, size, offset, permissions in memory.ranges():
                self.remap(address, size, offset, permissions)
            self._system_call(_SETITIMER, 0, _TIMER, 0)
        except OSError as error:
            self.close()
            raise _refused(str(error)) from None
        _ptrace(_GETREGS, self._pid, 0, self._at)

    def _start(self, memory: Memory) -> int:
        program, guest, null = _program(), memory.fd, {"COURSE_VCPU": "1"}
        _libc()

        def work() -> NoReturn:
            keep_only(program, guest)
            os.dup2(program, 200)
            os.dup2(guest, _GUEST_FD)
            os.set_inheritable(_GUEST_FD, True)
            os.set_inheritable(200, False)
            os.closerange(4, 200)
            _ptrace(_TRACEME, 0)
            os.execve(200, ["vcpu"], null)  # noqa: S606 - there must be no shell in between
            os._exit(1)

        pid = fork_child(work)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSTOPPED(status):
            raise _refused(f"the child could not ask to be traced (status {status:#x})")
        try:
            _ptrace(_SETOPTIONS, pid, 0, _O_TRACESYSGOOD | _O_EXITKILL)
        except OSError as error:
            end(pid)
            raise _refused(str(error)) from None
        return pid

    def _require_emulated_system_calls(self) -> None:
        """Make sure, with a system call that does no harm, that none of the guest's would be executed."""
        _ptrace(_GETREGS, self._pid, 0, self._at)
        self._words[_RIP], self._words[_RAX], self._words[_ORIG_RAX] = _STUB, _GETPID, _NO_CALL
        _ptrace(_SETREGS, self._pid, 0, self._at)
        _ptrace(_SYSEMU, self._pid)
        status = os.waitpid(self._pid, 0)[1]
        _ptrace(_GETREGS, self._pid, 0, self._at)
        stopped = os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTRAP | 0x80
        if not stopped or ctypes.c_int64(self._words[_RAX]).value != -errno.ENOSYS:
            raise OSError(errno.ENOSYS, "this kernel does not emulate system calls (PTRACE_SYSEMU)")

    def _empty(self) -> None:
        """Unmap what the kernel gave the process: its stack, the vDSO. Its one page of code stays."""
        from pathlib import Path  # noqa: PLC0415

        for line in Path(f"/proc/{self._pid}/maps").read_text().splitlines():
            first, last = (int(text, 16) for text in line.split()[0].split("-"))
            if first >> 47 == 0 and not first <= _STUB < last:
                self._system_call(_MUNMAP, first, last - first)

    def _system_call(self, number: int, *arguments: int) -> int:
        """Let the process make one system call, by a single step over the instruction in its first page."""
        words = (ctypes.c_uint64 * len(_WORDS)).from_buffer_copy(self._words)
        _ptrace(_GETREGS, self._pid, 0, ctypes.addressof(words))
        saved = bytes(words)
        words[_RIP], words[_RAX], words[_ORIG_RAX] = _STUB, number, _NO_CALL
        for place, value in zip(_ARGUMENTS, arguments, strict=False):
            words[place] = value
        _ptrace(_SETREGS, self._pid, 0, ctypes.addressof(words))
        while True:
            _ptrace(_SINGLESTEP, self._pid)
            status = os.waitpid(self._pid, 0)[1]
            if not os.WIFSTOPPED(status):
                raise OSError(errno.ESRCH, "the guest's process is gone")
            _ptrace(_GETREGS, self._pid, 0, ctypes.addressof(words))
            if words[_RIP] != _STUB:  # else it was the timer that came first
                break
        result = ctypes.c_int64(words[_RAX]).value
        ctypes.memmove(words, saved, len(saved))
        words[_ORIG_RAX] = _NO_CALL
        _ptrace(_SETREGS, self._pid, 0, ctypes.addressof(words))
        if -4096 < result < 0:
            raise OSError(-result, f"system call {number} in the guest's process: {os.strerror(-result)}")
        return result

    def remap(self, address: int, size: int, offset: int, permissions: str) -> None:
        """Map pages of the memory file, or nothing."""
        self._check_thread()
        if permissions:
            allowed = sum(_PROT[letter] for letter in permissions)
            self._system_call(_MMAP, address, size, allowed, _MAP_SHARED_FIXED, _GUEST_FD, offset)
        else:
            self._system_call(_MUNMAP, address, size)

    def resume(self, registers: list[int], instructions: int | None, seconds: float) -> Trap:
        """Run up to a trap."""
        self._check_thread()
        deadline = time.monotonic() + seconds
        self._store(registers)
        try:
            endless = instructions is None
            trap = self._until_trap(_SYSEMU, deadline) if endless else self._steps(instructions or 0, deadline)
        except OSError as error:
            trap = Trap(GONE, why=f"the guest's process is gone ({error.strerror})")
        self._load(registers)
        return trap

    def _steps(self, instructions: int, deadline: float) -> Trap:
        """Step by step; a step is done when it traps with nothing else."""
        for _ in range(instructions):
            before = self._words[_RIP]
            trap = self._until_trap(_SYSEMU_STEP, deadline)
            if trap.vector != COUNT:
                return trap
            hide_trap_flag(self._memory, before, self._words[_WORDS.index("rsp")])
            if time.monotonic() >= deadline:
                return Trap(TIME)
        return Trap(COUNT)

    def _until_trap(self, request: int, deadline: float) -> Trap:
        while True:
            _ptrace(request, self._pid)
            status = os.waitpid(self._pid, 0)[1]
            if not os.WIFSTOPPED(status):
                return Trap(GONE, why=f"the guest's process ended (status {status:#x})")
            _ptrace(_GETREGS, self._pid, 0, self._at)
            if (trap := self._trap(os.WSTOPSIG(status), request)) is not None:
                return trap
            if time.monotonic() >= deadline:
                return Trap(TIME)

    def _trap(self, number: int, request: int) -> Trap | None:
        """Return what a stop means; None when it means nothing for the guest."""
        words = self._words
        if words[_CS] != _CODE64:
            return Trap(GONE, why="the guest left 64-bit mode, which this virtual machine does not offer")
        if number == signal.SIGTRAP | 0x80:
            words[_RAX], words[_ORIG_RAX] = words[_ORIG_RAX], _NO_CALL
            words[_RIP] -= 2
            return Trap(SYSCALL)
        if number == signal.SIGSEGV:
            code, address = self._signal()
            return Trap(PAGE_FAULT, address) if code in (_SEGV_MAPERR, _SEGV_ACCERR) else Trap(PROTECTION)
        if number == signal.SIGTRAP:
            if self._signal()[0] == _SI_KERNEL:
                words[_RIP] -= 1
                return Trap(INT3)
            return Trap(COUNT if request == _SYSEMU_STEP else DEBUG)
        vectors = {signal.SIGILL: UNDEFINED, signal.SIGFPE: 0, signal.SIGBUS: 12}
        return Trap(vectors[signal.Signals(number)]) if number in vectors else None

    def _signal(self) -> tuple[int, int]:
        _ptrace(_GETSIGINFO, self._pid, 0, ctypes.addressof(self._info))
        return struct.unpack_from("<i", self._info, 8)[0], struct.unpack_from("<Q", self._info, 16)[0]

    def _store(self, registers: list[int]) -> None:
        words = self._words
        for place, value in zip(_PLACES, registers, strict=True):
            words[place] = value
        words[_ORIG_RAX] = _NO_CALL
        try:
            _ptrace(_SETREGS, self._pid, 0, self._at)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def _load(self, registers: list[int]) -> None:
        words = self._words
        registers[:] = [words[place] for place in _PLACES]
        registers[-1] = user_flags(registers[-1])

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise UsageError("this virtual CPU belongs to the thread that made it: ptrace serves no other one")

    def close(self) -> None:
        """End the process."""
        if self._pid:
            end(self._pid)
            self._pid = 0


def _refused(why: str) -> CapabilityError:
    remedy = "Containers often forbid ptrace; the engine unicorn gives the same exits."
    return CapabilityError("the engine ptrace", why, remedy)


assert PAGE == 4096
