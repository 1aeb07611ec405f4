"""Live processes of every kind that this machine can start, and judgements on `identify`, which must tell them apart.

::

    process      an ordinary program
    container    the same, with namespaces of its own
    qemu-user    a program of another system, translated by QEMU
    tcg          a virtual machine that QEMU emulates
    kvm          a virtual machine that runs on the processor, by way of KVM

What a machine cannot start is left out: it takes no points away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ... import isa
from ...error import CapabilityError
from ...machine import process, qemu
from ..exercise import Trial

LABELS = ("process", "container", "qemu-user", "tcg", "kvm")
_PATIENCE_S = 60.0
_WAIT = "print('ready', flush=True); import signal; signal.pause()"
_NAMED = "open('/proc/self/comm', 'w').write(sys.argv[1][:15])"
_UNSHARE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(int(sys.argv[1], 0)):
    sys.exit("refused: errno %d" % ctypes.get_errno())
"""
_NEW_USER, _NEW_MOUNT, _NEW_UTS, _NEW_IPC, _NEW_NET = 0x10000000, 0x20000, 0x4000000, 0x8000000, 0x40000000
_PAUSE = {"x86_64": "mov eax, 34\nsyscall", "ppc": "li r0, 29\nsc"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to start a process.

    Attributes:
        label: what `identify` has to say.
        text: what it is, in words.
        command: makes the command line; gets a folder for files.
        ready: what its output shows when it runs.
        trap: the misconception that a wrong answer shows.
        hint: what to ask whoever has it.
    """

    label: str
    text: str
    command: Callable[[Path], list[str]]
    ready: str = "ready"
    trap: str = "misidentified"
    hint: str = "ls -l /proc/PID/exe /proc/PID/ns /proc/PID/fd: which line differs from your own process?"


def _python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", f"import sys\n{program}\n{_WAIT}", *arguments]


def _system(name: str, *arguments: str, copied_to: str = "") -> Callable[[Path], list[str]]:
    """Make the command line of a QEMU that has started and waits, perhaps under another name."""

    def command(folder: Path) -> list[str]:
        binary = _copied(qemu.find(name), folder, copied_to)
        waiting = ["-nodefaults", "-display", "none", "-S", "-m", "16", "-qmp", "stdio"]
        return [str(binary), *arguments, *waiting]

    return command


def _user(name: str, *, copied_to: str = "", program: str = "guest") -> Callable[[Path], list[str]]:
    def command(folder: Path) -> list[str]:
        binary = _copied(isa.emulator(name), folder, copied_to)
        path = folder / program
        path.write_bytes(isa.write_elf(isa.assemble(_PAUSE[name], name), name))
        path.chmod(0o755)
        return [str(binary), str(path)]

    return command


def _copied(binary: Path, folder: Path, name: str) -> Path:
    return Path(shutil.copy(binary, folder / name)) if name else binary


_TCG = ("-machine", "pc", "-accel", "tcg")
_VIRT = ("-machine", "virt", "-bios", "none")
_BY_NAME = "Names are given by whoever starts a program. Which evidence does the kernel give?"
_BY_WISH = "The command line says what was asked for. What shows that the kernel has made a virtual machine?"

PLAIN = Kind("process", "an ordinary program", lambda _: _python(""))
CONTAINER = Kind(
    "container",
    "a program with user, mount, UTS, IPC and network namespaces of its own",
    lambda _: _python(_UNSHARE, hex(_NEW_USER | _NEW_MOUNT | _NEW_UTS | _NEW_IPC | _NEW_NET)),
    trap="container-overlooked",
    hint="Compare each link in /proc/PID/ns with the one in /proc/self/ns.",
)
USER = Kind(
    "qemu-user", "a program for x86-64 in QEMU's user mode", _user("x86_64"), ready="",
    trap="translator-overlooked", hint="Which program does /proc/PID/exe lead to, and what does that program contain?",
)  # fmt: skip
TCG = Kind(
    "tcg", "a virtual machine of QEMU with -accel tcg", _system("qemu-system-x86_64", *_TCG), ready='"QMP"',
    trap="emulator-overlooked", hint="Which program does /proc/PID/exe lead to, and has it a virtual machine of KVM's?",
)  # fmt: skip
KVM = Kind(
    "kvm", "a virtual machine of QEMU with -accel kvm",
    _system("qemu-system-x86_64", "-machine", "pc", "-accel", "kvm"), ready='"QMP"',
    trap="kvm-overlooked", hint="Among the open files of a process with a virtual machine of KVM's is that machine.",
)  # fmt: skip
KINDS = (PLAIN, CONTAINER, USER, TCG, KVM)

IMPOSTOR = Kind(
    "process",
    "an ordinary program that calls itself qemu-system-x86 and has -accel kvm among its arguments",
    lambda _: _python(_NAMED, "qemu-system-x86_64", "-accel", "kvm", "-machine", "accel=kvm"),
    trap="by-name",
    hint=_BY_NAME,
)
RENAMED = Kind(
    "tcg", "a virtual machine of QEMU whose program was copied to the name nginx",
    _system("qemu-system-riscv64", *_VIRT, "-accel", "tcg", copied_to="nginx"), ready='"QMP"',
    trap="by-name-renamed", hint=_BY_NAME,
)  # fmt: skip
RENAMED_USER = Kind(
    "qemu-user", "a program for PowerPC in a QEMU that was copied to the name bash", _user("ppc", copied_to="bash"),
    ready="", trap="by-name-renamed", hint=_BY_NAME,
)  # fmt: skip
FELL_BACK = Kind(
    "tcg", "a virtual machine of QEMU that was asked for KVM or TCG, and had to take TCG",
    _system("qemu-system-riscv64", "-machine", "virt,accel=kvm:tcg", "-bios", "none"), ready='"QMP"',
    trap="by-wish", hint=_BY_WISH,
)  # fmt: skip
NARROW = Kind(
    "container",
    "a program with a user and a UTS namespace of its own",
    lambda _: _python(_UNSHARE, hex(_NEW_USER | _NEW_UTS)),
    trap="one-namespace-is-enough",
    hint="A container may share some namespaces with you. Which ones did you compare?",
)
NAMED_FILE = Kind(
    "process",
    "an ordinary program that has opened a file with the name anon_inode:kvm-vm",
    lambda folder: _python("kept = open(sys.argv[1], 'w')", str(folder / "anon_inode:kvm-vm")),
    trap="by-a-files-name",
    hint="Anybody can give a file a name. What does the link of a thing look like that is no file, such as a pipe?",
)
SHARED = Kind(  # only root can make one; elsewhere it is left out
    "container",
    "a program with a UTS namespace of its own, and all others shared with you",
    lambda _: _python(_UNSHARE, hex(_NEW_UTS)),
    trap="one-namespace-is-enough",
    hint="A container may share some namespaces with you. Which ones did you compare?",
)


@contextlib.contextmanager
def running(kinds: Sequence[Kind]) -> Iterator[list[tuple[int, Kind]]]:
    """Start processes; yields (pid, kind) of those that this machine can start, and ends them."""
    with contextlib.ExitStack() as stack:
        found = []
        for kind in kinds:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="live-")))
            try:
                child = process.spawn(kind.command(folder))
            except (CapabilityError, OSError):
                continue
            stack.callback(child.close)
            if _started(child, kind):
                found.append((child.pid, kind))
        yield found


def _started(child: process.Process, kind: Kind) -> bool:
    """Wait until a process is what it will be; False when this machine refuses it."""
    end = time.monotonic() + _PATIENCE_S
    while child.exitcode is None and time.monotonic() < end:
        if _is_there(child, kind):
            return True
        time.sleep(0.005)
    return False


def _is_there(child: process.Process, kind: Kind) -> bool:
    if kind.ready:
        return kind.ready in child.output
    with contextlib.suppress(OSError):  # a translator says nothing: its guest is among its mappings
        return f"{child.command[-1]}\n" in Path(f"/proc/{child.pid}/maps").read_text()
    return False


def judge_identities(trial: Trial, kinds: Sequence[Kind]) -> None:
    """Start processes in a random order and let the answer name each."""
    shuffled = list(kinds)
    trial.rng.shuffle(shuffled)
    with running(shuffled) as found:
        trial.rng.shuffle(found)
        # the plain ones first: a mistake there says more than one further on
        for pid, kind in sorted(found, key=lambda one: list(kinds).index(one[1])):
            got = trial.call(pid)
            asked = f"identify(pid of {kind.text})"
            trial.expect(
                got in LABELS, "no-label", f"{asked} returned {got!r}; expected one of {', '.join(map(repr, LABELS))}."
            )
            trial.expect(got == kind.label, kind.trap, f"{asked} returned {got!r}; it is {kind.label!r}.", kind.hint)
