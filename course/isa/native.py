"""Run a few bytes of x86-64 machine code on the real processor, locked in.

The bytes are put into a tiny program of their own whose first act is to give up every system call but read, write and
exit (seccomp's strict mode). Then it calls them and writes what they return. So nothing that the bytes do can reach
further than the program itself, whose memory is not writable where it is executable.
"""

from __future__ import annotations

import dataclasses
import platform
import signal
import subprocess

from ..error import CapabilityError, UsageError
from .assembler import assemble
from .elf import write_elf
from .userland import program_file

_LOCKED_OUT = 97
_STUB = """
        mov eax, 157            ; prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)
        mov edi, 22
        mov esi, 1
        xor edx, edx
        syscall
        test eax, eax
        jne refused
        mov rax, {seed}         ; whatever a caller may leave in registers
        mov rcx, rax
        mov rdx, rax
        mov rsi, rax
        mov rdi, rax
        call code
        push rax                ; the answer, eight bytes on standard output
        mov eax, 1
        mov edi, 1
        mov rsi, rsp
        mov edx, 8
        syscall
        mov eax, 60
        xor edi, edi
        syscall
refused: mov eax, 60
        mov edi, 97
        syscall
code:
"""


@dataclasses.dataclass(frozen=True)
class Native:
    """What became of a native call: `value` when it returned, else `why` (a signal's name, or a time limit)."""

    value: int | None
    why: str = ""


def call_natively(code: bytes, *, entry: int = 0, seed: int = 0, timeout_s: float = 5.0) -> Native:
    """Call x86-64 machine code on this machine's own processor.

    Args:
        code: a function without arguments.
        entry: offset at which to enter it, in bytes; any, also in the middle of an instruction.
        seed: what stands in the registers before.
        timeout_s: wall time limit, in seconds.

    Returns:
        The value of ``rax`` when it returned, unsigned.

    Raises:
        CapabilityError: not an x86-64 Linux machine, or no seccomp here.
        UsageError: no code.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        why = f"this is {platform.system()} on {platform.machine()}"
        raise CapabilityError("native x86-64 code", why, "Use course.isa.call, which emulates the processor.")
    if not 0 <= entry < len(code):
        raise UsageError(f"the entry {entry} lies outside the {len(code)} bytes of code")
    with program_file(write_elf(_program(bytes(code), entry, seed), "x86_64", base=0x400000)) as path:
        try:
            done = subprocess.run([str(path)], capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return Native(None, f"no return within {timeout_s:g} s")
    if done.returncode == _LOCKED_OUT:
        raise CapabilityError("seccomp", "the kernel refuses it", "Use course.isa.call, which emulates the processor.")
    if done.returncode < 0:
        return Native(None, signal.Signals(-done.returncode).name)
    if len(done.stdout) != 8:
        return Native(None, f"it ended by itself (exit status {done.returncode})")
    return Native(int.from_bytes(done.stdout, "little"))


def _program(code: bytes, entry: int, seed: int) -> bytes:
    """The stub and the code; the call's distance is moved by `entry`."""
    head = assemble(_STUB.format(seed=hex(0x0123456789ABCDEF ^ seed)), "x86_64")
    call = head.index(b"\xe8", head.index(bytes.fromhex("4889c7")))  # after mov rdi, rax
    distance = int.from_bytes(head[call + 1 : call + 5], "little") + entry
    return head[: call + 1] + distance.to_bytes(4, "little") + head[call + 5 :] + code
