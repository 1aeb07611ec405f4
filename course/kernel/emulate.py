"""Run a tiny executable on Unicorn and play the kernel: the engine that needs neither Linux nor an x86-64 CPU.

Both doors are there: the `syscall` instruction with the 64-bit table, and ``int 0x80`` with the 32-bit one. This little
kernel knows `write`, `writev`, `getpid`, `getppid`, `exit` and `exit_group`, and answers all others with ENOSYS.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import importlib.util
import signal
import struct
import time
from typing import Any

from .program import EXECUTE, PAGE_BYTES, PT_LOAD, READ, WRITE, Layout, layout
from .tracer import Call, Trace, withheld

_STACK, _STACK_BYTES = 0x7FFF00000000, 0x20000
_WRITE, _WRITEV, _EXIT, _EXIT_GROUP = "write", "writev", "exit", "exit_group"
_IDENTITY = {"getpid": 1000, "getppid": 1}
_MAX_WRITE_BYTES = 1 << 20


def available() -> bool:
    """Return True when the Unicorn emulator is installed."""
    return not withheld("unicorn") and importlib.util.find_spec("unicorn") is not None


def _unicorn() -> tuple[Any, Any]:
    """Load the emulator, which ships no types."""
    return importlib.import_module("unicorn"), importlib.import_module("unicorn.x86_const")


def run(image: bytes, *, deadline_s: float = 5.0, max_calls: int = 10_000) -> Trace:
    """Run `image`; see `course.kernel.tracer.run`.

    Raises:
        UsageError: when the image is not an x86-64 executable.
    """
    machine = _Machine(image, layout(image), max_calls)
    return machine.run(deadline_s)


@dataclasses.dataclass
class _Machine:
    image: bytes
    headers: Layout
    max_calls: int
    calls: list[Call] = dataclasses.field(default_factory=list)
    output: bytearray = dataclasses.field(default_factory=bytearray)
    errors: bytearray = dataclasses.field(default_factory=bytearray)
    exitcode: int | None = None
    ended: str = ""
    x86: Any = None

    def run(self, deadline_s: float) -> Trace:
        unicorn, self.x86 = _unicorn()
        x86 = self.x86
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._map(uc)
        uc.hook_add(unicorn.UC_HOOK_INSN, lambda u, _: self._syscall(u), None, 1, 0, x86.UC_X86_INS_SYSCALL)
        uc.hook_add(unicorn.UC_HOOK_INTR, lambda u, number, _: self._interrupt(u, number))
        end = time.monotonic() + deadline_s
        try:
            uc.emu_start(self.headers.entry, 0, timeout=int(deadline_s * 1e6))
        except unicorn.UcError:
            self.exitcode = -signal.SIGSEGV if self.exitcode is None else self.exitcode
        if self.exitcode is None and time.monotonic() < end:
            self.exitcode = -signal.SIGSEGV  # hlt: the emulated CPU is in ring 0 and stops; a program would be killed
        if self.exitcode is None:
            self.exitcode = -signal.SIGKILL
            self.ended = self.ended or f"it was still running after {deadline_s:g} s"
        return Trace(tuple(self.calls), self.exitcode, bytes(self.output), bytes(self.errors), "unicorn", self.ended)

    def _map(self, uc: Any) -> None:
        unicorn, _ = _unicorn()

        pages: dict[int, int] = {}
        loads = [s for s in self.headers.segments if s.kind == PT_LOAD]
        for s in loads:
            for page in range(s.address // PAGE_BYTES, (s.address + max(s.memory_bytes, 1) - 1) // PAGE_BYTES + 1):
                pages[page] = pages.get(page, 0) | s.flags
        bits = {
            READ: unicorn.UC_PROT_READ,
            WRITE: unicorn.UC_PROT_WRITE,
            EXECUTE: unicorn.UC_PROT_EXEC | unicorn.UC_PROT_READ,  # x86 cannot execute what it may not read
        }
        for page, flags in pages.items():
            rights = 0
            for flag, bit in bits.items():
                rights |= bit if flags & flag else 0
            uc.mem_map(page * PAGE_BYTES, PAGE_BYTES, rights)
        for s in loads:
            uc.mem_write(s.address, self.image[s.offset : s.offset + s.file_bytes])
        uc.mem_map(_STACK, _STACK_BYTES)
        uc.reg_write(self.x86.UC_X86_REG_RSP, _STACK + _STACK_BYTES - 64)

    def _syscall(self, uc: Any) -> None:
        x = self.x86
        number, *arguments = (
            uc.reg_read(r) for r in (x.UC_X86_REG_RAX, x.UC_X86_REG_RDI, x.UC_X86_REG_RSI, x.UC_X86_REG_RDX)
        )
        self._answer(uc, number, arguments, "x86_64", word_bytes=8)

    def _interrupt(self, uc: Any, number: int) -> None:
        x = self.x86
        if number != 0x80:
            self.exitcode = -signal.SIGSEGV
            uc.emu_stop()
            return
        call, *arguments = (
            uc.reg_read(r) for r in (x.UC_X86_REG_EAX, x.UC_X86_REG_EBX, x.UC_X86_REG_ECX, x.UC_X86_REG_EDX)
        )
        self._answer(uc, call, arguments, "i386", word_bytes=4)

    def _answer(self, uc: Any, number: int, arguments: list[int], abi: str, *, word_bytes: int) -> None:
        name = Call(number, None, abi).name
        if name in (_EXIT, _EXIT_GROUP):
            self.calls.append(Call(number, None, abi))
            self.exitcode = arguments[0] & 0xFF
            uc.emu_stop()
            return
        result = _IDENTITY.get(name, -errno.ENOSYS)
        if name == _WRITE:
            result = self._write(uc, arguments[0] & 0xFFFFFFFF, [(arguments[1], arguments[2])])
        elif name == _WRITEV:
            layout_ = "<QQ" if word_bytes == 8 else "<II"
            count = min(arguments[2], 1024)
            vector = bytes(uc.mem_read(arguments[1], count * 2 * word_bytes))
            result = self._write(uc, arguments[0] & 0xFFFFFFFF, list(struct.iter_unpack(layout_, vector)))
        self.calls.append(Call(number, result, abi))
        uc.reg_write(self.x86.UC_X86_REG_RAX, result & (1 << 64) - 1)
        if len(self.calls) >= self.max_calls:
            self.exitcode, self.ended = -signal.SIGKILL, f"it had made {self.max_calls} system calls"
            uc.emu_stop()

    def _write(self, uc: Any, fd: int, pieces: list[Any]) -> int:
        unicorn, _ = _unicorn()

        if fd not in (1, 2):
            return -errno.EBADF
        sink, written = (self.output if fd == 1 else self.errors), 0
        for address, size in pieces:
            if size > _MAX_WRITE_BYTES:
                return -errno.EFAULT
            try:
                data = bytes(uc.mem_read(address, size)) if size else b""
            except unicorn.UcError:
                return -errno.EFAULT
            sink += data
            written += len(data)
        return written
