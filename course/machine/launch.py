"""A machine's command line: what every machine gets, what is checked before, what a failed start means."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..error import UsageError
from . import qemu
from .directory import checked_socket_path

_HINTS = (
    (
        r"Address already in use|not set up host forwarding",
        "Another process listens there: choose another port or path, or end that process.",
    ),
    (r"Failed to get .*lock", "Another QEMU has this disk open: shut it down, or give this machine its own copy."),
    (r"No space left on device", "Free some disk space, or choose a file elsewhere."),
    (r"Could not open .*Permission denied|Permission denied", "Check who owns the file and its permissions."),
    (r"Could not open|No such file or directory", "Check that the file exists and that its path is right."),
    (r"annot set up guest memory|annot allocate memory", "Give the guest less memory (-m), or end other machines."),
    (r"unsupported machine type", "qemu-system-… -M help lists the machine types."),
    (r"is not a valid device model name|Device .* not found", "qemu-system-… -device help lists the devices."),
    (r"invalid option", "qemu-system-… --help lists the options of this QEMU."),
    (r"failed to initialize kvm|Could not access KVM", "Use accel='tcg': emulation works everywhere."),
)


def hint(output: str) -> str:
    """Return what to do about a start that failed with this output; empty when nothing better than reading it."""
    return next((advice for pattern, advice in _HINTS if re.search(pattern, output, re.IGNORECASE)), "")


_SIGNALS = {
    signal.SIGKILL: " (by someone else, or by the kernel for want of memory)",
    signal.SIGSYS: " (its sandbox: it tried what it must not, such as starting a program; see sandbox=False)",
    signal.SIGXFSZ: " (a file grew over the limit set by ulimit -f)",
}


def end_of(exitcode: int) -> str:
    """Say in words how a process ended."""
    if exitcode >= 0:
        return f"It ended with exit code {exitcode}."
    number = signal.Signals(-exitcode)
    return f"It was ended by {number.name}{_SIGNALS.get(number, '')}."


def command(
    arguments: Iterable[object],
    *,
    binary: str,
    name: str,
    accel: str,
    sandbox: bool,
    incoming: bool,
    monitor_fd: int,
    console_fd: int | None,
    qmp_paths: Sequence[str],
) -> list[str]:
    """Return the command line of a machine.

    Raises:
        CapabilityError: when the binary is missing or too old.
        UsageError: when an argument cannot be meant.
    """
    path = qemu.find(binary)
    line = [str(path), "-name", name.replace(",", ",,"), "-accel", accel, "-nodefaults", "-display", "none"]
    line += ["-chardev", f"socket,id=course-qmp,fd={monitor_fd}", "-mon", "chardev=course-qmp,mode=control"]
    if console_fd is not None:
        line += ["-chardev", f"socket,id=course-console,fd={console_fd}", "-serial", "chardev:course-console"]
    for number, socket_path in enumerate(qmp_paths):
        escaped = socket_path.replace(",", ",,")
        line += ["-chardev", f"socket,id=course-qmp{number},path={escaped},server=on,wait=off"]
        line += ["-mon", f"chardev=course-qmp{number},mode=control"]
    if sandbox and qemu.supports(path, "-sandbox"):
        line += ["-sandbox", "on,spawn=deny"]
    if incoming:
        line += ["-incoming", "defer"]
    return line + checked(arguments)


def checked(arguments: Iterable[object]) -> list[str]:
    """Return a caller's arguments as strings.

    Raises:
        UsageError: for what QEMU would take amiss or misunderstand: None or a list as an argument, several words in
            one, a socket path that is too long or in use.
    """
    line = []
    for argument in arguments:
        if not isinstance(argument, str | Path | int) or isinstance(argument, bool):
            raise UsageError(
                f"{argument!r} is a {type(argument).__name__}; expected one string per argument. "
                "Unpack a list with a star: Machine(*options)."
            )
        line.append(str(argument))
    for text in line:
        if re.match(r"-\w[\w-]*\s", text):
            option, value = text.split(None, 1)
            raise UsageError(f"{text!r} holds an option and its value; expected two arguments: {option!r}, {value!r}.")
        for socket_path in _listening_paths(text):
            _check_free(checked_socket_path(socket_path))
    return line


def _listening_paths(argument: str) -> list[str]:
    """Paths of the Unix sockets that QEMU would make for this argument."""
    if not re.search(r"(^|,)server(,|=on|$)|^unix:", argument) or "server=off" in argument:
        return []
    found = re.search(r"^unix:((?:,,|[^,])+)|^socket,(?:.*,)?path=((?:,,|[^,])+)", argument)
    return [(found[1] or found[2]).replace(",,", ",")] if found else []


def _check_free(path: str) -> None:
    """Refuse a path on which a process listens: QEMU would unlink it without a word, and cut that process off."""
    try:
        sockets = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    listening = 0x10000  # __SO_ACCEPTCON, include/linux/net.h
    for row in sockets[1:]:
        fields = row.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == str(Path(path).absolute()) and int(fields[3], 16) & listening:
            raise UsageError(f"the socket {path} is in use: a process listens on it. Choose another path.")
