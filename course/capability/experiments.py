"""The experiments, one function each. Run as ``python -m course.capability.experiments NAME``: prints one JSON line.

Each does the thing itself, as small as it can be, and says what it saw. They run in a process of their own (see
`probing`), so they may enter namespaces, set limits or die.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import platform
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .report import State

Finding = dict[str, Any]
ON_LINUX = sys.platform == "linux"
NEEDS_LINUX = "Needs a Linux kernel: work in a Linux virtual machine, in WSL 2 or on Binder."


def finding(state: State, observed: str, remedy: str = "", **facts: Any) -> Finding:
    """Put a finding into the form that travels to the parent process."""
    return {"state": state.value, "observed": observed, "remedy": remedy, "facts": facts}


# T0


def python() -> Finding:
    """Say which Python runs, where."""
    version = platform.python_version()
    observed = f"Python {version} on {platform.system()} {platform.machine()}"
    return finding(State.YES, observed, version=version, system=platform.system(), machine=platform.machine())


# T1

GREETING = b"up"
EXIT_PORT = 0xF4  # isa-debug-exit: a byte v written there ends QEMU with status 2v + 1
EXIT_VALUE = 0x10
QEMU = "qemu-system-x86_64"
QEMU_REMEDY = "Install it: `make lab` does, or `sudo apt-get install qemu-system-x86` (macOS: `brew install qemu`)."


def firmware(greeting: bytes = GREETING) -> bytes:
    """Assemble a 64 KiB ROM: says `greeting` on the first serial line, then ends QEMU by its exit device."""
    say = b"".join(bytes([0xB0, byte, 0xEE]) for byte in greeting)  # mov al, byte / out dx, al
    code = bytes.fromhex("ba f8 03") + say  # mov dx, 0x3f8 (COM1)
    code += bytes.fromhex("ba f4 00 b0") + bytes([EXIT_VALUE]) + bytes.fromhex("ee f4")  # out 0xf4 / hlt
    reset_vector = bytes.fromhex("ea 00 00 00 f0")  # jmp 0xf000:0x0000, at 0xffff0 where an x86 begins
    return code.ljust(0xFFF0, b"\x90") + reset_vector.ljust(16, b"\x00")


def qemu() -> Finding:
    """Start an emulated PC whose firmware says two letters and ends it."""
    binary = shutil.which(QEMU)
    if binary is None:
        return finding(State.NO, f"{QEMU} is not in the PATH", QEMU_REMEDY)
    done = _boot(binary, firmware())
    version = _qemu_version(binary)
    if done.returncode == 2 * EXIT_VALUE + 1 and done.stdout == GREETING:
        return finding(State.YES, f"QEMU {version} ran a guest with TCG", version=version, binary=binary)
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
    observed = f"QEMU {version} ended with status {done.returncode} and printed {done.stdout!r} {said[0]}"
    return finding(State.NO, observed, "Reinstall QEMU (7.2 or later): `sudo apt-get install qemu-system-x86`.")


def svm() -> Finding:
    """Let an emulated PC enter a guest of its own and leave it, by AMD's virtualization extension; see `svm.py`."""
    from . import svm as module  # noqa: PLC0415 - used here only

    binary = shutil.which(QEMU)
    if binary is None:
        return finding(State.NO, f"{QEMU} is not in the PATH", QEMU_REMEDY)
    done = _boot(binary, module.firmware(EXIT_PORT, EXIT_VALUE), "-cpu", "qemu64,+svm", "-no-reboot")
    if done.returncode == 2 * EXIT_VALUE + 1 and done.stdout == module.GREETING:
        observed = "hardware-assisted virtualization, emulated: one vmrun, one vmexit, as on AMD's processors"
        return finding(State.YES, observed)
    observed = f"the emulated AMD processor did not come back from vmrun (status {done.returncode})"
    return finding(State.NO, observed, "Update QEMU (7.2 or later); only lesson 08 wants it.")


def _boot(binary: str, rom: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run an emulated PC with this firmware until it ends itself."""
    with tempfile.TemporaryDirectory(prefix="course-probe-") as place:
        path = Path(place) / "rom.bin"
        path.write_bytes(rom)
        command = [binary, "-accel", "tcg", "-machine", "pc", "-m", "2", "-nodefaults", "-no-user-config", *options]
        command += ["-display", "none", "-bios", str(path), "-serial", "stdio"]
        command += ["-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=7, check=False)


def _qemu_version(binary: str) -> str:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    words = text.split()
    return words[3].rstrip("(,") if len(words) > 3 else "of unknown version"


def unicorn() -> Finding:
    """Let Unicorn execute two instructions."""
    try:
        library: Any = importlib.import_module("unicorn")
        x86: Any = importlib.import_module("unicorn.x86_const")
    except ImportError as error:
        return finding(State.NO, f"Unicorn cannot be loaded ({error})", "Install it: `pip install unicorn`.")
    machine = library.Uc(library.UC_ARCH_X86, library.UC_MODE_64)
    code = bytes.fromhex("48 ff c0 48 01 d8")  # inc rax / add rax, rbx
    machine.mem_map(0x1000, 0x1000)
    machine.mem_write(0x1000, code)
    machine.reg_write(x86.UC_X86_REG_RAX, 1)
    machine.reg_write(x86.UC_X86_REG_RBX, 40)
    machine.emu_start(0x1000, 0x1000 + len(code))
    result = machine.reg_read(x86.UC_X86_REG_RAX)
    state = State.YES if result == 42 else State.NO
    return finding(state, f"Unicorn {library.__version__} computed (1 + 1) + 40 = {result}")


# T2

NAMESPACES = {
    "user": 0x10000000, "mount": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000,
    "pid": 0x20000000, "network": 0x40000000, "cgroup": 0x02000000,
}  # fmt: skip
PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
STEPS = 3


def libc() -> ctypes.CDLL:
    """Load the C library with the prototypes used here."""
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    library.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
    return library


def checked(result: int, what: str) -> int:
    """Turn -1 of the C library into OSError."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def ptrace() -> Finding:
    """Stop a child of our own and let it do three instructions, one by one."""
    if not ON_LINUX:
        return finding(State.NO, f"{platform.system()} has no ptrace as Linux has it", NEEDS_LINUX)
    library = libc()
    child = os.fork()
    if child == 0:
        if library.ptrace(PTRACE_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(ctypes.get_errno() or 1)
    try:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            reason = os.strerror(os.waitstatus_to_exitcode(status))
            return finding(State.NO, f"a child may not be traced ({reason})", PTRACE_REMEDY)
        for _ in range(STEPS):
            checked(library.ptrace(PTRACE_SINGLESTEP, child, None, None), "PTRACE_SINGLESTEP")
            _, status = os.waitpid(child, 0)
            if not os.WIFSTOPPED(status):
                return finding(State.NO, "a traced child ran away instead of doing one step", PTRACE_REMEDY)
    except OSError as error:
        return finding(State.NO, f"a child cannot be single-stepped ({error.strerror})", PTRACE_REMEDY)
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return finding(State.YES, f"a child did {STEPS} instructions, one by one")


PTRACE_REMEDY = (
    "A container's seccomp profile forbids it (Docker: `--cap-add SYS_PTRACE`); lessons use Unicorn instead."
)
NAMESPACE_REMEDY = (
    "Ubuntu 24.04: `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`. In a container or on Binder "
    "there is nothing to do: the lessons use the namespaces of a small guest instead."
)


def namespaces() -> Finding:
    """Become root of a user namespace, enter one namespace of each other kind and mount a tmpfs."""
    if not ON_LINUX:
        return finding(State.NO, f"{platform.system()} has no namespaces", NEEDS_LINUX)
    trials: dict[str, Callable[[], object]] = {"user": _become_root_of_a_namespace}
    others = {kind: flag for kind, flag in NAMESPACES.items() if kind != "user"}
    trials |= {kind: _enter(flag) for kind, flag in others.items()}
    trials["tmpfs"] = _mount_tmpfs
    results = {name: _attempt(trial) for name, trial in trials.items()}
    return _summary(results, "in a user namespace", NAMESPACE_REMEDY)


def root() -> Finding:
    """Use what only root may: namespaces without a user namespace, and a mount."""
    user = os.geteuid()
    if user != 0:
        return finding(State.NO, f"user id {user}", "Not needed: the lessons give you root inside a guest.", uid=user)
    if not ON_LINUX:
        return finding(State.NO, f"root on {platform.system()}", NEEDS_LINUX, uid=user)
    trials = {kind: _enter(flag) for kind, flag in NAMESPACES.items() if kind != "user"}
    results = {name: _attempt(trial) for name, trial in {**trials, "tmpfs": _mount_tmpfs}.items()}
    return _summary(results, "as root", "This is root of a container only: the lessons use a guest for the rest.")


def _become_root_of_a_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    checked(libc().unshare(NAMESPACES["user"]), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _enter(flag: int) -> Callable[[], object]:
    return lambda: checked(libc().unshare(flag), "unshare")


def _mount_tmpfs() -> None:
    """Mount in a mount namespace of our own, which the trial before entered; nobody else sees it."""
    library = libc()
    checked(library.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make mounts private")
    with tempfile.TemporaryDirectory(prefix="course-probe-") as place:
        checked(library.mount(b"tmpfs", place.encode(), b"tmpfs", 0, None), "mount tmpfs")
        checked(library.umount2(place.encode(), 0), "umount")


def _attempt(trial: Callable[[], object]) -> str:
    """Return "ok" or the name of the error."""
    try:
        trial()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "error")
    return "ok"


def _summary(results: dict[str, str], where: str, remedy: str) -> Finding:
    works = [name for name, result in results.items() if result == "ok"]
    fails = [f"{name} ({result})" for name, result in results.items() if result != "ok"]
    if not fails:
        return finding(State.YES, f"{where}: {', '.join(works)}", **results)
    if not works:
        return finding(State.NO, f"{where}: refused, {', '.join(fails)}", remedy, **results)
    return finding(State.PARTLY, f"{where}: {', '.join(works)}; refused: {', '.join(fails)}", remedy, **results)


# T3


def kvm() -> Finding:
    """Run tiny guests under KVM; see `kvm.py`."""
    from . import kvm as module  # noqa: PLC0415 - ioctls and mmap only where they are wanted

    return module.experiment()


# T5

PVE_PORT = 8006
PVE_REMEDY = (
    "Set LAB_PVE_HOST to the host (or host:port) of a Proxmox VE that you may use; else the lab cluster serves."
)


def proxmox() -> Finding:
    """Ask the host named by LAB_PVE_HOST for its version without logging in: a Proxmox VE refuses, by its name."""
    host = os.environ.get("LAB_PVE_HOST", "").strip()
    if not host:
        return finding(State.NO, "LAB_PVE_HOST is not set", PVE_REMEDY)
    origin = host if "://" in host else f"https://{host}"
    if origin.count(":") == 1:
        origin += f":{PVE_PORT}"
    try:
        status, server = _ask(f"{origin}/api2/json/version")
    except (OSError, ValueError) as error:
        return finding(State.NO, f"{origin} does not answer ({error})", PVE_REMEDY)
    if "pve-api-daemon" in server:
        return finding(State.YES, f"{origin} is a Proxmox VE ({server}, status {status})", server=server)
    return finding(State.NO, f"{origin} answers {status} as {server or 'nobody'}, not as a Proxmox VE", PVE_REMEDY)


def _ask(url: str) -> tuple[int, str]:
    """Return the status and the Server header. No secret travels, so the certificate (self-signed) may be any."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http and https addresses can be asked")
    context = ssl._create_unverified_context()  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=3, context=context) as answer:  # noqa: S310 - scheme checked above
            return answer.status, answer.headers.get("Server", "")
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers.get("Server", "")


def main(name: str) -> None:
    """Run one experiment and print its finding; an exception is a finding too."""
    experiment: Callable[[], Finding] = globals()[name]
    try:
        result = experiment()
    except Exception as error:
        level = {"level": "broken"} if name == "kvm" else {}
        result = finding(State.NO, f"{type(error).__name__}: {error}", "", **level)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
