"""Run whole programs of other machines with QEMU's user-mode emulation: their instructions, this machine's kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..error import CapabilityError, UsageError
from .error import NotElfError
from .table import ISAS, Isa, lookup

_INSTALL = "Install the package qemu-user (Debian, Ubuntu); there is no such emulator for other systems than Linux."


@dataclasses.dataclass(frozen=True)
class Finished:
    """A program that has ended.

    Attributes:
        isa: its instruction set.
        status: exit status, negative for the number of a signal.
        stdout: what it wrote.
        stderr: what it, or the emulator, complained of.
        command: what was run.
    """

    isa: str
    status: int
    stdout: bytes
    stderr: str
    command: tuple[str, ...]

    def __repr__(self) -> str:
        how = f"exit status {self.status}" if self.status >= 0 else signal.Signals(-self.status).name
        said = f"; stderr {self.stderr.strip()!r:.200}" if self.stderr.strip() else ""
        return f"<{self.isa}: {how}; stdout {self.stdout!r:.200}{said}>"


def emulator(isa: str | Isa) -> Path:
    """The ``qemu-<isa>`` that runs programs of `isa`.

    Raises:
        CapabilityError: when it is not installed.
    """
    row = lookup(isa)
    for name in (f"qemu-{row.suffix}", f"qemu-{row.suffix}-static"):
        if found := shutil.which(name):
            return Path(found)
    raise CapabilityError(f"qemu-{row.suffix}", "no such program on the PATH", _INSTALL)


def is_native(isa: str | Isa) -> bool:
    """True when this machine's processor and kernel run programs of `isa` themselves."""
    host = {"x86_64": ("x86_64",), "aarch64": ("aarch64",), "ppc64le": ("ppc64le",), "riscv64": ("riscv64",)}
    return platform.system() == "Linux" and lookup(isa).name in host.get(platform.machine(), ())


@contextlib.contextmanager
def program_file(program: bytes) -> Iterator[Path]:
    """An executable file with these bytes, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="course-isa-") as folder:
        path = Path(folder) / "program"
        path.write_bytes(program)
        path.chmod(0o755)
        yield path


def run(
    program: bytes | str | Path,
    isa: str | Isa | None = None,
    arguments: Sequence[str] = (),
    *,
    stdin: bytes = b"",
    strace: bool = False,
    timeout_s: float = 10.0,
) -> Finished:
    """Run a program of any known ISA by its emulator.

    Args:
        program: an ELF file's bytes or its path.
        isa: its instruction set; None reads it from the file's header.
        arguments: what follows the program's name.
        stdin: bytes on its standard input.
        strace: list its system calls on `stderr`.
        timeout_s: wall seconds after which it is killed.

    Raises:
        NotElfError: bytes that are no ELF file of a known ISA.
        CapabilityError: the emulator is not installed.
        UsageError: it was still running after `timeout_s`.
    """
    if isinstance(program, bytes):
        with program_file(program) as path:
            return run(path, isa, arguments, stdin=stdin, strace=strace, timeout_s=timeout_s)
    row = lookup(isa) if isa is not None else _isa_of(Path(program))
    command = [str(emulator(row)), *(["-strace"] if strace else []), str(program), *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(f"the {row.name} program was still running after {timeout_s:g} s and was stopped") from None
    return Finished(row.name, done.returncode, done.stdout, done.stderr.decode(errors="replace"), tuple(command))


def _isa_of(path: Path) -> Isa:
    from .elf import facts  # noqa: PLC0415 - pyelftools

    known = facts(path)
    from elftools.elf.enums import ENUM_E_MACHINE  # noqa: PLC0415

    number = ENUM_E_MACHINE.get(known.machine)
    for row in ISAS.values():
        if (row.machine, row.bits, row.endian) == (number, known.bits, known.endian):
            return row
    raise NotElfError(
        f"{path} is a program for {known.machine}, {known.bits} bits, {known.endian} endian: none of {', '.join(ISAS)}"
    )


def run_natively(program: bytes, *, timeout_s: float = 10.0) -> Finished:
    """Give a program to this machine's own kernel, without any emulator.

    Args:
        program: an ELF file's bytes.
        timeout_s: wall seconds after which it is killed.

    Raises:
        OSError: what the kernel says of a foreign program, ``Exec format error``.
    """
    with program_file(program) as path:
        done = subprocess.run([str(path)], capture_output=True, timeout=timeout_s, check=False)
    return Finished("this machine", done.returncode, done.stdout, done.stderr.decode(errors="replace"), ("program",))
