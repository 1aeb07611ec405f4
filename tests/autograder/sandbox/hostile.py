"""What a hostile answer would try, one function each. This file is sent into a box as text and runs there.

Each function returns what it got, or raises; `attempts` turns that into a word beginning with "refused" or "DONE".
"""

import ctypes
import os
import socket
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)


def attempts(facts):
    """Try everything; return what became of each attempt."""
    tries = {
        **{f"read {path}": lambda path=path: Path(path).read_bytes() for path in facts["unreadable"]},
        **{f"list {path}": lambda path=path: visible(path) for path in facts["unlistable"]},
        **{f"write {path}": lambda path=path: Path(path).write_text("mine") for path in facts["unwritable"]},
        "tcp": lambda: connect(socket.AF_INET, ("127.0.0.1", facts["port"])),
        "udp": lambda: udp(facts["udp_port"]),
        "internet": lambda: connect(socket.AF_INET, ("192.0.2.1", 80)),
        "abstract socket": lambda: connect(socket.AF_UNIX, facts["abstract"]),
        "unix socket": lambda: connect(socket.AF_UNIX, facts["unix"]),
        "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
        "alg": lambda: socket.socket(38, socket.SOCK_SEQPACKET),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "packet": lambda: socket.socket(17, socket.SOCK_RAW),
        "see": lambda: see(facts["comm"]),
        "signal": lambda: os.kill(facts["pid"], 0) if other(facts["pid"]) else refuse("another process"),
        "environment": lambda: secrets(facts["secret"]),
        "become root": lambda: os.setuid(0),
        "become another": lambda: os.setuid(12345),
        "chown": lambda: os.chown(made(), 0, 0),
        "device": lambda: os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(8, 0)),
        "raise limit": raise_limit,
        "new user namespace": lambda: call("unshare", 0x10000000),
        "new network": lambda: call("unshare", 0x40000000),
        "clone user namespace": lambda: fork_into(0x10000000 | 17),
        "autograder": lambda: __import__("autograder.checks"),
        "lessons": lessons,
    }
    return {name: attempt(trial) for name, trial in tries.items()}


def attempt(trial):
    """Say how one attempt ended."""
    try:
        return f"DONE {trial()!r}"[:200]
    except BaseException as error:
        return f"refused: {type(error).__name__}: {error}"[:200]


def refuse(why):
    """End an attempt that did not get what it wanted."""
    raise PermissionError(why)


def visible(path):
    """List a folder; an empty one is nothing."""
    return [entry.name for entry in Path(path).iterdir()] or refuse("there is nothing")


def connect(family, address):
    """Connect within a moment."""
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect(address)
        return address


def udp(port):
    """Send a datagram and wait for the answer of a listener that answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(1)
        one.sendto(b"hello", ("127.0.0.1", port))
        return one.recv(10)


def see(comm):
    """Find a process of the host by its name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found.append(path.read_text().strip())
        except OSError:
            continue
    return comm if comm in found else refuse(f"{len(found)} processes")


def other(pid):
    """Tell whether a number stands for the process of the host that it should: here it may be another."""
    return Path(f"/proc/{pid}").exists()


def secrets(secret):
    """Look for a secret of the grader in every environment and command line."""
    for path in [*Path("/proc").glob("[0-9]*/environ"), *Path("/proc").glob("[0-9]*/cmdline")]:
        try:
            if secret.encode() in path.read_bytes():
                return str(path)
        except OSError:
            continue
    return "os.environ" if secret in str(os.environ) else refuse("nowhere")


def made():
    """Return the path of a new file."""
    path = Path(os.environ["TMPDIR"]) / "x"
    path.write_text("")
    return path


def raise_limit():
    """Ask for more processes than allowed."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard + 1, hard + 1))


def call(name, *arguments):
    """Call the C library."""
    if getattr(libc, name)(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return "it worked"


def fork_into(flags):
    """Clone with flags, past the C library."""
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    pid = libc.syscall(ctypes.c_long(number), ctypes.c_ulong(flags), None, None, None, None)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return "it worked"


def lessons():
    """Look for the solutions in the course's own texts."""
    import course

    folder = Path(course.__file__).parent / "lessons"
    return [path.read_text()[:20] for path in folder.glob("*.md")] or refuse("no lesson is here")


def status():
    """Return what the kernel says of this process: name → value."""
    return dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)


def refusals(numbers):
    """Make each system call with arguments that do no harm; return the errno of each."""
    found = {}
    for name, number in numbers.items():
        ctypes.set_errno(0)
        minus = ctypes.c_long(-1)
        result = libc.syscall(ctypes.c_long(number), minus, minus, minus, minus, minus, minus)
        found[name] = ctypes.get_errno() if result < 0 else 0
    return found
