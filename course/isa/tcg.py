"""QEMU's translator, read from its own log.

``qemu-x86_64 -d ITEMS -D FILE PROGRAM`` runs a program and writes what the translator (TCG) does:

    in_asm     each block of guest instructions when it is translated, under a line ``IN:``
    op         the block in TCG's own language, under ``OP:``
    out_asm    the block as host instructions, under ``OUT: [size=…]``
    exec       a line ``Trace …`` when a block is executed; blocks that jump to each other directly are not seen
    nochain    forbids these direct jumps, so that `exec` sees every execution

Source: QEMU, docs/devel/tcg.rst and ``qemu-x86_64 -d help``.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from ..error import UsageError
from .elf import write_elf
from .userland import emulator

ISA = "x86_64"
_BASE = 0x400000


def program(source: str) -> bytes:
    """Return an x86-64 Linux program made of assembly; it has to end by itself (``mov eax, 60`` and ``syscall``)."""
    from .assembler import assemble  # noqa: PLC0415

    return write_elf(assemble(source, ISA, _BASE + 120), ISA, base=_BASE)


def counting(rounds: int) -> bytes:
    """Return a program that goes round a loop of three instructions, then exits."""
    return program(
        f"""mov ecx, {rounds}
            mov eax, 0
        again: add eax, ecx
            dec ecx
            jne again
            mov edi, 0
            mov eax, 60
            syscall"""
    )


def single_step_option() -> str:
    """The option that makes each instruction a block of its own: QEMU renamed it in version 8.1."""
    shown = subprocess.run([emulator(ISA), "--help"], capture_output=True, text=True, timeout=20, check=False).stdout
    for option in ("-one-insn-per-tb", "-singlestep"):
        if option in shown:
            return option
    raise UsageError("this qemu-x86_64 lists neither -one-insn-per-tb nor -singlestep in its --help")


def log(path: str | Path, items: str, *options: str, timeout_s: float = 20.0) -> str:
    """Run a program under ``qemu-x86_64 -d items`` and return the log.

    Args:
        path: an x86-64 executable; its exit status does not matter.
        items: what to log, separated by commas, such as ``"in_asm,exec"``.
        *options: further options of qemu-x86_64.
        timeout_s: wall seconds after which it is killed.

    Raises:
        CapabilityError: qemu-x86_64 is not installed.
        UsageError: the program was still running after `timeout_s`, or QEMU did not know an item or option.
    """
    with tempfile.TemporaryDirectory(prefix="course-tcg-") as folder:
        file = Path(folder) / "log"
        command = [str(emulator(ISA)), *options, "-d", items, "-D", str(file), str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"{path} was still running under QEMU after {timeout_s:g} s and was stopped") from None
        if not file.exists():
            said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
            raise UsageError(f"qemu-x86_64 wrote no log for -d {items} {' '.join(options)}; it said: {said:.300}")
        return file.read_text(errors="replace")
