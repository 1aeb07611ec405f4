"""Run a program and record every system call that it makes.

Three engines give the same record; the first that works here is taken:

==========  =============================================================  ===========================
engine      how it sees the calls                                          what it needs
==========  =============================================================  ===========================
`ptrace`    the kernel stops the program at each entry to and exit from    x86-64 Linux, ptrace allowed
            a system call (`PTRACE_SYSCALL`), as under strace
`qemu`      QEMU's user mode translates the program and prints each call   ``qemu-x86_64``
`unicorn`   a CPU emulator stops at the instruction; we play the kernel    only images of one or two
            for `write`, `writev`, `exit` and `exit_group`                 segments, as in `program`
==========  =============================================================  ===========================

A record of *stops* is what a tracer works with. Per stop it has the two registers that matter::

    {"orig_rax": 1, "rax": -38}      on the way in: which call; -38 (-ENOSYS) is only a placeholder
    {"orig_rax": 1, "rax": 5}        on the way out: the same call again, and its result

The first stop is the second half of `execve`: the program begins in the middle of that call.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

from ..error import CapabilityError, UsageError
from . import names

Engine = Literal["ptrace", "qemu", "unicorn"]
ENOSYS = 38
_EXECVE = 59


@dataclasses.dataclass(frozen=True)
class Call:
    """One system call.

    Attributes:
        number: as passed in the register rax (or eax).
        result: what came back, a negated errno on failure; None when the call never returned (exit).
        abi: ``"x86_64"`` for the `syscall` instruction, ``"i386"`` for ``int 0x80``, whose numbers differ.
    """

    number: int
    result: int | None
    abi: str = "x86_64"

    @property
    def name(self) -> str:
        """The call's name in the table of its ABI."""
        return names.name_of(self.number, self.abi)


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a program did.

    Attributes:
        calls: its system calls in order; `execve`, which started it, is not among them.
        exitcode: exit status, negative for a signal.
        output: what it wrote on stdout.
        errors: what it wrote on stderr.
        engine: who watched.
        ended: "" when the program ended by itself, else why it was stopped.
    """

    calls: tuple[Call, ...]
    exitcode: int
    output: bytes
    errors: bytes
    engine: Engine
    ended: str = ""

    @property
    def stops(self) -> list[dict[str, int]]:
        """The same record as a tracer sees it: entry and exit stops, beginning in the middle of `execve`."""
        seen = [{"orig_rax": _EXECVE, "rax": 0}]
        for call in self.calls:
            seen.append({"orig_rax": call.number, "rax": -ENOSYS})
            if call.result is not None:
                seen.append({"orig_rax": call.number, "rax": call.result})
        return seen


def withheld(capability: str) -> bool:
    """Return True when the environment variable COURSE_WITHOUT (a comma-separated list) takes `capability` away."""
    return capability in os.environ.get("COURSE_WITHOUT", "").replace(" ", "").split(",")


def engines() -> list[Engine]:
    """Return the engines that work on this machine, best first."""
    from . import emulate, ptrace, qemu_user  # noqa: PLC0415 - each is loaded only when asked for

    found: list[tuple[Engine, bool]] = [
        ("ptrace", ptrace.available()),
        ("qemu", qemu_user.available()),
        ("unicorn", emulate.available()),
    ]
    return [name for name, works in found if works]


def trace(
    argv: Sequence[str], *, engine: Engine | None = None, deadline_s: float = 20.0, max_calls: int = 100_000
) -> Trace:
    """Run a command and record its system calls.

    Args:
        argv: the command; its first word is looked up in PATH.
        engine: ``"ptrace"`` or ``"qemu"``; None takes the first that works.
        deadline_s: wall seconds after which the program is killed.
        max_calls: number of calls after which the program is killed (ptrace) or the record is cut (QEMU).

    Raises:
        CapabilityError: when no engine works here.
        UsageError: when the program cannot be started.
    """
    from . import ptrace, qemu_user  # noqa: PLC0415

    engine = engine or next((e for e in engines() if e != "unicorn"), None)
    if engine == "ptrace":
        return ptrace.trace(argv, deadline_s=deadline_s, max_calls=max_calls)
    if engine == "qemu":
        return qemu_user.trace(argv, deadline_s=deadline_s, max_calls=max_calls)
    if engine is None:
        raise CapabilityError(
            "recording system calls",
            "ptrace is refused and qemu-x86_64 is not installed",
            "Install qemu-user (it is listed in binder/apt.txt).",
        )
    raise UsageError(f"engine {engine!r} cannot run a command; expected 'ptrace' or 'qemu'")


def run(image: bytes, *, engine: Engine | None = None, deadline_s: float = 5.0, max_calls: int = 10_000) -> Trace:
    """Run the bytes of an x86-64 executable and record its system calls.

    The image is started from memory (memfd), in a child with a time limit and at most 1 MiB of output.

    Args:
        image: an ELF file.
        engine: None takes the first that works; an image with ``int 0x80`` is never given to QEMU's user mode, which
            answers it with the 64-bit table.
        deadline_s: wall seconds after which the program is killed.
        max_calls: number of calls after which the program is stopped.

    Raises:
        CapabilityError: when no engine works here.
        UsageError: when the kernel refuses to start the image, with its reason.
    """
    from . import emulate  # noqa: PLC0415

    int80 = b"\xcd\x80" in image
    candidates = [engine] if engine else [e for e in engines() if not (int80 and e == "qemu")]
    if not candidates:
        raise CapabilityError(
            "running an x86-64 program", "none of ptrace, qemu-x86_64 and Unicorn works here", "Install qemu-user."
        )
    if candidates[0] == "unicorn":
        return emulate.run(image, deadline_s=deadline_s, max_calls=max_calls)
    fd = os.memfd_create("image")
    try:
        os.write(fd, image)
        argv = [f"/proc/self/fd/{fd}"]
        os.set_inheritable(fd, True)
        return trace(argv, engine=candidates[0], deadline_s=deadline_s, max_calls=max_calls)
    finally:
        os.close(fd)
